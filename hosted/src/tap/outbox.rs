//! Frames on their way to the kernel. Each write costs a system call and a walk through the kernel's stack; so
//! datagrams to one receiver are put together into one frame, which the kernel takes apart only where the receiver's
//! socket is (UDP segmentation offload).

use std::io;
use std::num::NonZeroU16;

use super::checksum::{fold, sum};
use super::header::{self, Header};

/// The longest frame, in bytes: Ethernet's header, and an IP packet as long as its length field can say.
pub const LONGEST: usize = 14 + 65_535;

/// As many receivers' datagrams wait at a time. Those of more go out one by one.
const RECEIVERS: usize = 8;
/// As many datagrams go into one frame. Linux's own sockets put 64 together; but who waits for 64 before he sends the
/// first has the receiver wait as well, and half of what is under way at a time is a good measure.
const DATAGRAMS: u16 = 32;

/// Where the kernel takes frames: the frame with its header, and how many datagrams are in it.
pub trait Kernel {
    /// # Errors
    /// `InvalidInput`: the kernel does not understand the header. All else is dealt with.
    fn write(&mut self, frame: &[u8], datagrams: u16) -> io::Result<()>;
}

/// The frames that were made but not written yet.
#[derive(Debug)]
pub struct Outbox {
    /// Where the next frame is made.
    next: Box<[u8]>,
    /// One for each receiver, oldest first. Those behind `waiting` are spare.
    bundles: [Bundle; RECEIVERS],
    waiting: usize,
    /// The kernel takes datagrams that were put together, as far as is known.
    merging: bool,
}

/// Datagrams from one socket to another, in one frame.
#[derive(Debug)]
struct Bundle {
    /// The header, then the frame.
    frame: Box<[u8]>,
    /// Of both, in bytes.
    len: usize,
    layout: Layout,
    /// The payload of each datagram but the last, in bytes.
    payload: usize,
    datagrams: u16,
}

impl Outbox {
    /// Room for frames of [`LONGEST`] bytes. The memory of what waits is taken when it is needed, 512 KiB at most.
    pub fn new() -> Self {
        Self {
            next: buffer(),
            bundles: std::array::from_fn(|_| Bundle {
                frame: buffer(),
                len: 0,
                layout: Layout::default(),
                payload: 0,
                datagrams: 0,
            }),
            waiting: 0,
            merging: true,
        }
    }

