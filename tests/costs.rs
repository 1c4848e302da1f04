//! What things cost in memory, as docs/architecture.md and the documentation of each type say it.
#![cfg(target_pointer_width = "64")]

use std::mem::size_of;

use smoltalk::smoltcp::{
    Listener, SocketEntry, SocketStorage, Stack, TcpBuffers, UdpBuffers, UdpSocket,
};
use smoltalk::{Exchange, Ports, Zone, chargen, chat, discard, greeting, time};

/// Compilers lay things out differently, so a little less is right too.
#[track_caller]
fn takes(said: usize, size: usize) {
    assert!(
        size <= said && size * 10 >= said * 9,
        "{size} bytes, and the documentation says {said}"
    );
}

#[test]
fn services_take_what_is_said() {
    takes(32, size_of::<greeting::DatagramServer>());
    takes(16 * 4 + 88, size_of::<greeting::StreamServer<4>>());
    takes(16 * 1_000 + 88, size_of::<greeting::StreamServer<1_000>>());
    takes(16 * 100 + 72, size_of::<discard::Server<100>>());
    takes(16 * 100 + 72, size_of::<chargen::Server<100>>());
    takes(64, size_of::<greeting::StreamClient<0, 0>>());
    takes(
        100 + 200 + 64 + 8,
        size_of::<greeting::StreamClient<100, 200>>(),
    );
    takes(128, size_of::<Exchange<0, 0>>());
    takes(256 + 512 + 128, size_of::<Exchange<256, 512>>());
    takes(4 * 144 + 2 * 2_184 + 1_624, size_of::<chat::Chat<4, 2>>());
    takes(10 * 72 + 8, size_of::<chat::ContactBook<10>>());
    takes(624, size_of::<time::Server>());
    takes(624 + 16 * 152, size_of::<time::CachingServer<16>>());
    takes(16 * 56 + 8, size_of::<Ports<16>>());
    takes(12, size_of::<Zone>());
}

#[test]
fn sockets_on_smoltcp_take_what_is_said() {
    struct NoDevice;
    // With the features dhcp and slaac.
    // Whoever builds smoltcp with more room for neighbours, as smoltalk-hosted does, pays for it here.
    let more_neighbours = ::smoltcp::config::IFACE_NEIGHBOR_CACHE_COUNT - 8;
    takes(
        2_600 + 600 + 40 * more_neighbours,
        size_of::<Stack<'_, NoDevice>>(),
    );
    takes(488, size_of::<SocketStorage<'_>>());
    takes(80, size_of::<SocketEntry<'_>>());
    takes(432, size_of::<UdpSocket>());
    takes(112 * 4 + 2 * 2_944, size_of::<UdpBuffers<4, 2_944>>());
    takes(256 + 64, size_of::<TcpBuffers<256, 64>>());
    takes(2 * 8 + 88, size_of::<Listener<8>>());
}
