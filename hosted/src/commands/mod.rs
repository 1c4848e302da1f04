//! What each command does, and what they share: the stack they run on, the peers' addresses, and the one event
//! loop.

pub mod ask;
pub mod chat;
pub mod demo;
pub mod greet;
pub mod lab;
pub mod serve;
pub mod time;
mod traced;
mod workers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::ControlFlow;

use smoltalk::chat::ContactBook;
use smoltalk::{Instant, Now, earliest};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::{Error, reason};
use smoltalk_hosted::network::{Io, Network, NetworkEvent, TapOptions};

use crate::cli::{Contact, Host, TapArgs, Target};
use crate::output::Output;
pub use traced::Traced;

/// How many contacts a chat knows at most.
pub const CONTACTS: usize = 256;
/// How many messages of a chat may wait in each direction: as many as one pump of a network brings at most, so that
/// none is lost in a burst.
pub const MESSAGES: usize = 256;

/// What a command does on its network, as often as the event loop asks.
pub trait Job {
    /// Pumps every endpoint, and returns the earliest deadline.
    ///
    /// # Errors
    /// It cannot go on.
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error>;

    /// Looks at what came of it: goes on, with a deadline of its own if it has one, or ends the loop.
    ///
    /// # Errors
    /// It cannot go on.
    fn after_turn(&mut self, now: Now) -> Result<ControlFlow<(), Option<Instant>>, Error>;
}

/// The event loop: turns and waits until `job` is done.
pub fn run(
    network: &mut Network,
    clock: &Clock,
    output: &Output,
    job: &mut impl Job,
) -> Result<(), Error> {
    loop {
        // Reading the clocks is some of the work of a turn: once is enough.
        let mut served_at = None;
        let turn = network.turn(clock, &mut |io, now| {
            served_at = Some(now);
            job.serve(io, now)
        })?;
        while let Some(event) = network.poll_event() {
            output.note(describe(&event));
        }
        let own_deadline = match job.after_turn(served_at.unwrap_or_else(|| clock.now()))? {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(deadline) => deadline,
        };
        network.wait(clock, earliest(turn.deadline, own_deadline))?;
    }
}

fn describe(event: &NetworkEvent) -> String {
    match event {
        NetworkEvent::LinkDown { name } => {
            format!("TAP device {name} is down: what is sent is lost until it is up again")
        }
        NetworkEvent::LinkUp { name } => format!("TAP device {name} is up again"),
        NetworkEvent::DeviceLost { name } => {
            format!("TAP device {name} is gone: waiting for it to come back")
        }
        NetworkEvent::DeviceBack { name } => format!("TAP device {name} is back"),
        NetworkEvent::AcceptPaused { local, why } => {
            format!("tcp {local}: {why}: new connections wait until others have closed")
        }
        event => format!("network: {event:?}"),
    }
}

/// The stack that a command runs on.
#[derive(Clone, Debug)]
pub enum Stack {
    /// The sockets of this machine.
    Host,
    /// smoltcp on a TAP device.
    Tap(TapOptions),
}

impl Stack {
    /// What the options ask for. `given` says whether options for a device stood on the command line itself.
    pub fn choose(args: &TapArgs) -> Result<Self, Error> {
        let Some(name) = args.tap.as_deref().filter(|name| *name != "off") else {
            let stray = [
                ("--ip", !args.ip.is_empty()),
                ("--gateway", !args.gateway.is_empty()),
                ("--mac", args.mac.is_some()),
            ];
            return match stray.iter().find(|(_, given)| *given) {
                Some((option, _)) if args.tap.is_none() => Err(Error::usage(format!(
                    "{option} means nothing without a TAP device"
                ))
                .with_hint("give the device with `--tap NAME`")),
                _ => Ok(Self::Host),
            };
        };
        let mut options = TapOptions::new(name);
        if !args.ip.is_empty() {
            options.addresses = args.ip.iter().map(|cidr| (cidr.ip, cidr.prefix)).collect();
        }
        options.gateways.clone_from(&args.gateway);
        options.mac = args.mac.map(|mac| mac.0);
        Ok(Self::Tap(options))
    }

    /// Sets the stack up, for a command to which nobody connects.
    pub fn open(&self) -> Result<Network, Error> {
        match self {
            Self::Host => Network::host(),
            Self::Tap(options) => Network::tap(&TapOptions {
                listeners: 0,
                ..options.clone()
            }),
        }
    }

    /// Where services are bound if nothing else is said: on the loopback of this machine, and on every address of
    /// a TAP device, which is there for that.
    pub fn default_bind(&self) -> IpAddr {
        match self {
            Self::Host => Ipv4Addr::LOCALHOST.into(),
            Self::Tap(options) => every_address(options),
        }
    }

