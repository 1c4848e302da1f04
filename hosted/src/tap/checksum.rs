//! The checksums of TCP and UDP, which the device sees to in place of the stack: smoltcp can be told to verify all or
//! none, and with a [header](super::header) before the frames it depends on the frame.

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet,
    TcpPacket, UdpPacket,
};

use super::header::{CHECKSUM_VALID, Header, NEEDS_CHECKSUM};

/// Whether the stack may have the frame: not if the checksum of its TCP segment or UDP datagram is wrong. What is
/// neither is the stack's to judge, and if the kernel has left a checksum of it to us, that is put in.
pub fn admits(header: &Header, frame: &mut [u8]) -> bool {
    if header.flags & NEEDS_CHECKSUM != 0 {
        // It was made on this machine, and no wire has had a chance to spoil it.
        match transport(frame).map(|transport| transport.protocol) {
            Some(IpProtocol::Tcp | IpProtocol::Udp) => true,
            _ => complete(header, frame),
        }
    } else if header.flags & CHECKSUM_VALID != 0 {
        true
    } else {
        is_valid(frame)
    }
}

fn is_valid(frame: &[u8]) -> bool {
    let Some(Transport {
        protocol,
        source,
        destination,
        segment,
    }) = transport(frame)
    else {
        return true;
    };
    match protocol {
        IpProtocol::Tcp => TcpPacket::new_checked(segment)
            .is_ok_and(|packet| packet.verify_checksum(&source, &destination)),
        IpProtocol::Udp => UdpPacket::new_checked(segment)
            .is_ok_and(|packet| packet.verify_checksum(&source, &destination)),
        _ => true,
    }
}

/// What is in an IP packet.
struct Transport<'f> {
    protocol: IpProtocol,
    source: IpAddress,
    destination: IpAddress,
    segment: &'f [u8],
}

/// What is in the IP packet in `frame`, as the stack will see it. `None`: there is no IP packet, or it is damaged.
fn transport(frame: &[u8]) -> Option<Transport<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            Some(Transport {
                protocol: packet.next_header(),
                source: packet.src_addr().into(),
                destination: packet.dst_addr().into(),
                segment: packet.payload(),
            })
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            let (protocol, segment) = match packet.next_header() {
                // The one extension header that the stack reads on from (RFC 8200, section 4.3).
                IpProtocol::HopByHop => {
                    let extension = Ipv6ExtHeader::new_checked(packet.payload()).ok()?;
                    let len = 2 + extension.payload().len();
                    (extension.next_header(), packet.payload().get(len..)?)
                }
                protocol => (protocol, packet.payload()),
            };
            Some(Transport {
                protocol,
                source: packet.src_addr().into(),
                destination: packet.dst_addr().into(),
                segment,
            })
        }
        _ => None,
    }
}

/// Puts in the checksum that `header` asks for. Returns whether that could be done.
fn complete(header: &Header, frame: &mut [u8]) -> bool {
    let (start, offset) = (header.checksum_start.into(), header.checksum_offset.into());
    let Some(bytes) = frame.get_mut(start..) else {
        return false;
    };
    let checksum = !fold(sum(bytes));
    match bytes.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
        Some(at) => *at = checksum.to_be_bytes(),
        None => return false,
    }
    true
}

/// The sum of `bytes` as numbers of 16 bits (RFC 1071), at most 128 KiB.
pub fn sum(bytes: &[u8]) -> u32 {
    let (words, odd) = bytes.as_chunks();
    let odd = odd.first().map_or(0, |&byte| u32::from(byte) << 8);
    words
        .iter()
        .map(|&word| u32::from(u16::from_be_bytes(word)))
        .sum::<u32>()
        + odd
}

