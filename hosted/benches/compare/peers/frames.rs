//! Ethernet frames as they are read and written, for the limits over TAP: nothing but what their case needs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use smoltalk_hosted::tap::sys::open_tap;

/// The hardware address of every limit, each being alone on its link.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub const IP: usize = 14;
/// After an IPv4 header without options.
pub const TRANSPORT: usize = IP + 20;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// A TAP device, one frame at a time.
pub struct Tap(File);

impl Tap {
    /// Its reads wait asleep.
    pub fn attach(name: &str) -> io::Result<Self> {
        let tap = open_tap(name, false)?;
        fcntl(tap.as_fd(), FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(Self(tap.into()))
    }

    /// Its reads wait awake.
    pub fn attach_busy(name: &str) -> io::Result<Self> {
        Ok(Self(open_tap(name, false)?.into()))
    }

    pub fn read(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write(frame).map(drop)
    }
}

/// Makes an ARP request for `ours` the reply to it (RFC 826). False for any other frame.
pub fn answer_arp(frame: &mut [u8], ours: Ipv4Addr) -> bool {
    let asks = frame.len() >= 42
        && frame[12..14] == [0x08, 0x06]
        && frame[20..22] == [0, 1]
        && frame[38..42] == ours.octets();
    if asks {
        frame[21] = 2;
        frame.copy_within(22..32, 32);
        frame[22..28].copy_from_slice(&MAC);
        frame[28..32].copy_from_slice(&ours.octets());
        turn_ethernet(frame);
    }
    asks
}

/// Whether it is a datagram or segment of `protocol` to `port`, in a whole IPv4 packet without options.
pub fn is_for(frame: &[u8], protocol: u8, port: u16) -> bool {
    frame.len() >= TRANSPORT + 8
        && frame[12..15] == [0x08, 0x00, 0x45]
        && frame[IP + 9] == protocol
        && frame[TRANSPORT + 2..TRANSPORT + 4] == port.to_be_bytes()
}

/// Swaps the hardware addresses, the IP addresses and the ports, all of which leaves every checksum as it is.
pub fn turn(frame: &mut [u8]) {
    turn_ethernet(frame);
    let (source, destination) = frame[IP + 12..IP + 20].split_at_mut(4);
    source.swap_with_slice(destination);
    let (source, destination) = frame[TRANSPORT..TRANSPORT + 4].split_at_mut(2);
    source.swap_with_slice(destination);
}

fn turn_ethernet(frame: &mut [u8]) {
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&MAC);
}

/// Sets the length of the IP packet, and the checksums of its header and of the datagram or segment, whose checksum
/// is `at` bytes behind its beginning.
pub fn finish(frame: &mut [u8], at: usize) {
    let len = (frame.len() - IP) as u16;
    frame[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes());
    frame[IP + 10..IP + 12].fill(0);
    let sum = checksum(0, &frame[IP..TRANSPORT]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());

    frame[TRANSPORT + at..TRANSPORT + at + 2].fill(0);
    let pseudo = u32::from(frame[IP + 9]) + (frame.len() - TRANSPORT) as u32;
    // The addresses of the pseudo header lie just before.
    let sum = checksum(pseudo, &frame[IP + 12..]);
    frame[TRANSPORT + at..TRANSPORT + at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071).
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum = start;
    for pair in pairs {
        sum += u32::from(u16::from_be_bytes(*pair));
    }
    if let [last] = rest {
        sum += u32::from(*last) << 8;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
