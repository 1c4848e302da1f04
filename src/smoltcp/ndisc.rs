//! Neighbour discovery messages (RFC 4861) as whole Ethernet frames, for what smoltcp does not say itself.

use core::net::Ipv6Addr;

use ::smoltcp::phy::ChecksumCapabilities;
use ::smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv6Packet, Ipv6Repr, NdiscRepr,
};

/// Who says something to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) from_mac: [u8; 6],
    pub(super) to_mac: [u8; 6],
    pub(super) from: Ipv6Addr,
    pub(super) to: Ipv6Addr,
}

#[cfg(feature = "slaac")]
/// The Ethernet address of the group `ip` (RFC 2464, section 7).
pub(super) fn group_mac(ip: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = ip.octets();
    [0x33, 0x33, a, b, c, d]
}

/// How many bytes the frame with `message` has: 86 for one of a neighbour with his Ethernet address.
pub(super) fn frame_len(message: &NdiscRepr<'_>) -> usize {
    EthernetFrame::<&[u8]>::buffer_len(40 + message.buffer_len())
}

/// Writes the frame, which has to fit.
pub(super) fn emit(bytes: &mut [u8], path: &Path, message: NdiscRepr<'_>) {
    let message = Icmpv6Repr::Ndisc(message);
    let mut frame = EthernetFrame::new_unchecked(bytes);
    frame.set_dst_addr(EthernetAddress(path.to_mac));
    frame.set_src_addr(EthernetAddress(path.from_mac));
    frame.set_ethertype(EthernetProtocol::Ipv6);
    let header = Ipv6Repr {
        src_addr: path.from,
        dst_addr: path.to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        // RFC 4861, section 7.1: anything less has passed a router.
        hop_limit: 255,
    };
    let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
    header.emit(&mut packet);
    message.emit(
        &path.from,
        &path.to,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::default(),
    );
}
