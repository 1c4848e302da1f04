//! The conformance suite over host sockets, and over smoltcp on a TAP device in a network namespace of its own.

#[path = "../../tests/conformance/mod.rs"]
mod conformance;
#[path = "../../tests/conformance/sockets.rs"]
mod sockets;
mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltalk::sim::script::{AUTO_REPLY, IpVersion, Service, WALL};

use conformance::conform;
use sockets::Sockets;
use support::{Running, in_lab};

fn wall() -> String {
    WALL.unix_seconds.to_string()
}

#[test]
fn over_host_sockets() {
    let wall = wall();
    let mut arguments = vec!["--at", &wall, "--auto-reply", AUTO_REPLY];
    arguments.extend(["--bind", "127.0.0.1", "--bind", "::1"]);
    for service in ["--greeting-tcp", "--greeting-udp", "--time", "--chat"] {
        arguments.extend([service, "0"]);
    }
    let server = Running::server(&arguments);
    conform(&mut Sockets {
        address: |service: Service, version| {
            let transport = service.protocol().to_string();
            server.address(service.name(), &transport, version == IpVersion::V4)
        },
    });
}

#[test]
fn over_a_tap_device() {
    let wall = wall();
    let arguments = ["--at", &wall, "--auto-reply", AUTO_REPLY];
    in_lab("over_a_tap_device", &arguments, || {
        conform(&mut Sockets {
            address: |service: Service, version| {
                let ip: IpAddr = match version {
                    IpVersion::V4 => Ipv4Addr::new(192, 168, 69, 1).into(),
                    IpVersion::V6 => Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 1).into(),
                };
                SocketAddr::new(ip, service.port())
            },
        });
    });
}
