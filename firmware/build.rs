//! Puts each board's memory map where the linker looks for it, and the configuration of the build, checked,
//! where the program does.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Each binary, and its board's folder.
const BOARDS: [(&str, &str); 2] = [
    ("lm3s6965evb", "src/board/lm3s6965evb"),
    ("mps2-an385", "src/board/mps2_an385"),
];

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap();
    for (bin, folder) in BOARDS {
        // cortex-m-rt's link.x includes memory.x.
        println!("cargo:rustc-link-arg-bin={bin}=-L{root}/{folder}");
        println!("cargo:rustc-link-arg-bin={bin}=-Tlink.x");
        // Functions that came out alike become one: half a kilobyte.
        println!("cargo:rustc-link-arg-bin={bin}=--icf=all");
        println!("cargo:rerun-if-changed={folder}/memory.x");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let out = Path::new(&env::var("OUT_DIR").unwrap()).join("config.rs");
    fs::write(out, configuration()).unwrap();
}

/// The constants of `src/config.rs`.
fn configuration() -> String {
    let (v4, v6) = (feature("IPV4"), feature("IPV6"));
    assert!(
        v4 || v6,
        "the firmware needs the feature ipv4, ipv6 or both"
    );
    let supported = |ip: &IpAddr| if ip.is_ipv4() { v4 } else { v6 };
    let mut out = String::new();

    // Who asks the network for an address needs none of the build.
    let default_addresses = match (feature("DHCP"), feature("SLAAC")) {
        (false, false) => "192.168.69.1/24,fdaa::1/64",
        (true, false) => "fdaa::1/64",
        (false, true) => "192.168.69.1/24",
        (true, true) => "",
    };
    let addresses = list("SMOLTALK_IP", default_addresses, |cidr| {
        let (ip, prefix) = cidr.split_once('/')?;
        Some((ip.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?))
    });
    constant(
        &mut out,
        "ADDRESSES",
        "(IpAddr, u8)",
        &addresses,
        |(ip, prefix)| supported(ip).then(|| format!("({}, {prefix})", ip_literal(ip))),
    );

    let gateways = list("SMOLTALK_GATEWAY", "", |ip| ip.parse::<IpAddr>().ok());
    constant(&mut out, "GATEWAYS", "IpAddr", &gateways, |ip| {
        supported(ip).then(|| ip_literal(ip))
    });

    let servers = list("SMOLTALK_SNTP", "192.168.69.100", |server| {
        let ip = |ip: &str| ip.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 123));
        server.parse::<SocketAddr>().ok().or_else(|| ip(server))
    });
    constant(&mut out, "SNTP_SERVERS", "SocketAddr", &servers, |server| {
        supported(&server.ip()).then(|| {
            format!(
                "SocketAddr::new({}, {})",
                ip_literal(&server.ip()),
                server.port()
            )
        })
    });

    let reply = variable("SMOLTALK_AUTO_REPLY").unwrap_or_else(|| "nobody is here".into());
    assert!(
        reply.len() <= 64,
        "SMOLTALK_AUTO_REPLY has more than 64 bytes"
    );
    writeln!(out, "pub const AUTO_REPLY: &str = {reply:?};").unwrap();
    out
}

fn feature(name: &str) -> bool {
    env::var_os(format!("CARGO_FEATURE_{name}")).is_some()
}

fn variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok()
}

/// What a comma-separated variable lists.
fn list<T>(name: &str, default: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let value = variable(name).unwrap_or_else(|| default.into());
    let entries = value
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            parse(entry)
                .unwrap_or_else(|| panic!("{name} has an entry that means nothing: {entry}"))
        })
        .collect()
}

fn constant<T>(
    out: &mut String,
    name: &str,
    of: &str,
    values: &[T],
    literal: impl Fn(&T) -> Option<String>,
) {
    let literals: Vec<_> = values.iter().filter_map(literal).collect();
    writeln!(
        out,
        "pub const {name}: &[{of}] = &[{}];",
        literals.join(", ")
    )
    .unwrap();
}

fn ip_literal(ip: &IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("IpAddr::V4(Ipv4Addr::from_bits({}))", ip.to_bits()),
        IpAddr::V6(ip) => format!("IpAddr::V6(Ipv6Addr::from_bits({}))", ip.to_bits()),
    }
}