    /// Where to make a frame of `len` bytes. `None`: there are no such frames.
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.next.get_mut(header::LEN..)?.get_mut(..len)
    }

    /// Takes the frame of `len` bytes that was made in [`room`](Self::room), its TCP or UDP checksum left out. A
    /// datagram waits for others if it `may_wait`. A TCP segment is cut into pieces of `segment` bytes of payload.
    pub fn push(
        &mut self,
        len: usize,
        segment: Option<NonZeroU16>,
        may_wait: bool,
        kernel: &mut impl Kernel,
    ) {
        let end = header::LEN + len;
        let Some(layout) = Layout::of(&self.next[header::LEN..end]) else {
            return self.pass(end, Header::default(), kernel);
        };
        if layout.protocol == TCP {
            let head = self.tcp_header(layout, segment);
            layout.leave_checksum(&mut self.next[header::LEN..end]);
            return self.pass(end, head, kernel);
        }
        let headers = header::LEN + layout.transport + UDP_HEADER;
        let payload = end - headers;
        let (waiting, _) = self.bundles.split_at_mut(self.waiting);
        if let Some(at) = waiting.iter().position(|bundle| {
            bundle
                .layout
                .is_same_flow(layout, &bundle.frame, &self.next)
        }) {
            let bundle = &mut waiting[at];
            let is_next = payload != 0
                && payload <= bundle.payload
                && bundle.len + payload <= header::LEN + LONGEST;
            if is_next {
                bundle.frame[bundle.len..bundle.len + payload]
                    .copy_from_slice(&self.next[headers..end]);
                bundle.len += payload;
                bundle.datagrams += 1;
                // Only the last may be shorter.
                if payload < bundle.payload || bundle.datagrams == DATAGRAMS {
                    self.send(at, kernel);
                }
                return;
            }
            // What was said earlier goes first.
            self.send(at, kernel);
        }
        if !may_wait || !self.merging || payload == 0 {
            layout.leave_checksum(&mut self.next[header::LEN..end]);
            return self.pass(end, layout.checksum_header(), kernel);
        }
        if self.waiting == RECEIVERS {
            self.send(0, kernel);
        }
        let bundle = &mut self.bundles[self.waiting];
        std::mem::swap(&mut bundle.frame, &mut self.next);
        (bundle.len, bundle.layout) = (end, layout);
        (bundle.payload, bundle.datagrams) = (payload, 1);
        self.waiting += 1;
    }

    /// Writes everything that waits.
    pub fn flush(&mut self, kernel: &mut impl Kernel) {
        while self.waiting > 0 {
            self.send(0, kernel);
        }
    }

    /// Writes the frame that was just made, `end` bytes with its header.
    fn pass(&mut self, end: usize, head: Header, kernel: &mut impl Kernel) {
        self.next[..header::LEN].copy_from_slice(&head.to_bytes());
        // There is no more to be done for a frame that is not wanted.
        let _ = kernel.write(&self.next[..end], 1);
    }

    /// Writes the datagrams that wait for one receiver.
    fn send(&mut self, at: usize, kernel: &mut impl Kernel) {
        self.bundles[at..self.waiting].rotate_left(1);
        self.waiting -= 1;
        let bundle = &mut self.bundles[self.waiting];
        let datagrams = bundle.datagrams;
        if kernel.write(bundle.seal(), datagrams).is_err() {
            // Linux before 6.2 knows no such frames.
            self.merging = false;
            bundle.send_each(&mut self.next, kernel);
        }
    }

    fn tcp_header(&self, layout: Layout, segment: Option<NonZeroU16>) -> Header {
        let mut head = layout.checksum_header();
        if let Some(segment) = segment {
            // RFC 9293, section 3.1: the header's length in words of 4 bytes.
            let words = self.next[header::LEN + layout.transport + 12] >> 4;
            head.headers_len = (layout.transport + 4 * usize::from(words)) as u16;
            head.segment_len = segment.get();
            head.segments_of = match layout.version {
                4 => header::TCP_V4,
                _ => header::TCP_V6,
            };
        }
        head
    }
}

impl Bundle {
    /// Makes one frame of it: the lengths, the checksums, and the header before it.
    fn seal(&mut self) -> &[u8] {
        let frame = &mut self.frame[header::LEN..self.len];
        let mut head = self.layout.checksum_header();
        if self.datagrams > 1 {
            self.layout.set_lengths(frame);
            head.segments_of = header::UDP;
            head.segment_len = self.payload as u16;
        }
        self.layout.leave_checksum(frame);
        self.frame[..header::LEN].copy_from_slice(&head.to_bytes());
        &self.frame[..self.len]
    }

    /// Writes the datagrams one by one, each made in `room`.
    fn send_each(&self, room: &mut [u8], kernel: &mut impl Kernel) {
        let headers = header::LEN + self.layout.transport + UDP_HEADER;
        for payload in self.frame[headers..self.len].chunks(self.payload) {
            let end = headers + payload.len();
            room[header::LEN..headers].copy_from_slice(&self.frame[header::LEN..headers]);
            room[headers..end].copy_from_slice(payload);
            let frame = &mut room[header::LEN..end];
            self.layout.set_lengths(frame);
            self.layout.leave_checksum(frame);
            let head = self.layout.checksum_header();
            room[..header::LEN].copy_from_slice(&head.to_bytes());
            let _ = kernel.write(&room[..end], 1);
        }
    }
}

fn buffer() -> Box<[u8]> {
    vec![0; header::LEN + LONGEST].into_boxed_slice()
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// Where things are in a frame with a TCP segment or a UDP datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    version: u8,
    protocol: u8,
    /// Where the TCP or UDP header begins.
    transport: usize,
}

