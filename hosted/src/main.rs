//! The `smoltalk` command.

mod cli;
mod commands;
mod config;
mod output;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;

use smoltalk::{Duration, Protocol};
use smoltalk_hosted::error::{Error, Exit};
use smoltalk_hosted::lab;

use cli::{Cli, Command, Host};
use commands::{Stack, chat, demo, greet, serve, time};
use config::Config;
use output::{Output, Stream};

/// How long a server that has ended waits for somebody to read its last lines.
const FLUSH: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new(lab::INIT)) {
        return lab::init(arguments).into();
    }
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(code) => code.into(),
        Err(error) => {
            tell(&error);
            error.exit().into()
        }
    }
}

/// What clap has to say: the help that was asked for, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody is there to read it, or to be told so.
        let _ = error.print();
        return Exit::Done.into();
    }
    let text = error.render().to_string();
    let text = match text.strip_prefix("error: ") {
        Some(what) => format!("smoltalk: {what}"),
        None => text,
    };
    let _ = write!(std::io::stderr(), "{text}");
    Exit::Usage.into()
}

/// `smoltalk: what failed: why; what to do`.
fn tell(error: &Error) {
    let text = error.to_string().replacen('\n', "; ", 1);
    let _ = writeln!(std::io::stderr(), "smoltalk: {text}");
}

fn run(cli: Cli) -> Result<u8, Error> {
    let Cli {
        mut common,
        command,
    } = cli;
    let config = Config::read()?;
    config.complete_common(&mut common);
    let timeout = |default| common.timeout.map_or(Duration::from_secs(default), |t| t.0);
    match command {
        Command::Serve {
            mut services,
            mut tap,
        } => {
            config.complete_services(&mut services);
            config.complete_tap(&mut tap);
            let stack = Stack::choose(&tap)?;
            let grace = timeout(2);
            let output = Output::new(&common, Stream::Out).queued();
            // No name is looked up: it would only be shown, and is not worth waiting for.
            let mut contacts = config.contacts(Vec::new());
            contacts.retain(|contact| matches!(contact.target.host, Host::Ip(_)));
            let served = serve::serve(&stack, &output, services, &contacts, grace);
            output.finish(FLUSH);
            served?;
        }
        Command::Greet {
            udp,
            addr,
            message,
            mut tap,
        } => {
            config.complete_tap(&mut tap);
            let transport = if udp { Protocol::Udp } else { Protocol::Tcp };
            greet::greet(
                &Stack::choose(&tap)?,
                &Output::new(&common, Stream::Out),
                &addr,
                transport,
                &message.unwrap_or_else(|| OsString::from("hello")),
                timeout(5),
            )?;
        }
        Command::Time {
            addr,
            format,
            mut tap,
        } => {
            config.complete_tap(&mut tap);
            time::time(
                &Stack::choose(&tap)?,
                &Output::new(&common, Stream::Out),
                &addr,
                &format.unwrap_or_default(),
                timeout(5),
            )?;
        }
        Command::Chat {
            listen,
            contact,
            name,
            mut tap,
        } => {
            config.complete_tap(&mut tap);
            chat::chat(
                &Stack::choose(&tap)?,
                &Output::new(&common, Stream::Out),
                chat::Options {
                    listen: listen.or(config.listen()),
                    contacts: config.contacts(contact),
                    name,
                    linger: timeout(2),
                },
            )?;
        }
        Command::Lab {
            mut services,
            no_serve,
            command,
        } => {
            config.complete_services(&mut services);
            // Nothing of the lab's may come between the command's own lines on standard output.
            let output = Output::new(&common, Stream::Err);
            let services = (!no_serve).then_some(services);
            return commands::lab::lab(&output, services, command, timeout(2));
        }
        Command::Demo { inside } => {
            let output = Output::new(&common, Stream::Out);
            if inside.is_empty() {
                demo::demo(&output, timeout(2))?;
            } else {
                demo::inside(&output, &inside, timeout(2))?;
            }
        }
    }
    Ok(Exit::Done as u8)
}
