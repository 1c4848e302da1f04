//! The time in a format, over and over: for callgrind, which counts the instructions.

use std::ffi::CString;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;

use smoltalk::greeting::DatagramServer;
use smoltalk::time::{CachingServer, format};
use smoltalk::{DatagramService, Instant, Now, Wall, Zone};

use crate::sys::{broken_down, strftime};

/// 2026-11-22 18:03:09 CET, whichever the format.
const UNIX: i64 = 1_795_366_989;
const OFFSET: i32 = 3_600;
const ZONE: &str = "CET";

/// With glibc's strftime(3); with `breaking_down`, of a time that gmtime_r(3) has broken down into fields.
pub fn glibc(times: u32, formats: &[&str], breaking_down: bool) -> io::Result<()> {
    let mut out = [0; 512];
    let mut written = 0;
    let mut time = broken_down(UNIX, OFFSET, c"CET");
    for text in formats {
        let text = CString::new(*text)?;
        for _ in 0..times {
            if breaking_down {
                time = broken_down(black_box(UNIX), OFFSET, c"CET");
            }
            written += strftime(black_box(&mut out), black_box(&text), black_box(&time));
        }
    }
    some(written)
}

/// With smoltalk's, which does both.
pub fn own(times: u32, formats: &[&str]) -> io::Result<()> {
    let wall = wall()?;
    let mut out = [0; 512];
    let mut written = 0;
    for text in formats {
        for _ in 0..times {
            let len = format(black_box(text), black_box(&wall), black_box(&mut out));
            written += len.map_err(io::Error::other)?;
        }
    }
    some(written)
}

/// With the server of the time service as `serve` has it, from the request to the answer.
pub fn time(times: u32, formats: &[&str]) -> io::Result<()> {
    server(CachingServer::<16>::new(), times, formats)
}

/// The same with the server of the greeting, which writes no time.
pub fn none(times: u32, formats: &[&str]) -> io::Result<()> {
    server(DatagramServer::new(), times, formats)
}

fn server(mut server: impl DatagramService, times: u32, requests: &[&str]) -> io::Result<()> {
    let now = Now {
        monotonic: Instant::ZERO,
        wall: Some(wall()?),
    };
    let client: SocketAddr = ([192, 0, 2, 7], 40_000).into();
    let mut out = [0; 512];
    let mut written = 0;
    for request in requests {
        for _ in 0..times {
            // Whoever rejects it has nothing to send.
            let _ = server.handle_datagram(now, black_box(client), black_box(request.as_bytes()));
            let transmit = server.poll_transmit(now, black_box(&mut out));
            written += transmit.map_or(0, |transmit| transmit.len);
        }
    }
    some(written)
}

fn wall() -> io::Result<Wall> {
    let zone = Zone::new(OFFSET, ZONE).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Wall {
        unix_seconds: UNIX,
        nanoseconds: 0,
        zone,
    })
}

/// Keeps the compiler from leaving anything out.
fn some(written: usize) -> io::Result<()> {
    match black_box(written) {
        0 => Err(io::Error::other("nothing was written")),
        _ => Ok(()),
    }
}