    /// The addresses of `target`, best first.
    ///
    /// # Errors
    /// It has none that is known, or is a name, on a stack that cannot ask for names.
    pub fn resolve(&self, target: &Target, default_port: u16) -> Result<Vec<SocketAddr>, Error> {
        let port = target.port.unwrap_or(default_port);
        let name = match (&target.host, self) {
            (Host::Ip(ip), _) => return Ok(vec![SocketAddr::new(*ip, port)]),
            (Host::Name(name), Self::Host) => name,
            (Host::Name(name), Self::Tap(_)) => {
                return Err(Error::failed(format!(
                    "`{name}` is a name, and the stack on a TAP device knows no names"
                ))
                .with_hint("give an IP address"));
            }
        };
        let unresolved = |why: &str| {
            Error::failed(format!("`{name}` does not resolve to an address: {why}"))
                .with_hint("check the spelling, or give an IP address")
        };
        let addresses: Vec<_> = (name.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| {
                let why = reason(&error);
                let why = why.strip_prefix("failed to lookup address information: ");
                unresolved(why.unwrap_or(&reason(&error)))
            })?
            .collect();
        if addresses.is_empty() {
            return Err(unresolved("it has none"));
        }
        Ok(addresses)
    }

    /// The contact book of `contacts`, each under the first of its addresses.
    ///
    /// # Errors
    /// One does not resolve, or cannot be taken into a book.
    pub fn contact_book(&self, contacts: &[Contact]) -> Result<ContactBook<CONTACTS>, Error> {
        let mut book = ContactBook::new();
        for Contact { name, target } in contacts {
            let contact = format!("contact `{}={target}`", name.escape_debug());
            let addresses = self
                .resolve(target, smoltalk::chat::PORT)
                .map_err(|error| Error::failed(format!("{contact}: {error}")))?;
            // `resolve` gives at least one.
            if let Some(addr) = addresses.first() {
                book.add(name, *addr)
                    .map_err(|error| Error::usage(format!("{contact}: {error}")))?;
            }
        }
        Ok(book)
    }
}

/// The address that stands for all those of the stack on a TAP device. IPv6's stands for the IPv4 ones too.
pub fn every_address(options: &TapOptions) -> IpAddr {
    if options.addresses.iter().any(|(ip, _)| ip.is_ipv6()) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// `1 request`, `2 requests`.
pub fn count(number: impl Into<u64>, thing: &str) -> String {
    match number.into() {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_for_a_device_need_one() {
        let stray = TapArgs {
            mac: "02:00:00:00:00:01".parse().ok(),
            ..TapArgs::default()
        };
        let error = Stack::choose(&stray).unwrap_err().to_string();
        assert!(
            error.starts_with("--mac means nothing without a TAP device"),
            "{error}"
        );
        let switched_off = TapArgs {
            tap: Some("off".into()),
            ..stray
        };
        assert!(matches!(Stack::choose(&switched_off), Ok(Stack::Host)));
    }

    #[test]
    fn a_device_is_served_on_every_address_that_it_has() {
        let stack = |ip: &[&str]| {
            let args = TapArgs {
                tap: Some("tap0".into()),
                ip: ip.iter().map(|ip| ip.parse().unwrap()).collect(),
                ..TapArgs::default()
            };
            Stack::choose(&args).unwrap()
        };
        for (ip, bind) in [
            (&[][..], "::"),
            (&["10.0.0.1/8", "10.0.0.2/8"], "0.0.0.0"),
            (&["fd00::1/64"], "::"),
        ] {
            assert_eq!(stack(ip).default_bind().to_string(), bind);
        }
    }

    #[test]
    fn names_are_for_host_sockets_only() {
        let tap = Stack::Tap(TapOptions::new("tap0"));
        let error = tap
            .resolve(&"localhost".parse().unwrap(), 9000)
            .unwrap_err();
        assert!(error.to_string().contains("knows no names"), "{error}");
        assert_eq!(
            tap.resolve(&"192.0.2.1".parse().unwrap(), 9000).unwrap(),
            ["192.0.2.1:9000".parse().unwrap()]
        );
        let host = Stack::Host
            .resolve(&"localhost:7".parse().unwrap(), 9000)
            .unwrap();
        assert!(
            host.iter()
                .all(|addr| addr.ip().is_loopback() && addr.port() == 7)
        );
        let error = Stack::Host
            .resolve(&"no-such-host.invalid".parse().unwrap(), 1)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`no-such-host.invalid` does not resolve"),
            "{error}"
        );
    }
}