/// A sum in 16 bits, its carries added in.
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    // It fits: the first step leaves a carry of one at most.
    (sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::super::header::NEEDS_CHECKSUM;
    use super::*;

    /// `protocol` over IPv4, behind as many options; over IPv6, behind as many bytes of a hop-by-hop header.
    fn frames(protocol: u8, segment: &[u8]) -> [Vec<u8>; 4] {
        let v4 = |options: usize| {
            let len = 20 + options + segment.len();
            let mut frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00].to_vec();
            frame.extend([0x45 + (options / 4) as u8, 0, 0, len as u8, 0, 0, 0, 0, 64]);
            frame.extend([protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
            frame.extend(vec![0; options]);
            frame.extend(segment);
            frame
        };
        let v6 = |extension: &[u8]| {
            let len = (extension.len() + segment.len()) as u8;
            let next = if extension.is_empty() { protocol } else { 0 };
            let mut frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd].to_vec();
            frame.extend([0x60, 0, 0, 0, 0, len, next, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfe; 16]);
            frame.extend(extension);
            frame.extend(segment);
            frame
        };
        [v4(0), v4(8), v6(&[]), v6(&[protocol, 0, 1, 4, 0, 0, 0, 0])]
    }

    /// A segment of `protocol`, its checksum left out, and where that belongs.
    fn segment(protocol: u8) -> (Vec<u8>, usize) {
        match protocol {
            6 => {
                let mut tcp = [0_u8; 20].to_vec();
                tcp[..4].copy_from_slice(&[0x1f, 0x90, 0x1f, 0x91]);
                tcp[12] = 0x50;
                (tcp, 16)
            }
            _ => (
                vec![0x1f, 0x90, 0x1f, 0x91, 0, 11, 0, 0, b'a', b'b', b'c'],
                6,
            ),
        }
    }

    /// The right checksum, as the pseudo-header and the segment give it.
    fn seal(frame: &mut [u8], protocol: u8) {
        let (segment, at) = segment(protocol);
        let start = frame.len() - segment.len();
        let addresses = match frame[12] {
            0x08 => sum(&frame[26..34]),
            _ => sum(&frame[22..54]),
        };
        let pseudo = addresses + u32::from(protocol) + segment.len() as u32;
        let checksum = !fold(pseudo + sum(&frame[start..]));
        frame[start + at..start + at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    #[test]
    fn what_came_over_a_wire_is_verified() {
        for protocol in [6, 17] {
            for mut frame in frames(protocol, &segment(protocol).0) {
                seal(&mut frame, protocol);
                assert!(
                    admits(&Header::default(), &mut frame.clone()),
                    "{frame:02x?}"
                );
                // Any bit of the segment.
                for at in frame.len() - segment(protocol).0.len()..frame.len() {
                    let mut spoilt = frame.clone();
                    spoilt[at] ^= 0x10;
                    assert!(!admits(&Header::default(), &mut spoilt), "{spoilt:02x?}");
                }
            }
        }
    }

    #[test]
    fn what_was_made_here_or_verified_already_is_not() {
        for protocol in [6, 17] {
            for frame in frames(protocol, &segment(protocol).0) {
                for flags in [NEEDS_CHECKSUM, CHECKSUM_VALID] {
                    let head = Header {
                        flags,
                        ..Header::default()
                    };
                    assert!(admits(&head, &mut frame.clone()), "{frame:02x?}");
                }
            }
        }
    }

    #[test]
    fn a_checksum_that_the_stack_will_verify_is_put_in() {
        // ICMP: all of it is summed, and the field begins as zero.
        let [mut frame, ..] = frames(1, &[8, 0, 0, 0, 0, 1, 0, 1]);
        let head = Header {
            flags: NEEDS_CHECKSUM,
            checksum_start: 34,
            checksum_offset: 2,
            ..Header::default()
        };
        assert!(admits(&head, &mut frame));
        assert_eq!(fold(sum(&frame[34..])), 0xffff);
        // Where there is no such place, the frame is none.
        for (start, offset) in [(frame.len(), 0), (u16::MAX.into(), 0), (34, 7), (34, 900)] {
            let head = Header {
                checksum_start: start as u16,
                checksum_offset: offset,
                ..head
            };
            assert!(!admits(&head, &mut frame));
        }
    }

    #[test]
    fn what_is_no_segment_is_left_to_the_stack() {
        let [frame, ..] = frames(17, &segment(17).0);
        for len in 0..34 {
            assert!(admits(&Header::default(), &mut frame[..len].to_vec()));
        }
        let mut arp = frame.clone();
        arp[13] = 6;
        assert!(admits(&Header::default(), &mut arp));
    }
}
