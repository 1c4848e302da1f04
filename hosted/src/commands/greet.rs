//! `smoltalk greet`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use smoltalk::{Duration, Protocol, greeting};
use smoltalk_hosted::error::Error;

use super::Stack;
use super::ask::Question;
use crate::cli::Target;
use crate::output::Output;

/// Greets `target` with `message`, and shows what comes back.
pub fn greet(
    stack: &Stack,
    output: &Output,
    target: &Target,
    transport: Protocol,
    message: &OsStr,
    timeout: Duration,
) -> Result<(), Error> {
    if message.is_empty() && transport == Protocol::Tcp {
        return Err(
            Error::usage("an empty greeting over TCP is none, and would wait for ever")
                .with_hint("say something, or use --udp"),
        );
    }
    Question {
        stack,
        service: "greeting",
        transport,
        addresses: &stack.resolve(target, greeting::PORT)?,
        request: message.as_bytes(),
        timeout,
    }
    .ask::<{ greeting::MAX_GREETING }, 1024>(output)
}