impl Layout {
    /// `None`: it is neither TCP nor UDP, or not as smoltcp sends it, without options and extensions.
    fn of(frame: &[u8]) -> Option<Self> {
        let (version, protocol, transport) = match frame.get(12..15)? {
            // RFC 791, section 3.1; the rest of the fourth word are flags and the fragment's offset.
            [0x08, 0x00, 0x45] if frame.get(20)? & 0x3f == 0 && *frame.get(21)? == 0 => {
                (4, *frame.get(23)?, 34)
            }
            // RFC 8200, section 3
            [0x86, 0xdd, first] if first >> 4 == 6 => (6, *frame.get(20)?, 54),
            _ => return None,
        };
        let least = match protocol {
            TCP => 20,
            UDP => UDP_HEADER,
            _ => return None,
        };
        (frame.len() >= transport + least).then_some(Self {
            version,
            protocol,
            transport,
        })
    }

    /// Whether a frame of layout `other` in `next` goes from and to the same sockets as that in `bundle`, and is
    /// like it in all but lengths, checksums and payload. Before both there is the [`Header`].
    fn is_same_flow(self, other: Self, bundle: &[u8], next: &[u8]) -> bool {
        const H: usize = header::LEN;
        let same = |from: usize, to: usize| bundle[H + from..H + to] == next[H + from..H + to];
        self == other
            && match self.version {
                // Addresses and ports; up to the total length; lifetime and protocol.
                4 => same(26, 38) && same(0, 16) && same(22, 24),
                // Next header, hop limit, addresses and ports; up to the payload's length.
                _ => same(20, 58) && same(0, 18),
            }
    }

    /// Puts the lengths of `frame` into its IP and UDP headers.
    fn set_lengths(self, frame: &mut [u8]) {
        let ip_payload = frame.len() - self.transport;
        let udp_len = (ip_payload as u16).to_be_bytes();
        frame[self.transport + 4..][..2].copy_from_slice(&udp_len);
        if self.version == 4 {
            let total = ((frame.len() - 14) as u16).to_be_bytes();
            frame[16..18].copy_from_slice(&total);
            frame[24..26].fill(0);
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            frame[18..20].copy_from_slice(&udp_len);
        }
    }

    /// Puts the sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1) where the checksum belongs:
    /// the kernel adds the rest, if ever it must.
    fn leave_checksum(self, frame: &mut [u8]) {
        let addresses = match self.version {
            4 => &frame[26..34],
            _ => &frame[22..54],
        };
        let len = frame.len() - self.transport;
        let pseudo = fold(sum(addresses) + u32::from(self.protocol) + len as u32);
        let at = self.transport + self.checksum_offset();
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    }

    fn checksum_offset(self) -> usize {
        match self.protocol {
            TCP => 16,
            _ => 6,
        }
    }

