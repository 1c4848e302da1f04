//! The limit of the greeting over TCP on a TAP device: each segment is answered from what is in it, and nothing is
//! kept. It can repeat nothing that is lost, and believes everybody.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;

use super::frames::{IP, TCP, TRANSPORT, Tap, answer_arp, finish, is_for, turn};
use super::ready;

const PORT: u16 = smoltalk::greeting::PORT;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Our first sequence number, in every connection.
const FIRST: u32 = 1_000;
/// An option: segments of at most 1,460 bytes.
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];

pub fn respond(tap: &str, ours: Ipv4Addr) -> io::Result<Infallible> {
    let mut tap = Tap::attach(tap)?;
    let mut buffer = [0; 2_048];
    ready()?;
    loop {
        let len = tap.read(&mut buffer)?;
        if is_for(&buffer[..len], TCP, PORT) && len >= TRANSPORT + 20 {
            if let Some(len) = answer(&mut buffer) {
                tap.write(&buffer[..len])?;
            }
        } else if answer_arp(&mut buffer[..len], ours) {
            tap.write(&buffer[..len])?;
        }
    }
}

/// Makes a segment the answer to it, and returns the length of the frame.
fn answer(frame: &mut [u8]) -> Option<usize> {
    let number = |at: usize| {
        let bytes = &frame[TRANSPORT + at..TRANSPORT + at + 4];
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte))
    };
    let (sequence, acknowledged) = (number(4), number(8));
    let flags = frame[TRANSPORT + 13];
    let header = usize::from(frame[TRANSPORT + 12] >> 4) * 4;
    let total = usize::from(u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]));
    let data = total.checked_sub(20 + header)? as u32;

    let (flags_out, sequence_out, acknowledge, body): (u8, u32, u32, &[u8]) = if flags & RST != 0 {
        return None;
    } else if flags & SYN != 0 {
        (SYN | ACK, FIRST, sequence.wrapping_add(1), &MSS)
    } else if data > 0 {
        let acknowledge = sequence.wrapping_add(data);
        (FIN | PSH | ACK, acknowledged, acknowledge, b"hi")
    } else if flags & FIN != 0 {
        (ACK, acknowledged, sequence.wrapping_add(1), &[])
    } else {
        return None;
    };
    turn(frame);
    let options = if flags_out & SYN != 0 { body.len() } else { 0 };
    let tcp = &mut frame[TRANSPORT..];
    tcp[4..8].copy_from_slice(&sequence_out.to_be_bytes());
    tcp[8..12].copy_from_slice(&acknowledge.to_be_bytes());
    tcp[12] = ((20 + options) << 2) as u8;
    tcp[13] = flags_out;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    tcp[18..20].fill(0);
    tcp[20..20 + body.len()].copy_from_slice(body);
    let len = TRANSPORT + 20 + body.len();
    finish(&mut frame[..len], 16);
    Some(len)
}
