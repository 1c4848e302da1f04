//! Where it is measured: the CPUs, and the TAP devices with the kernel's addresses on them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use procfs::{CurrentSI, KernelStats};
use smoltalk_hosted::error::Error;
use smoltalk_hosted::lab::Links;
use smoltalk_hosted::tap::sys::{keep_tap, open_tap};

use crate::sys::set_queue_len;

/// The CPU of the servers, of which one runs at a time, and that of the load.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    pub server: usize,
    pub load: usize,
}

impl Cpus {
    /// The first CPU that we may use for the load, and the last for the servers.
    pub fn choose() -> Result<Self, Error> {
        let set = sched_getaffinity(Pid::from_raw(0))
            .map_err(|error| Error::io("the CPUs of this process", &error.into()))?;
        let mut cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
        match (cpus.next(), cpus.next_back()) {
            (Some(load), Some(server)) => Ok(Self { server, load }),
            _ => Err(Error::failed(
                "the benchmark needs two CPUs, one for the servers and one for the load",
            )),
        }
    }

    /// How long the two were not idle since the machine started: with what the machine below took away, where
    /// there is one. In steps of 10 ms. `None` where the system does not tell.
    pub fn busy(self) -> Option<Duration> {
        let statistics = KernelStats::current().ok()?;
        let mut ticks = 0;
        for cpu in [self.server, self.load] {
            let time = statistics.cpu_time.get(cpu)?;
            ticks += time.user + time.nice + time.system;
            ticks += time.irq? + time.softirq? + time.steal?;
        }
        Some(Duration::from_secs(ticks) / u32::try_from(procfs::ticks_per_second()).ok()?)
    }

    /// Moves this process to the CPU of the load.
    pub fn pin_load(self) -> Result<(), Error> {
        pin(self.load)
    }
}

/// Moves this process to one CPU.
pub fn pin(cpu: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| Error::io(format_args!("moving to CPU {cpu}"), &error.into()))
}

/// As many descriptors as the system grants.
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many flows a TAP device has addresses for.
pub const FLOWS: u8 = 64;

/// Frames that wait for whoever is attached: as many as the most clients of any case send at once, and more.
const QUEUE: u32 = 4_096;

/// A TAP device of one contender: each has its own, since offloads that one switches on stay on the device.
#[derive(Debug)]
pub struct Tap {
    pub name: String,
    network: u8,
}

impl Tap {
    /// Makes the device with this number: at most 100.
    pub fn make(number: usize) -> Result<Self, Error> {
        let name = format!("bench{number}");
        let failed = |error: std::io::Error| Error::io(format_args!("TAP device {name}"), &error);
        let control = open_tap(&name, true).map_err(failed)?;
        keep_tap(&control).map_err(failed)?;
        set_queue_len(&name, QUEUE).map_err(failed)?;
        let tap = Self::named(number);
        let set = |version: &str, key: &str, value: &str| {
            fs::write(format!("/proc/sys/net/{version}/conf/{name}/{key}"), value)
        };
        // Nobody asked for routers and groups here; where it cannot be switched off, they cost a frame now and then.
        let _ = set("ipv6", "disable_ipv6", "1");
        // smoltcp hears ARP only from its own network, and so must the other addresses be announced.
        set("ipv4", "arp_announce", "2").map_err(failed)?;
        tap.connect()?;
        Ok(tap)
    }

    /// The name and the addresses of the device with this number, which another makes and
    /// [`connect`](Self::connect) makes ready.
    pub fn named(number: usize) -> Self {
        Self {
            network: 100 + number as u8,
            name: format!("bench{number}"),
        }
    }

    /// Brings the kernel's side up and gives it its addresses.
    pub fn connect(&self) -> Result<(), Error> {
        let Self { name, .. } = self;
        let failed = |error: std::io::Error| Error::io(format_args!("interface {name}"), &error);
        let mut links = Links::open().map_err(failed)?;
        links.up(name).map_err(failed)?;
        let mut add = |ip, prefix| links.add_address(name, IpAddr::V4(ip), prefix);
        add(self.kernel(), 24).map_err(failed)?;
        for source in self.flows() {
            add(source, 32).map_err(failed)?;
        }
        Ok(())
    }

    /// The address of the contender.
    pub fn server(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.network, 1)
    }

    /// The kernel's address, which is the contender's router too.
    pub fn kernel(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.network, 100)
    }

    /// Other addresses of the kernel's, for as many clients behind the router. On the link itself smoltcp would look
    /// for their hardware addresses at a rate of one in a second.
    pub fn flows(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let network = self.network;
        (1..=FLOWS).map(move |flow| Ipv4Addr::new(10, network, 0, flow))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // It goes with its network namespace in any case.
        if let Ok(mut links) = Links::open() {
            let _ = links.delete(&self.name);
        }
    }
}
