//! What the build was told, in environment variables that `build.rs` reads and checks.
#![allow(missing_docs, unused_imports, reason = "written by build.rs")]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

include!(concat!(env!("OUT_DIR"), "/config.rs"));
