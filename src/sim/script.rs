//! What the services say to whom: one list of exchanges, which every backend must answer alike.
//!
//! The conformance suite runs it in memory, on smoltcp over a simulated link, on host sockets and on a TAP
//! device, and compares the transcripts byte for byte; `smoltalk demo` runs it to show that all is well. A
//! request that must not be answered is followed by one that must, on the same socket: what comes back first
//! tells whether the first stayed without answer, and nobody has to wait for a silence to end.

use core::fmt;

use crate::{Protocol, Wall, chat, greeting, time};

/// The time it is in every exchange: noon has passed on a leap day, in UTC.
pub const WALL: Wall = Wall::utc(1_456_749_296);

/// What an unattended chat answers in every exchange.
pub const AUTO_REPLY: &str = "nobody is here";

/// A service, as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The greeting over a stream.
    GreetingTcp,
    /// The greeting over datagrams.
    GreetingUdp,
    /// The time.
    Time,
    /// The chat, with nobody there but [`AUTO_REPLY`].
    Chat,
}

impl Service {
    /// All of them, in the order in which `smoltalk serve` lists them.
    pub const ALL: [Self; 4] = [Self::GreetingTcp, Self::GreetingUdp, Self::Time, Self::Chat];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GreetingTcp | Self::GreetingUdp => "greeting",
            Self::Time => "time",
            Self::Chat => "chat",
        }
    }

    /// The protocol it is spoken over.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::GreetingTcp => Protocol::Tcp,
            Self::GreetingUdp | Self::Time | Self::Chat => Protocol::Udp,
        }
    }

    /// Its default port.
    pub const fn port(self) -> u16 {
        match self {
            Self::GreetingTcp | Self::GreetingUdp => greeting::PORT,
            Self::Time => time::PORT,
            Self::Chat => chat::PORT,
        }
    }
}

/// One client's exchange with one service, on a socket of its own.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// What it shows.
    pub name: &'static str,
    /// Who is spoken to.
    pub service: Service,
    /// Datagrams, or pieces of a stream that are sent apart from each other.
    pub requests: &'static [&'static [u8]],
    /// Whether the client ends its direction of the stream after the last piece.
    pub end: bool,
    /// The datagrams that come back, or the whole stream that does, up to its end.
    pub answers: &'static [&'static [u8]],
}

const fn datagrams(
    service: Service,
    name: &'static str,
    requests: &'static [&'static [u8]],
    answers: &'static [&'static [u8]],
) -> Exchange {
    Exchange {
        name,
        service,
        requests,
        end: false,
        answers,
    }
}