    /// Asks the kernel for the checksum.
    fn checksum_header(self) -> Header {
        Header {
            flags: header::NEEDS_CHECKSUM,
            headers_len: (self.transport + UDP_HEADER) as u16,
            checksum_start: self.transport as u16,
            checksum_offset: self.checksum_offset() as u16,
            ..Header::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{Ipv4Packet, Ipv6Packet, UdpPacket};

    use super::*;

    /// What was written.
    #[derive(Default)]
    struct Written {
        frames: Vec<(Header, Vec<u8>, u16)>,
        /// As a kernel that knows no datagrams put together.
        old: bool,
    }

    impl Kernel for Written {
        fn write(&mut self, frame: &[u8], datagrams: u16) -> io::Result<()> {
            let (head, frame) = frame.split_first_chunk().unwrap();
            let head = Header::from_bytes(*head);
            if self.old && head.segments_of == header::UDP {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.frames.push((head, frame.to_vec(), datagrams));
            Ok(())
        }
    }

    impl Written {
        /// The port and the payload of every datagram, as the kernel delivers them; and that all else is in order.
        fn delivered(&self) -> Vec<(u16, Vec<u8>)> {
            let mut all = Vec::new();
            for (head, frame, count) in &self.frames {
                let (ip_header, packet) = match frame[12] {
                    0x08 => {
                        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
                        assert!(packet.verify_checksum());
                        assert_eq!(usize::from(packet.total_len()), frame.len() - 14);
                        (20, packet.payload())
                    }
                    _ => {
                        let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
                        assert_eq!(usize::from(packet.payload_len()), frame.len() - 54);
                        (40, packet.payload())
                    }
                };
                let udp = UdpPacket::new_checked(packet).unwrap();
                assert_eq!(usize::from(udp.len()), packet.len());
                let expected = Header {
                    flags: header::NEEDS_CHECKSUM,
                    segments_of: if *count > 1 { header::UDP } else { 0 },
                    headers_len: 14 + ip_header + 8,
                    segment_len: if *count > 1 { head.segment_len } else { 0 },
                    checksum_start: 14 + ip_header,
                    checksum_offset: 6,
                };
                assert_eq!(*head, expected);
                // The kernel's part of the checksum makes it right.
                let mut whole = frame.clone();
                let start = usize::from(head.checksum_start);
                let checksum = !fold(sum(&whole[start..]));
                whole[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
                let pseudo = match frame[12] {
                    0x08 => sum(&frame[26..34]),
                    _ => sum(&frame[22..54]),
                } + 17
                    + packet.len() as u32;
                assert_eq!(fold(pseudo + sum(&whole[start..])), 0xffff);
                let size = match head.segment_len {
                    0 => udp.payload().len().max(1),
                    len => len.into(),
                };
                let mut pieces: Vec<_> = udp.payload().chunks(size).map(<[u8]>::to_vec).collect();
                if pieces.is_empty() {
                    pieces.push(Vec::new());
                }
                assert_eq!(pieces.len(), usize::from(*count));
                all.extend(pieces.into_iter().map(|piece| (udp.dst_port(), piece)));
            }
            all
        }
    }

    /// A datagram as smoltcp makes it with its checksum left out.
    fn datagram(version: u8, port: u16, payload: &[u8]) -> Vec<u8> {
        let len = (8 + payload.len()) as u16;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if version == 4 {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + len).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfe; 16]);
        }
        frame.extend(
            [9_000_u16, port, len, 0]
                .map(u16::to_be_bytes)
                .as_flattened(),
        );
        frame.extend(payload);
        frame
    }

    fn push(outbox: &mut Outbox, frame: &[u8], may_wait: bool, kernel: &mut Written) {
        outbox.room(frame.len()).unwrap().copy_from_slice(frame);
        outbox.push(frame.len(), None, may_wait, kernel);
    }

    #[test]
    fn datagrams_of_one_flow_travel_together() {
        for version in [4, 6] {
            let (mut outbox, mut kernel) = (Outbox::new(), Written::default());
            for text in [b"one", b"two", b"six"] {
                push(&mut outbox, &datagram(version, 1, text), true, &mut kernel);
            }
            assert!(kernel.frames.is_empty());
            outbox.flush(&mut kernel);
            assert_eq!(kernel.frames.len(), 1);
            let delivered = ["one", "two", "six"].map(|text| (1, text.into()));
            assert_eq!(kernel.delivered(), delivered);
            outbox.flush(&mut kernel);
            assert_eq!(kernel.frames.len(), 1);
        }
    }

    #[test]
    fn flows_are_kept_apart() {
        let (mut outbox, mut kernel) = (Outbox::new(), Written::default());
        for round in 0..3 {
            for version in [4, 6] {
                for port in [1, 2] {
                    let payload = [version, port as u8, round];
                    push(
                        &mut outbox,
                        &datagram(version, port, &payload),
                        true,
                        &mut kernel,
                    );
                }
            }
        }
        outbox.flush(&mut kernel);
        assert_eq!(kernel.frames.len(), 4);
        let expected: Vec<_> = [(4, 1), (4, 2), (6, 1), (6, 2)]
            .iter()
            .flat_map(|&(version, port)| {
                (0..3).map(move |round| (port, vec![version, port as u8, round]))
            })
            .collect();
        assert_eq!(kernel.delivered(), expected);
    }

    #[test]
    fn the_order_within_a_flow_stays_whatever_the_lengths() {
        let (mut outbox, mut kernel) = (Outbox::new(), Written::default());
        let lengths = [5, 5, 3, 5, 3, 3, 7, 0, 7, 7, 1, 1_400, 1_400, 2, 0, 0, 9];
        let texts: Vec<Vec<u8>> = lengths
            .iter()
            .enumerate()
            .map(|(at, &len)| vec![at as u8; len])
            .collect();
        for text in &texts {
            push(&mut outbox, &datagram(4, 1, text), true, &mut kernel);
        }
        outbox.flush(&mut kernel);
        let expected: Vec<_> = texts.into_iter().map(|text| (1, text)).collect();
        assert_eq!(kernel.delivered(), expected);
        let counts: Vec<u16> = kernel.frames.iter().map(|frame| frame.2).collect();
        assert_eq!(counts, [3, 2, 1, 1, 1, 3, 3, 1, 1, 1]);
    }

    #[test]
    fn what_may_not_wait_goes_after_what_does() {
        let (mut outbox, mut kernel) = (Outbox::new(), Written::default());
        push(&mut outbox, &datagram(4, 1, b"waits"), true, &mut kernel);
        push(&mut outbox, &datagram(4, 2, b"other"), false, &mut kernel);
        assert_eq!(kernel.delivered(), [(2, b"other".to_vec())]);
        push(&mut outbox, &datagram(4, 1, b"after"), false, &mut kernel);
        outbox.flush(&mut kernel);
        let delivered = kernel.delivered();
        let first: Vec<_> = delivered.iter().filter(|(port, _)| *port == 1).collect();
        assert_eq!(first, [&(1, b"waits".to_vec()), &(1, b"after".to_vec())]);
    }

    #[test]
    fn more_than_there_is_room_for_are_written_as_they_come() {
        let (mut outbox, mut kernel) = (Outbox::new(), Written::default());
        let flows = RECEIVERS as u16 + 3;
        for port in 0..flows {
            push(&mut outbox, &datagram(4, port, b"x"), true, &mut kernel);
        }
        assert_eq!(kernel.frames.len(), 3);
        outbox.flush(&mut kernel);
        assert_eq!(kernel.delivered().len(), usize::from(flows));

        // Neither more datagrams than the kernel cuts a frame into, nor more bytes than IP can count.
        for (len, count, frames) in [(1, DATAGRAMS + 1, 2), (20_000, 4, 2)] {
            kernel.frames.clear();
            for _ in 0..count {
                push(
                    &mut outbox,
                    &datagram(4, 1, &vec![7; len]),
                    true,
                    &mut kernel,
                );
            }
            outbox.flush(&mut kernel);
            assert_eq!(kernel.frames.len(), frames);
            assert_eq!(kernel.delivered().len(), usize::from(count));
        }
    }

    #[test]
    fn an_old_kernel_gets_datagrams_one_by_one() {
        for version in [4, 6] {
            let mut outbox = Outbox::new();
            let mut kernel = Written {
                old: true,
                ..Written::default()
            };
            let texts: [&[u8]; 3] = [b"four", b"five", b"six"];
            for text in texts {
                push(&mut outbox, &datagram(version, 1, text), true, &mut kernel);
            }
            let expected = texts.map(|text| (1, text.to_vec()));
            assert_eq!(kernel.delivered(), expected);
            // From then on none waits.
            push(
                &mut outbox,
                &datagram(version, 1, b"next"),
                true,
                &mut kernel,
            );
            assert_eq!(kernel.frames.len(), 4);
        }
    }

    #[test]
    fn a_long_tcp_segment_says_how_it_is_to_be_cut() {
        let (mut outbox, mut kernel) = (Outbox::new(), Written::default());
        let mut frame = datagram(4, 1, &[0; 4_000]);
        frame[23] = TCP;
        // A header of 32 bytes.
        frame[34 + 12] = 0x80;
        outbox.room(frame.len()).unwrap().copy_from_slice(&frame);
        outbox.push(frame.len(), NonZeroU16::new(1_448), true, &mut kernel);
        let (head, _, _) = &kernel.frames[0];
        let expected = Header {
            flags: header::NEEDS_CHECKSUM,
            segments_of: header::TCP_V4,
            headers_len: 34 + 32,
            segment_len: 1_448,
            checksum_start: 34,
            checksum_offset: 16,
        };
        assert_eq!(*head, expected);
    }
}
