//! One question, one answer: what `greet` and `time` have in common, on either stack.

use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use smoltalk::greeting::{self, StreamOutcome};
use smoltalk::text::Shown;
use smoltalk::{
    DatagramService, Duration, Exchange, Instant, Now, Outcome, Protocol, Retry, StreamService,
    Unreachable,
};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::Error;
use smoltalk_hosted::network::{DatagramId, Io, StreamsId};

use super::{Job, Stack, Traced, count, run};
use crate::output::{At, Output, Record, Said};

/// Who is asked, and how long an answer is waited for.
#[derive(Debug)]
pub struct Question<'a> {
    pub stack: &'a Stack,
    pub service: &'static str,
    pub transport: Protocol,
    /// The server's addresses, which are tried in this order.
    pub addresses: &'a [SocketAddr],
    pub request: &'a [u8],
    /// For all addresses together.
    pub timeout: Duration,
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub requests: u32,
}

impl Question<'_> {
    /// Asks, and shows the answer.
    ///
    /// `REQUEST` and `ANSWER` are the most bytes of each.
    ///
    /// # Errors
    /// None of the addresses has answered: what the last one did instead.
    pub fn ask<const REQUEST: usize, const ANSWER: usize>(
        &self,
        output: &Output,
    ) -> Result<(), Error> {
        if self.request.len() > REQUEST {
            return Err(Error::usage(format!(
                "the request has {}, and the {} takes at most {REQUEST}",
                count(self.request.len() as u64, "byte"),
                self.service
            )));
        }
        let clock = Clock::system();
        let deadline = clock.monotonic() + self.timeout;
        let mut failure = None;
        for (done, address) in self.addresses.iter().enumerate() {
            if let Some(error) = failure.take() {
                output.detail(error);
            }
            let at = At {
                service: self.service,
                transport: self.transport,
                address: *address,
            };
            // What is left is shared out among those who have not been asked.
            let left = (self.addresses.len() - done) as u32;
            let timeout = deadline.saturating_since(clock.monotonic()) / left;
            let started = clock.monotonic();
            match self.ask_one::<REQUEST, ANSWER>(&clock, output, at, timeout) {
                Ok(answer) => {
                    // Not the client's own figure, since an answer may come within the turn in which it asks, and
                    // all of a turn has one time.
                    let elapsed = clock.monotonic().saturating_since(started);
                    output.detail(format_args!(
                        "{at}: answered after {:.3} ms ({})",
                        milliseconds(elapsed),
                        count(answer.requests, "request")
                    ));
                    return output.record(&Record::Answer {
                        at,
                        answer: Said::new(&answer.bytes),
                        elapsed_ms: milliseconds(elapsed),
                        requests: answer.requests,
                    });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::failed("the server has no address")))
    }

    fn ask_one<const REQUEST: usize, const ANSWER: usize>(
        &self,
        clock: &Clock,
        output: &Output,
        at: At<'_>,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let mut network = self.stack.open()?;
        let too_long = || Error::usage("the request is too long");
        let label = at.to_string();
        match self.transport {
            Protocol::Udp => {
                let id = network.dial_datagrams(at.address)?;
                let client = Exchange::<REQUEST, ANSWER>::start(
                    clock.now(),
                    at.address,
                    self.request,
                    Retry::within(timeout),
                )
                .map_err(|_| too_long())?;
                let client = Traced::new(client, output, label);
                let mut job = AskDatagrams { id, client };
                run(&mut network, clock, output, &mut job)?;
                datagram_answer(job.client.inner.outcome(), at, timeout)
            }
            Protocol::Tcp => {
                let id = network.dial_stream(at.address)?;
                let client = greeting::StreamClient::<REQUEST, ANSWER>::start(
                    clock.now(),
                    self.request,
                    timeout,
                )
                .ok_or_else(too_long)?;
                let client = Traced::new(client, output, label);
                let mut job = AskStream { id, client };
                run(&mut network, clock, output, &mut job)?;
                let why = network.last_error(id).map(smoltalk_hosted::error::reason);
                stream_answer(job.client.inner.outcome(), at, timeout, why)
            }
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Asks over a datagram socket.
struct AskDatagrams<S> {
    id: DatagramId,
    client: S,
}

impl<const REQUEST: usize, const ANSWER: usize> Job
    for AskDatagrams<Traced<'_, Exchange<REQUEST, ANSWER>>>
{
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        Ok(io.datagrams(self.id, &mut self.client, now)?.deadline)
    }

    fn after_turn(&mut self, _: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        Ok(match self.client.inner.outcome() {
            Outcome::Pending => ControlFlow::Continue(self.client.poll_timeout()),
            _ => ControlFlow::Break(()),
        })
    }
}

/// Asks over a connection.
struct AskStream<S> {
    id: StreamsId,
    client: S,
}

impl<const REQUEST: usize, const ANSWER: usize> Job
    for AskStream<Traced<'_, greeting::StreamClient<REQUEST, ANSWER>>>
{
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        Ok(io.streams(self.id, &mut self.client, now)?.deadline)
    }

    fn after_turn(&mut self, _: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        Ok(match self.client.inner.outcome() {
            StreamOutcome::Pending => ControlFlow::Continue(self.client.poll_timeout()),
            _ => ControlFlow::Break(()),
        })
    }
}

const IS_IT_RUNNING: &str = "is it running (`smoltalk serve`), and is this its address and port?";

fn datagram_answer(outcome: Outcome<'_>, at: At<'_>, timeout: Duration) -> Result<Answer, Error> {
    match outcome {
        Outcome::Answered {
            answer, requests, ..
        } => Ok(Answer {
            bytes: answer.to_vec(),
            requests,
        }),
        Outcome::TimedOut { requests } => Err(no_answer(
            at,
            timeout,
            format_args!(" ({})", count(requests, "request")),
        )),
        // The loop ends only when the exchange does.
        Outcome::Pending => Err(no_answer(at, timeout, "")),
        Outcome::Unreachable(why) => {
            let hint = match why {
                Unreachable::Refused => IS_IT_RUNNING,
                Unreachable::NoRoute => "is this the right address, and is the network up?",
                Unreachable::Prohibited => "does a firewall forbid it?",
                Unreachable::TooLong => "make the request shorter",
            };
            Err(Error::failed(format!("{at}: {why}")).with_hint(hint))
        }
    }
}

fn stream_answer(
    outcome: StreamOutcome<'_>,
    at: At<'_>,
    timeout: Duration,
    why: Option<String>,
) -> Result<Answer, Error> {
    let came = |answer: &[u8]| match answer.len() {
        0 => String::new(),
        len => format!(
            " (until then {} came: {})",
            count(len as u64, "byte"),
            Shown(answer)
        ),
    };
    Err(match outcome {
        StreamOutcome::Answered { answer: b"", .. } => {
            Error::failed(format!("{at}: the connection was closed without an answer"))
                .with_hint("is it another service that has this port?")
        }
        StreamOutcome::Answered { answer, .. } => {
            return Ok(Answer {
                bytes: answer.to_vec(),
                requests: 1,
            });
        }
        StreamOutcome::Refused => {
            let why = why.unwrap_or_else(|| "nothing listens on that port".into());
            Error::failed(format!("{at}: no connection: {why}")).with_hint(IS_IT_RUNNING)
        }
        StreamOutcome::Reset { answer } => Error::failed(format!(
            "{at}: the connection was reset before the end of the answer{}",
            came(answer)
        ))
        .with_hint("it may be overloaded, or another service"),
        StreamOutcome::TimedOut {
            connected: false, ..
        } => Error::failed(format!("{at}: no connection in {}", in_words(timeout)))
            .with_hint(IS_IT_RUNNING),
        StreamOutcome::TimedOut {
            connected: true,
            answer,
        } => no_answer(
            at,
            timeout,
            format_args!(", although the connection was made{}", came(answer)),
        ),
        StreamOutcome::TooLong { answer } => Error::failed(format!(
            "{at}: the answer has more than {}",
            count(answer.len() as u64, "byte")
        ))
        .with_hint("is it another service that has this port?"),
        // The loop ends only when the exchange does.
        StreamOutcome::Pending => no_answer(at, timeout, ""),
    })
}

fn no_answer(at: At<'_>, timeout: Duration, more: impl fmt::Display) -> Error {
    Error::failed(format!(
        "no answer from {at} in {}{more}",
        in_words(timeout)
    ))
    .with_hint(format!("{IS_IT_RUNNING} `--timeout SECONDS` waits longer"))
}

/// `5 s`, `0.25 s`.
fn in_words(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> At<'static> {
        At {
            service: "greeting",
            transport: Protocol::Tcp,
            address: "192.0.2.1:8898".parse().unwrap(),
        }
    }

    fn failure(outcome: StreamOutcome<'_>, why: Option<&str>) -> String {
        stream_answer(
            outcome,
            at(),
            Duration::from_millis(2500),
            why.map(Into::into),
        )
        .unwrap_err()
        .to_string()
    }

    #[test]
    fn each_failure_says_what_happened_and_what_to_do() {
        for (outcome, why, expected) in [
            (
                StreamOutcome::Refused,
                Some("No route to host"),
                "greeting tcp 192.0.2.1:8898: no connection: No route to host\nis it running",
            ),
            (
                StreamOutcome::Answered {
                    answer: b"",
                    elapsed: Duration::ZERO,
                },
                None,
                "greeting tcp 192.0.2.1:8898: the connection was closed without an answer\n",
            ),
            (
                StreamOutcome::Refused,
                None,
                "greeting tcp 192.0.2.1:8898: no connection: nothing listens on that port\nis it running",
            ),
            (
                StreamOutcome::Reset {
                    answer: b"h\x1b[2J",
                },
                None,
                "greeting tcp 192.0.2.1:8898: the connection was reset before the end of the answer (until then 5 \
                 bytes came: h\\x1b[2J)\n",
            ),
            (
                StreamOutcome::TimedOut {
                    connected: false,
                    answer: b"",
                },
                None,
                "greeting tcp 192.0.2.1:8898: no connection in 2.5 s\n",
            ),
            (
                StreamOutcome::TimedOut {
                    connected: true,
                    answer: b"",
                },
                None,
                "no answer from greeting tcp 192.0.2.1:8898 in 2.5 s, although the connection was made\n",
            ),
            (
                StreamOutcome::TooLong { answer: b"abc" },
                None,
                "greeting tcp 192.0.2.1:8898: the answer has more than 3 bytes\n",
            ),
        ] {
            let text = failure(outcome, why);
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
