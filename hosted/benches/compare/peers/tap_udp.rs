//! The limit of the time over UDP on a TAP device: a frame is read, turned round, and written.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;

use super::answer::Cached;
use super::frames::{TRANSPORT, Tap, UDP, answer_arp, finish, is_for, turn};
use super::ready;

const PORT: u16 = smoltalk::time::PORT;
const PAYLOAD: usize = TRANSPORT + 8;

/// With `busy`, it never sleeps.
pub fn reflect(tap: &str, ours: Ipv4Addr, busy: bool) -> io::Result<Infallible> {
    let mut tap = if busy {
        Tap::attach_busy(tap)?
    } else {
        Tap::attach(tap)?
    };
    let mut buffer = [0; 2_048];
    let mut answer = Cached::default();
    ready()?;
    loop {
        let len = tap.read(&mut buffer)?;
        if is_for(&buffer[..len], UDP, PORT) {
            let answer = answer.get();
            let frame = &mut buffer[..PAYLOAD + answer.len()];
            turn(frame);
            frame[PAYLOAD..].copy_from_slice(answer);
            let len = 8 + answer.len() as u16;
            frame[TRANSPORT + 4..TRANSPORT + 6].copy_from_slice(&len.to_be_bytes());
            finish(frame, 6);
            tap.write(frame)?;
        } else if answer_arp(&mut buffer[..len], ours) {
            tap.write(&buffer[..len])?;
        }
    }
}
