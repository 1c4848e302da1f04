//! What smoltalk is compared with: the limits, each written for its one case, and what people would write or use.

mod answer;
mod bulk;
mod format;
mod frames;
mod host_tcp;
mod host_udp;
mod smoltcp_examples;
mod tap_tcp;
mod tap_udp;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltalk_hosted::error::{Error, Exit};

/// Runs the peer that `arguments` name, until it is killed.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<u8, Error> {
    let arguments: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [program, times, ref formats @ ..] if program.starts_with("strftime") => {
            let times = number(times)?;
            return match program {
                "strftime-glibc" => done(&words, format::glibc(times, formats, true)),
                "strftime-glibc-alone" => done(&words, format::glibc(times, formats, false)),
                "strftime-format" => done(&words, format::own(times, formats)),
                "strftime-server" => done(&words, format::time(times, formats)),
                _ => done(&words, format::none(times, formats)),
            };
        }
        ["udp-one", at] => host_udp::one(addr(at)?, false),
        ["udp-one-busy", at] => host_udp::one(addr(at)?, true),
        ["udp-mmsg", at] => host_udp::mmsg(addr(at)?),
        ["udp-segment", at] => host_udp::segment(addr(at)?),
        ["udp-std", at] => host_udp::standard(addr(at)?),
        ["udp-tokio", at] => host_udp::tokio(addr(at)?),
        ["tcp-defer", at] => host_tcp::blocking(addr(at)?, true),
        ["tcp-std", at] => host_tcp::blocking(addr(at)?, false),
        ["tcp-mio", at] => host_tcp::mio(addr(at)?),
        ["tcp-tokio", at] => host_tcp::tokio(addr(at)?),
        ["tap-udp", tap, at, _] => tap_udp::reflect(tap, ip(at)?, false),
        ["tap-udp-busy", tap, at, _] => tap_udp::reflect(tap, ip(at)?, true),
        ["kernel-bulk", name, at] => bulk::kernel(name, ip(at)?),
        ["tap-tcp", tap, at, _, _] => tap_tcp::respond(tap, ip(at)?),
        ["smoltcp-udp", tap, at, router] => {
            smoltcp_examples::time(tap, ip(at)?, ip(router)?, false)
        }
        ["smoltcp-udp-drain", tap, at, router] => {
            smoltcp_examples::time(tap, ip(at)?, ip(router)?, true)
        }
        ["smoltcp-tcp", tap, at, router, pool] => {
            smoltcp_examples::greeting(tap, ip(at)?, ip(router)?, number(pool)? as usize)
        }
        ["smoltcp-bulk", tap, at, router] => smoltcp_examples::bulk(tap, ip(at)?, ip(router)?),
        _ => return Err(Error::usage(format!("no such peer: {words:?}"))),
    };
    match result {
        Ok(never) => match never {},
        Err(error) => Err(Error::io(format_args!("{words:?}"), &error)),
    }
}

/// Ends a peer that has an end.
fn done(words: &[&str], result: io::Result<()>) -> Result<u8, Error> {
    match result {
        Ok(()) => Ok(Exit::Done as u8),
        Err(error) => Err(Error::io(format_args!("{words:?}"), &error)),
    }
}

/// Says that the peer can be spoken to.
fn ready() -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()
}

fn addr(text: &str) -> Result<SocketAddrV4, Error> {
    text.parse()
        .map_err(|_| Error::usage(format!("{text} is no address")))
}

fn ip(text: &str) -> Result<Ipv4Addr, Error> {
    text.parse()
        .map_err(|_| Error::usage(format!("{text} is no address")))
}

fn number(text: &str) -> Result<u32, Error> {
    text.parse()
        .map_err(|_| Error::usage(format!("{text} is no number")))
}
