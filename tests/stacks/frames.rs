//! What stacks say to each other, built and read frame by frame.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet,
    Ipv6Repr, NdiscRepr, PrettyPrinter, UdpPacket, UdpRepr,
};

/// The Ethernet frame of an IP packet.
pub fn frame(
    from_mac: [u8; 6],
    to_mac: [u8; 6],
    ip: &IpRepr,
    emit: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; 14 + ip.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress(from_mac));
    frame.set_dst_addr(EthernetAddress(to_mac));
    frame.set_ethertype(match ip {
        IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
        IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
    });
    let packet = frame.payload_mut();
    ip.emit(&mut *packet, &ChecksumCapabilities::default());
    emit(&mut packet[ip.header_len()..]);
    bytes
}

pub fn datagram(
    from_mac: [u8; 6],
    to_mac: [u8; 6],
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let ip = IpRepr::new(
        source,
        destination,
        IpProtocol::Udp,
        udp.header_len() + payload.len(),
        64,
    );
    frame(from_mac, to_mac, &ip, |buf| {
        udp.emit(
            &mut UdpPacket::new_unchecked(buf),
            &source,
            &destination,
            payload.len(),
            |buf| buf.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// What a host has sent: to which Ethernet address, from where, to where, and the payload of UDP.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Datagram {
        mac: [u8; 6],
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    /// An ARP request or a neighbour solicitation for this address.
    WhoHas(IpAddr),
    Other(String),
}

pub fn see(bytes: &[u8]) -> Seen {
    let eth = EthernetFrame::new_checked(bytes).unwrap();
    let (ip, payload) = match eth.ethertype() {
        EthernetProtocol::Arp => {
            let arp = ArpPacket::new_checked(eth.payload()).unwrap();
            let ArpRepr::EthernetIpv4 {
                operation,
                target_protocol_addr,
                ..
            } = ArpRepr::parse(&arp).unwrap()
            else {
                unreachable!()
            };
            assert_eq!(operation, ArpOperation::Request);
            return Seen::WhoHas(target_protocol_addr.into());
        }
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(eth.payload()).unwrap();
            let ip = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).unwrap();
            (IpRepr::Ipv4(ip), packet.payload())
        }
        _ => {
            let packet = Ipv6Packet::new_checked(eth.payload()).unwrap();
            (
                IpRepr::Ipv6(Ipv6Repr::parse(&packet).unwrap()),
                packet.payload(),
            )
        }
    };
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    if let (IpProtocol::Icmpv6, IpRepr::Ipv6(ip)) = (ip.next_header(), &ip) {
        let packet = Icmpv6Packet::new_checked(payload).unwrap();
        if let Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) =
            Icmpv6Repr::parse(
                &ip.src_addr,
                &ip.dst_addr,
                &packet,
                &ChecksumCapabilities::default(),
            )
            .unwrap()
        {
            return Seen::WhoHas(target_addr.into());
        }
    }
    if ip.next_header() == IpProtocol::Udp {
        let udp = UdpPacket::new_checked(payload).unwrap();
        assert!(udp.verify_checksum(&source, &destination));
        return Seen::Datagram {
            mac: eth.dst_addr().0,
            from: SocketAddr::new(source.into(), udp.src_port()),
            to: SocketAddr::new(destination.into(), udp.dst_port()),
            payload: udp.payload().to_vec(),
        };
    }
    Seen::Other(format!(
        "{}",
        PrettyPrinter::<EthernetFrame<&[u8]>>::new("", &bytes)
    ))
}