const fn stream(name: &'static str, requests: &'static [&'static [u8]], end: bool) -> Exchange {
    Exchange {
        name,
        service: Service::GreetingTcp,
        requests,
        end,
        answers: &[b"hi"],
    }
}

use Service::{Chat, GreetingUdp, Time};

/// Every exchange. The first of each service is the plainest.
pub const EXCHANGES: &[Exchange] = &[
    stream("a greeting", &[b"hello"], false),
    stream("one byte is enough", &[b"h"], false),
    stream(
        "one byte at a time",
        &[b"h", b"e", b"l", b"l", b"o"],
        false,
    ),
    stream("the end is a greeting too", &[], true),
    stream("a greeting and the end", &[b"hello"], true),
    stream("any bytes", &[b"\x00\xff\x1b[31m\r\n"], false),
    stream("the longest greeting", &[&[b'x'; 1024]], false),
    datagrams(GreetingUdp, "a greeting", &[b"hello"], &[b"hi"]),
    datagrams(GreetingUdp, "an empty datagram", &[b""], &[b"hi"]),
    datagrams(GreetingUdp, "any bytes", &[b"\x00\xff\x1b[31m"], &[b"hi"]),
    datagrams(
        GreetingUdp,
        "three on one socket",
        &[b"one", b"two", b"three"],
        &[b"hi", b"hi", b"hi"],
    ),
    datagrams(GreetingUdp, "a long datagram", &[&[b'x'; 1400]], &[b"hi"]),
    datagrams(
        Time,
        "the default format",
        &[b""],
        &[b"2016-02-29 12:34:56"],
    ),
    datagrams(Time, "date", &[b"%d.%m.%Y"], &[b"29.02.2016"]),
    datagrams(
        Time,
        "names",
        &[b"%a %A %b %B %p"],
        &[b"Mon Monday Feb February PM"],
    ),
    datagrams(
        Time,
        "weeks",
        &[b"%j %U %W %V %G %g %u %w"],
        &[b"060 09 09 09 2016 16 1 1"],
    ),
    datagrams(
        Time,
        "flags and widths",
        &[b"%-m|%_m|%0e|%^a|%10Y|%_10d"],
        &[b"2| 2|29|MON|0000002016|        29"],
    ),
    datagrams(
        Time,
        "zone and seconds",
        &[b"%Z %z %s"],
        &[b"UTC +0000 1456749296"],
    ),
    datagrams(
        Time,
        "composed",
        &[b"%c|%D|%F|%r|%R|%T|%x|%X"],
        &[b"Mon Feb 29 12:34:56 2016|02/29/16|2016-02-29|12:34:56 PM|12:34|12:34:56|02/29/16|12:34:56"],
    ),
    datagrams(
        Time,
        "what is no directive",
        &[b"100%% %Q %"],
        &[b"100% %Q %"],
    ),
    datagrams(
        Time,
        "text in any script",
        &["现在 %H:%M".as_bytes()],
        &["现在 12:34".as_bytes()],
    ),
    datagrams(
        Time,
        "invalid UTF-8 is not answered",
        &[b"%Y \xff", b"%Y"],
        &[b"2016"],
    ),
    datagrams(
        Time,
        "a format over 256 bytes is not answered",
        &[&[b'x'; 257], b"%Y"],
        &[b"2016"],
    ),
    datagrams(
        Time,
        "an answer over 8 times the request is not given",
        &[b"%c%c%c%c%c", b"%Y"],
        &[b"2016"],
    ),
    datagrams(
        Time,
        "a field wider than any answer is not given",
        &[b"%999999999999Y", b"%Y"],
        &[b"2016"],
    ),
    datagrams(Chat, "a message", &[b"hello"], &[AUTO_REPLY.as_bytes()]),
    datagrams(
        Chat,
        "a message in any script",
        &["你好，哪吒".as_bytes()],
        &[AUTO_REPLY.as_bytes()],
    ),
    datagrams(
        Chat,
        "an escape sequence",
        &[b"\x1b[2J\x07"],
        &[AUTO_REPLY.as_bytes()],
    ),
    datagrams(
        Chat,
        "the longest message",
        &[&[b'x'; 1024]],
        &[AUTO_REPLY.as_bytes()],
    ),
    datagrams(
        Chat,
        "what is no message is not answered",
        &[b"", b"\xff\xfe", &[b'x'; 1025], b"hello"],
        &[AUTO_REPLY.as_bytes()],
    ),
];

/// The IP version that an exchange runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl IpVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Writes down one exchange as it went: what was said (`>`) and what came back (`<`), a line each, bytes that
/// are not printable ASCII as escapes.
///
/// # Errors
/// Those of `out`.
pub fn write_transcript<'a>(
    out: &mut dyn fmt::Write,
    version: IpVersion,
    exchange: &Exchange,
    answers: impl IntoIterator<Item = &'a [u8]>,
) -> fmt::Result {
    let service = exchange.service;
    writeln!(
        out,
        "{version} {} {}: {}",
        service.name(),
        service.protocol(),
        exchange.name
    )?;
    for request in exchange.requests {
        writeln!(out, "> {}", request.escape_ascii())?;
    }
    if exchange.end {
        writeln!(out, "> (end)")?;
    }
    for answer in answers {
        writeln!(out, "< {}", answer.escape_ascii())?;
    }
    if service.protocol() == Protocol::Tcp {
        writeln!(out, "< (end)")?;
    }
    Ok(())
}
