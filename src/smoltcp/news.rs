//! What ICMP says of our datagrams. smoltcp tells it to ICMP sockets only, and UDP's users want to know
//! (RFC 1122, section 4.1.3.3).

use core::net::SocketAddr;

use ::smoltcp::phy::ChecksumCapabilities;
use ::smoltcp::wire::{IpAddress, IpEndpoint, IpProtocol};

use super::address;
use crate::Unreachable;

/// A datagram of ours did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) why: Unreachable,
}

impl News {
    /// The news in an IP packet, if there is any.
    pub(super) fn read(packet: &[u8], checksums: &ChecksumCapabilities) -> Option<Self> {
        match packet.first()? >> 4 {
            #[cfg(feature = "ipv4")]
            4 => v4(packet, checksums),
            #[cfg(feature = "ipv6")]
            6 => v6(packet, checksums),
            _ => None,
        }
    }

    /// `quoted` is the beginning of what was in the IP packet that did not arrive.
    fn of_udp(
        protocol: IpProtocol,
        source: IpAddress,
        destination: IpAddress,
        quoted: &[u8],
        why: Unreachable,
    ) -> Option<Self> {
        let &[a, b, c, d] = quoted.first_chunk()?;
        let from = IpEndpoint::new(source, u16::from_be_bytes([a, b]));
        let to = IpEndpoint::new(destination, u16::from_be_bytes([c, d]));
        Some(Self {
            from: address::socket_addr(from)?,
            to: address::socket_addr(to)?,
            why,
        })
        .filter(|_| protocol == IpProtocol::Udp)
    }
}

/// RFC 792, page 4; RFC 1812, section 5.2.7.1.
#[cfg(feature = "ipv4")]
fn v4(packet: &[u8], checksums: &ChecksumCapabilities) -> Option<News> {
    use ::smoltcp::wire::Icmpv4DstUnreachable as Reason;
    use ::smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Ipv4Packet};
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.next_header() != IpProtocol::Icmp {
        return None;
    }
    let icmp = Icmpv4Packet::new_checked(ip.payload()).ok()?;
    let Ok(Icmpv4Repr::DstUnreachable {
        reason,
        header,
        data,
    }) = Icmpv4Repr::parse(&icmp, checksums)
    else {
        return None;
    };
    let why = match reason {
        Reason::PortUnreachable | Reason::ProtoUnreachable => Unreachable::Refused,
        Reason::FragRequired => Unreachable::TooLong,
        Reason::NetProhibited
        | Reason::HostProhibited
        | Reason::CommProhibited
        | Reason::HostPrecedViol
        | Reason::PrecedCutoff => Unreachable::Prohibited,
        _ => Unreachable::NoRoute,
    };
    let (source, destination) = (header.src_addr.into(), header.dst_addr.into());
    News::of_udp(header.next_header, source, destination, data, why)
}

/// RFC 4443, sections 3.1 and 3.2.
#[cfg(feature = "ipv6")]
fn v6(packet: &[u8], checksums: &ChecksumCapabilities) -> Option<News> {
    use ::smoltcp::wire::Icmpv6DstUnreachable as Reason;
    use ::smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, Ipv6Packet};
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    if ip.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let (why, header, data) = match Icmpv6Repr::parse(&source, &destination, &icmp, checksums) {
        Ok(Icmpv6Repr::DstUnreachable {
            reason,
            header,
            data,
        }) => {
            let why = match reason {
                Reason::PortUnreachable => Unreachable::Refused,
                Reason::AdminProhibit | Reason::FailedPolicy => Unreachable::Prohibited,
                _ => Unreachable::NoRoute,
            };
            (why, header, data)
        }
        Ok(Icmpv6Repr::PktTooBig { header, data, .. }) => (Unreachable::TooLong, header, data),
        _ => return None,
    };
    let (source, destination) = (header.src_addr.into(), header.dst_addr.into());
    News::of_udp(header.next_header, source, destination, data, why)
}
