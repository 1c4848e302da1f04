//! What goes before each frame between us and the kernel, in both directions: virtio's `struct virtio_net_hdr`
//! (Virtual I/O Device 1.2, section 5.1.6, without `num_buffers`), in the byte order of this machine.

/// The header. All zero is a plain frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`NEEDS_CHECKSUM`], [`CHECKSUM_VALID`].
    pub flags: u8,
    /// What this frame is to be cut into: [`TCP_V4`], [`TCP_V6`], [`UDP`]; 0: nothing.
    pub segments_of: u8,
    /// Of the Ethernet, IP and TCP or UDP headers, in bytes. A hint.
    pub headers_len: u16,
    /// The payload of each piece but the last, in bytes.
    pub segment_len: u16,
    /// Where the bytes begin that the checksum is to be computed of, counted from the frame's first.
    pub checksum_start: u16,
    /// Where it is to be put, counted from there. Until then the checksum of the pseudo-header is there.
    pub checksum_offset: u16,
}

/// Its length in bytes.
pub const LEN: usize = 10;

/// The TCP or UDP checksum is not computed yet: it is to be if the frame leaves this machine.
pub const NEEDS_CHECKSUM: u8 = 1;
/// The checksum was found to be right.
pub const CHECKSUM_VALID: u8 = 2;

/// TCP segments over IPv4.
pub const TCP_V4: u8 = 1;
/// TCP segments over IPv6.
pub const TCP_V6: u8 = 4;
/// UDP datagrams over either.
pub const UDP: u8 = 5;

impl Header {
    /// As the kernel writes it.
    pub fn from_bytes(bytes: [u8; LEN]) -> Self {
        let [flags, segments_of, a, b, c, d, e, f, g, h] = bytes;
        Self {
            flags,
            segments_of,
            headers_len: u16::from_ne_bytes([a, b]),
            segment_len: u16::from_ne_bytes([c, d]),
            checksum_start: u16::from_ne_bytes([e, f]),
            checksum_offset: u16::from_ne_bytes([g, h]),
        }
    }

    /// As the kernel reads it.
    pub fn to_bytes(self) -> [u8; LEN] {
        let [a, b] = self.headers_len.to_ne_bytes();
        let [c, d] = self.segment_len.to_ne_bytes();
        let [e, f] = self.checksum_start.to_ne_bytes();
        let [g, h] = self.checksum_offset.to_ne_bytes();
        [self.flags, self.segments_of, a, b, c, d, e, f, g, h]
    }
}
