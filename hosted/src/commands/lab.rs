//! `smoltalk lab`: the services in a network of their own, with a command beside them.

use std::ffi::OsString;

use smoltalk::Duration;
use smoltalk::chat::ContactBook;
use smoltalk_hosted::error::Error;
use smoltalk_hosted::lab;
use smoltalk_hosted::network::TapOptions;

use super::every_address;
use super::serve::{Options, Station, Then, clock, serve_until};
use crate::cli::{AutoReply, ServeArgs};
use crate::output::Output;

/// The TAP device's name: any would do, since nothing else is in the lab's network.
const DEVICE: &str = "tap0";

/// What the chat of a lab answers, since nobody is at its terminal.
const AUTO_REPLY: &str = "nobody is here, but your message has come";

/// Runs `command` in a lab, and returns its exit code. Standard output belongs to the command. Without services
/// nobody is at smoltcp's end of the TAP device, until the command puts somebody there.
pub fn lab(
    output: &Output,
    services: Option<ServeArgs>,
    command: Vec<OsString>,
    grace: Duration,
) -> Result<u8, Error> {
    let mut tap = TapOptions::new(DEVICE);
    let Some(mut args) = services else {
        return lab::run_without_serving(lab::Options { tap, command });
    };
    let clock = clock(args.at);
    if args.auto_reply.is_none() {
        args.auto_reply = Some(AutoReply(AUTO_REPLY.try_into().unwrap_or_default()));
    }
    let options = Options::new(args, every_address(&tap), ContactBook::new());
    tap.listeners = options.greeting_tcp.len();
    lab::run(lab::Options { tap, command }, |mut network, mut job| {
        let mut station = Station::bind(&mut network, output, &options)?;
        let signals = network.watch_signals()?;
        station.announce()?;
        job.start()?;
        let mut code = 0;
        serve_until(
            &mut network,
            &clock,
            &mut station,
            signals,
            grace,
            |signal| {
                Ok(match job.handle_signal(signal)? {
                    None => Then::GoOn,
                    Some(ended) => {
                        code = ended;
                        // Whoever could be waiting for an answer ended with the command.
                        Then::End
                    }
                })
            },
        )?;
        if output.verbose {
            station.tell_counters(&[])?;
        }
        Ok(code)
    })
}
