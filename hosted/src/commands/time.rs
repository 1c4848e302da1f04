//! `smoltalk time`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use smoltalk::{Duration, Protocol, time};
use smoltalk_hosted::error::Error;

use super::Stack;
use super::ask::Question;
use crate::cli::Target;
use crate::output::Output;

/// Asks `target` for the time as `format` has it, and shows what comes back.
pub fn time(
    stack: &Stack,
    output: &Output,
    target: &Target,
    format: &OsStr,
    timeout: Duration,
) -> Result<(), Error> {
    Question {
        stack,
        service: "time",
        transport: Protocol::Udp,
        addresses: &stack.resolve(target, time::PORT)?,
        request: format.as_bytes(),
        timeout,
    }
    .ask::<{ time::MAX_FORMAT }, { time::MAX_ANSWER }>(output)
}
