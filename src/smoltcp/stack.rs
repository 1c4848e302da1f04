//! The stack: a device, smoltcp's interface and its sockets, and the loop that drives them.

use core::error::Error;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::smoltcp::config::{IFACE_MAX_ADDR_COUNT, IFACE_MAX_ROUTE_COUNT};
use ::smoltcp::iface::{Config, Interface, PollResult, Route, SocketSet};
use ::smoltcp::phy::{Device, Medium, RxToken};
use ::smoltcp::socket::{Socket, tcp, udp};
use ::smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpListenEndpoint};

use super::address::{self, Network};
use super::autoconfiguration::Autoconfiguration;
use super::dial::{ConnectError, Dial};
use super::link::{Delivery, Link, Packet};
use super::listener::{Backlog, LISTENERS, Listener};
use super::news::News;
use super::table::{SocketSlices, Table};
use super::tcp::prepare;
use super::udp::{UdpSocket, UdpTransport};
use crate::random::Rng;
use crate::{Duration, InUse, Instant, Now, Ports, Protocol, Unreachable, earliest};

/// A TCP/IP stack on one Ethernet device. Some 2,600 bytes (2,100 on a 32-bit machine with IPv4 alone, 600 more with
/// the features `dhcp` and `slaac`), besides the device and the sockets.
///
/// It answers ARP, neighbour discovery and pings by itself.
pub struct Stack<'a, D> {
    pub(super) link: Link<D>,
    iface: Interface,
    pub(super) sockets: Sockets<'a>,
    ports: Ports<PORTS>,
    pub(super) rng: Rng,
    /// How many frames are taken in before the services are asked.
    burst: u32,
    /// More than one came in the last turn in which any did.
    is_busy: bool,
    /// The services were left with nothing that they could have gone on with.
    is_settled: bool,
    pub(super) autoconfiguration: Autoconfiguration,
    /// The ephemeral port of the last outgoing connection, counted from the first.
    last_dialed: u64,
}

/// How many ports a stack can have bound or listened at.
pub(super) const PORTS: usize = 16;

/// Ports to choose from when none is asked for (RFC 6335, section 6).
const EPHEMERAL: core::ops::RangeInclusive<u16> = 49_152..=65_535;

/// How often the services are asked to go on before the next frame is taken in.
const ROUNDS: u32 = 32;

/// Who a [`Stack`] is on its network.
#[derive(Clone, Copy, Debug)]
pub struct StackConfig<'c> {
    /// The Ethernet address.
    pub mac: [u8; 6],
    /// The IP addresses, each with the length of its network's prefix in bits. The IPv6 link-local address
    /// made of `mac` (RFC 4291, appendix A) comes of itself.
    pub addresses: &'c [(IpAddr, u8)],
    /// The default gateway of each IP version that has one.
    pub gateways: &'c [IpAddr],
    /// Where TCP's initial sequence numbers and ephemeral ports begin. Take another one at each start, one that
    /// others cannot guess.
    pub seed: u64,
}

/// What one [`Stack::turn`] leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When to call `turn` again, even if no frame has arrived by then. `None`: never, as things stand.
    pub deadline: Option<Instant>,
    /// The budget ended before the frames did: call again without sleeping.
    pub more: bool,
    /// The device had no room for all there was to send. Call again as soon as it has; `deadline` is at most a
    /// millisecond away for a driver that cannot tell.
    pub device_full: bool,
}

/// The sockets of a [`Stack`], as `serve` gets them.
#[derive(Debug)]
pub struct Sockets<'a> {
    pub(super) table: Table<'a>,
    pub(super) backlogs: heapless::Vec<Backlog, LISTENERS>,
    pub(super) network: Network,
    pub(super) device_full: bool,
    /// A service could go on once something has been sent.
    pub(super) blocked: bool,
    /// A service could go on at once.
    pub(super) unread: bool,
    /// What the last frame said of a datagram of ours.
    pub(super) news: Option<News>,
}

/// What became of the next frame.
enum Taken {
    /// There is none.
    None,
    /// It is none that anything comes of.
    Dropped,
    /// A socket may have changed.
    Processed,
}

impl<'a> Sockets<'a> {
    /// `socket` as a transport, to be pumped.
    ///
    /// # Panics
    /// If it is a socket of another stack.
    pub fn udp<'s>(&'s mut self, socket: &'s mut UdpSocket, now: Now) -> UdpTransport<'s, 'a> {
        UdpTransport::new(self, socket, now.monotonic)
    }
}

impl<'a, D: Device> Stack<'a, D> {
    /// A stack on `device`, which must be an Ethernet device, with room for as many sockets as `memory` has.
    /// `memory` is `&mut` [`SocketMemory`](super::SocketMemory), as a rule.
    ///
    /// # Errors
    /// The configuration contradicts itself, or asks for what smoltcp was not built for.
    pub fn new(
        mut device: D,
        config: &StackConfig<'_>,
        memory: impl Into<SocketSlices<'a>>,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let capabilities = device.capabilities();
        if capabilities.medium != Medium::Ethernet {
            return Err(ConfigError::NotEthernet);
        }
        // The shortest that every host must accept: RFC 791, section 3.1; RFC 8200, section 5.
        let least = if cfg!(feature = "ipv6") { 1280 } else { 576 };
        let mtu = capabilities.max_transmission_unit.saturating_sub(14);
        if mtu < least {
            return Err(ConfigError::Mtu { mtu, least });
        }
        let mac = EthernetAddress(config.mac);
        if !mac.is_unicast() {
            return Err(ConfigError::Mac(config.mac));
        }
        let mut network = Network {
            mtu,
            ..Network::default()
        };
        let mut iface_config = Config::new(HardwareAddress::Ethernet(mac));
        iface_config.random_seed = config.seed;
        let mut iface = Interface::new(iface_config, &mut device, smoltcp_instant(now));
        for &(ip, prefix) in config.addresses {
            add_address(&mut iface, &mut network, ip, prefix)?;
        }
        if cfg!(feature = "ipv6") {
            add_address(
                &mut iface,
                &mut network,
                address::link_local(config.mac).into(),
                64,
            )?;
        }
        for &gateway in config.gateways {
            add_gateway(&mut iface, &mut network, gateway)?;
        }
        let mut rng = Rng::new(config.seed);
        // Made last, and where it is returned to: it is large for a small machine's call stack, and each way out that
        // comes after it would keep a copy there.
        Ok(Self {
            link: Link::new(device, config.mac),
            iface,
            sockets: Sockets {
                table: Table::new(memory.into(), rng.next_u64() as u32),
                backlogs: heapless::Vec::new(),
                network,
                device_full: false,
                blocked: false,
                unread: false,
                news: None,
            },
            ports: Ports::new(),
            last_dialed: Rng::new(!config.seed).below(u64::from(u16::MAX)),
            rng,
            burst: 1,
            is_busy: false,
            is_settled: false,
            autoconfiguration: Autoconfiguration::default(),
        })
    }

    /// Takes `ip` for one more address of ours, in the network of the first `prefix` bits. One that is there
    /// already stays as it is; if it came from the network, it now stays also when the network takes it back.
    ///
    /// # Errors
    /// No host can have that address, or there is no room for another.
    pub fn add_address(&mut self, ip: IpAddr, prefix: u8) -> Result<(), ConfigError> {
        self.autoconfiguration.disown(ip);
        add_address(&mut self.iface, &mut self.sockets.network, ip, prefix)?;
        self.link.observer.forget();
        Ok(())
    }

    /// Gives up the address `ip`, if it is one of ours, and the gateway that is in no network of ours without it.
    ///
    /// Nothing is said to anybody: connections from that address end in the next [`turn`](Self::turn), and their
    /// peers are not told. A socket bound to it stays bound, sends nothing, and hears again when the address comes
    /// back.
    pub fn remove_address(&mut self, ip: IpAddr) {
        self.autoconfiguration.disown(ip);
        let network = &mut self.sockets.network;
        network.addresses.retain(|&(own, _)| own != ip);
        self.iface.update_ip_addrs(|addresses| {
            addresses.retain(|cidr| address::ip_addr(cidr.address()) != Some(ip));
        });
        let gateway = if ip.is_ipv4() {
            network.gateway_v4
        } else {
            network.gateway_v6
        };
        if let Some(gateway) = gateway.filter(|&gateway| !network.on_link(gateway)) {
            self.remove_gateway(gateway);
        }
        self.link.observer.forget();
        // smoltcp ends a connection from that address when it is asked what the connection has to send.
        self.sockets.table.touch_all();
    }

    /// Sends what is for other networks over `gateway` from now on.
    ///
    /// # Errors
    /// It is not another host on our link, or there is a gateway for its IP version already.
    pub fn add_gateway(&mut self, gateway: IpAddr) -> Result<(), ConfigError> {
        self.autoconfiguration.disown(gateway);
        add_gateway(&mut self.iface, &mut self.sockets.network, gateway)?;
        Ok(())
    }

    /// Sends nothing over `gateway` any more.
    pub fn remove_gateway(&mut self, gateway: IpAddr) {
        self.autoconfiguration.disown(gateway);
        let network = &mut self.sockets.network;
        for known in [&mut network.gateway_v4, &mut network.gateway_v6] {
            if *known == Some(gateway) {
                *known = None;
            }
        }
        self.iface.routes_mut().update(|routes| {
            routes.retain(|route| address::ip_addr(route.via_router) != Some(gateway));
        });
    }

    /// Binds a UDP socket to `local` for `owner`, the name of a service. `socket` is `&mut` [`UdpBuffers`], as
    /// a rule. Port 0 asks for any port that is free.
    ///
    /// `0.0.0.0` stands for our IPv4 address, `[::]` for all our addresses. smoltcp can listen at one address
    /// or at all of them: so if there are several IPv4 addresses, or DHCP is to bring one, `0.0.0.0` stands for all
    /// of both versions too.
    ///
    /// [`UdpBuffers`]: super::UdpBuffers
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
        socket: impl Into<udp::Socket<'a>>,
    ) -> Result<UdpSocket, BindError> {
        self.check_room(1)?;
        let (local, endpoint) = self.take_port(Protocol::Udp, local, owner)?;
        let mut socket: udp::Socket<'a> = socket.into();
        // It is closed, unless it was taken from elsewhere.
        socket.close();
        // The port is not 0 and the socket is closed.
        let _ = socket.bind(endpoint);
        let bound = endpoint.addr.and_then(address::ip_addr);
        let Some(index) = self.sockets.table.add(socket) else {
            unreachable!("there is room");
        };
        Ok(UdpSocket::new(index, local, bound))
    }

    /// Frees the port and the socket of `socket`, with what was still in it, and gives its buffers back.
    ///
    /// # Panics
    /// If it is a socket of another stack.
    pub fn unbind(&mut self, socket: UdpSocket) -> udp::Socket<'a> {
        self.free_port(Protocol::Udp, socket.local);
        match self.sockets.table.remove(socket.index) {
            Socket::Udp(socket) => socket,
            #[allow(unreachable_patterns)]
            _ => unreachable!("a UDP socket's handle is of a UDP socket"),
        }
    }

    /// Listens at `local` for `owner`, the name of a service, with as many connections as `sockets` has.
    /// `sockets` are `&mut` [`TcpBuffers`], as a rule: `buffers.each_mut()`. For `local` see
    /// [`bind`](Self::bind).
    ///
    /// [`TcpBuffers`]: super::TcpBuffers
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn listen<const N: usize, S: Into<tcp::Socket<'a>>>(
        &mut self,
        local: SocketAddr,
        owner: &'static str,
        sockets: [S; N],
    ) -> Result<Listener<N>, BindError> {
        const {
            assert!(
                N > 0 && N <= u16::MAX as usize,
                "a listener has 1 to 65,535 sockets"
            );
        }
        self.check_room(N)?;
        if self.sockets.backlogs.is_full() {
            let capacity = LISTENERS;
            return Err(BindError::TooManyListeners { capacity });
        }
        let (local, endpoint) = self.take_port(Protocol::Tcp, local, owner)?;
        let indices = sockets.map(|socket| {
            let mut socket: tcp::Socket<'a> = socket.into();
            prepare(&mut socket);
            self.sockets.table.add(socket).unwrap_or_default()
        });
        Ok(Listener::new(&mut self.sockets, local, endpoint, indices))
    }

    /// Begins a connection to `to`, from an ephemeral port. `socket` is `&mut`
    /// [`TcpBuffers`](super::TcpBuffers), as a rule, or what [`hang_up`](Self::hang_up) gave back.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        &mut self,
        to: SocketAddr,
        socket: impl Into<tcp::Socket<'a>>,
    ) -> Result<Dial, ConnectError> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if self.sockets.table.room() == 0 {
            let capacity = self.sockets.table.capacity();
            return Err(ConnectError::NoRoom { capacity });
        }
        let network = &self.sockets.network;
        let no_route = ConnectError::NoRoute { to };
        if network.route(to) == Err(Unreachable::NoRoute)
            || network.is_broadcast(to.ip())
            || !address::is_unicast(to.ip())
        {
            return Err(no_route);
        }
        let source = network.source_for(to.ip()).ok_or(no_route)?;
        let local = SocketAddr::new(
            source,
            self.ephemeral_port(Protocol::Tcp, source)
                .ok_or(ConnectError::NoPort)?,
        );
        let (Some(ours), Some(theirs)) = (address::endpoint(local), address::endpoint(to)) else {
            return Err(no_route);
        };
        let mut socket: tcp::Socket<'a> = socket.into();
        prepare(&mut socket);
        socket.abort();
        socket
            .connect(self.iface.context(), theirs, ours)
            .map_err(|_| no_route)?;
        let Some(index) = self.sockets.table.add(socket) else {
            unreachable!("there is room");
        };
        self.sockets.table.note_flow(index, to, local.port());
        Ok(Dial::new(index, local, to))
    }

    /// Takes the socket of `dial` back, to be used for another connection. One that is not done is reset.
    ///
    /// # Panics
    /// If it is a connection of another stack.
    pub fn hang_up(&mut self, now: Now, dial: Dial) -> tcp::Socket<'a> {
        let socket = self.sockets.table.socket::<tcp::Socket<'_>>(dial.index);
        if socket.is_active() {
            socket.abort();
        }
        self.sockets.table.touch(dial.index);
        self.send(now.monotonic);
        match self.sockets.table.remove(dial.index) {
            Socket::Tcp(socket) => socket,
            #[allow(unreachable_patterns)]
            _ => unreachable!("a connection's handle is of a TCP socket"),
        }
    }

    /// Does what there is to do at `now`: sends what is due, serves, sends, and takes in up to `budget` frames, one at a
    /// time, with serving and sending after each.
    ///
    /// `serve` pumps every service ([`pump`](crate::pump) with [`Sockets::udp`], [`Listener::pump`],
    /// [`Dial::pump`]) and returns the earliest of their deadlines.
    pub fn turn(
        &mut self,
        now: Now,
        budget: u32,
        mut serve: impl FnMut(&mut Sockets<'a>, Now) -> Option<Instant>,
    ) -> Turn {
        self.iface.poll_maintenance(smoltcp_instant(now.monotonic));
        self.autoconfigure(now.monotonic);
        // Connections whose time is up end here, and the services must hear of it.
        self.sockets.table.touch_due(now.monotonic);
        self.send(now.monotonic);
        let (mut deadline, mut unfinished) = (None, false);
        // The services may wait for the first frame where it finds room.
        let mut to_serve = self.burst > 1 && self.is_settled;
        if !to_serve {
            (deadline, unfinished) = self.serve_and_send(now, &mut serve);
        }
        let mut more = true;
        // One by itself is not kept waiting until it is known that there is no other.
        let mut burst = if self.is_busy { self.burst } else { 1 };
        let (mut taken, mut all) = (0, 0);
        for _ in 0..budget {
            match self.take_frame(now.monotonic) {
                Taken::None => {
                    more = false;
                    break;
                }
                Taken::Dropped => {}
                Taken::Processed => (taken, all) = (taken + 1, all + 1),
            }
            if taken >= burst || self.sockets.news.is_some() {
                (deadline, unfinished) = self.serve_and_send(now, &mut serve);
                (taken, burst, to_serve) = (0, self.burst, false);
            }
        }
        if taken > 0 || to_serve {
            (deadline, unfinished) = self.serve_and_send(now, &mut serve);
        }
        if all > 0 {
            self.is_busy = all > 1;
        }
        self.autoconfigure(now.monotonic);
        deadline = earliest(deadline, self.autoconfiguration_timeout(now.monotonic));
        let due = self.sockets.table.next_timer().map(|(at, _)| at);
        deadline = earliest(deadline, due);
        let device_full = self.sockets.device_full;
        self.is_settled = !(unfinished || device_full);
        if device_full {
            let soon = now.monotonic + Duration::from_millis(1);
            deadline = Some(deadline.map_or(soon, |at| at.max(soon)));
        }
        Turn {
            deadline: deadline.map(|at| at.max(now.monotonic)),
            more: more || unfinished,
            device_full,
        }
    }

    /// Lets a [turn](Self::turn) take in up to `frames` frames before it serves, instead of one, and with more than one
    /// the first before it serves at all. Each socket must have room for that many, or else what does not fit is lost.
    pub fn set_burst(&mut self, frames: u32) {
        self.burst = frames.max(1);
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.link.device
    }

    /// The device, to be looked after: a frame taken from it is lost to the stack.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.link.device
    }

    /// Our IP addresses with the lengths of their networks' prefixes, the IPv6 link-local one included.
    pub fn addresses(&self) -> &[(IpAddr, u8)] {
        &self.sockets.network.addresses
    }

    /// Frames dropped because they claimed to come from one of our own addresses, or from where no single host can
    /// be.
    pub fn forged_frames(&self) -> u64 {
        self.link.observer.forged
    }

    /// Serves and sends until nobody can go on without another frame. Returns the services' deadline, and
    /// whether they were stopped before that.
    fn serve_and_send(
        &mut self,
        now: Now,
        serve: &mut impl FnMut(&mut Sockets<'a>, Now) -> Option<Instant>,
    ) -> (Option<Instant>, bool) {
        let mut deadline = None;
        for _ in 0..ROUNDS {
            self.sockets.blocked = false;
            self.sockets.unread = false;
            deadline = serve(&mut self.sockets, now);
            let sent = self.send(now.monotonic);
            if !(self.sockets.unread || self.sockets.blocked && sent) {
                return (deadline, false);
            }
        }
        (deadline, true)
    }

    /// Takes in the next frame.
    fn take_frame(&mut self, now: Instant) -> Taken {
        let at = smoltcp_instant(now);
        let (sockets, iface) = (&mut self.sockets, &mut self.iface);
        let Link {
            device, observer, ..
        } = &mut self.link;
        let Some((rx, tx)) = device.receive(at) else {
            return Taken::None;
        };
        let taken = rx.consume(|frame| {
            let packet = observer.admits(frame, &sockets.network)?;
            let mut asked = None;
            let index = match packet {
                Packet::Other => None,
                Packet::Datagram { to } => sockets.table.datagram_socket(to),
                Packet::Segment { from, to, asks } => match sockets.flow(from, to, asks) {
                    None if asks.is_some() => match sockets.backlog_at(to) {
                        Some(backlog) => {
                            asked = asks.map(|sequence| (from, to, sequence));
                            // Without room it is not refused but not answered, as everywhere when a backlog is
                            // full, and so it comes again.
                            Some(sockets.room_for_connection(backlog, now)?)
                        }
                        None => None,
                    },
                    flow => flow,
                },
            };
            // What is nobody's is for smoltcp itself, or refused by it.
            let mut nobody = SocketSet::new(&mut [][..]);
            let set = match index {
                Some(index) => sockets.table.set(index),
                None => &mut nobody,
            };
            iface.poll_ingress_single(at, &mut Delivery::new(frame, tx), set);
            if let Some(index) = index {
                if let Some((from, to, sequence)) = asked {
                    sockets.connection_asked(index, from, to, sequence, now);
                }
                sockets.table.touch(index);
                sockets.table.mark_changed(index);
            }
            Some(())
        });
        self.sockets.news = self.link.observer.news.take();
        if taken.is_none() {
            return Taken::Dropped;
        }
        if let Some(announcement) = self.link.observer.announcement()
            && let Some(tx) = self.link.device.transmit(at)
        {
            // Nothing comes back. So the way out is not used; but it is the same way, and so the same code.
            let mut delivery = Delivery::new(announcement.frame(), tx);
            let mut nobody = SocketSet::new(&mut [][..]);
            self.iface
                .poll_ingress_single(at, &mut delivery, &mut nobody);
            self.link.observer.announced();
            self.sockets.table.touch_unresolved();
        }
        if core::mem::take(&mut self.link.observer.heard_of_neighbours) {
            self.sockets.table.touch_unresolved();
        }
        Taken::Processed
    }

    /// Hands to the device what the sockets have, and returns whether that was anything.
    fn send(&mut self, now: Instant) -> bool {
        let at = smoltcp_instant(now);
        let table = &mut self.sockets.table;
        self.link.full = false;
        let mut sent = false;
        while let Some(index) = table.next_to_send() {
            let before = table.connection_state(index);
            let timer = loop {
                self.link.asked = false;
                let result = self.iface.poll_egress(at, &mut self.link, table.set(index));
                let emitted = result == PollResult::SocketStateChanged;
                sent |= emitted;
                if emitted {
                    table.entry(index).waits = false;
                } else if self.link.asked {
                    // It had something for a neighbour of whom smoltcp does not know where he is.
                    table.entry(index).waits = true;
                }
                let timer = self.iface.poll_at(at, table.set(index));
                if self.link.full || !emitted || timer.is_none_or(|timer| timer > at) {
                    break timer;
                }
            };
            table.set_timer(index, timer.map(instant));
            if table.connection_state(index) != before {
                table.mark_changed(index);
            }
            if self.link.full {
                table.touch(index);
                break;
            }
            if table.entry(index).waits {
                table.await_neighbour(index);
            }
        }
        self.sockets.device_full = self.link.full;
        sent
    }

    pub(super) fn check_room(&self, wanted: usize) -> Result<(), BindError> {
        if self.sockets.table.room() < wanted {
            let capacity = self.sockets.table.capacity();
            return Err(BindError::NoRoom { capacity });
        }
        Ok(())
    }

    /// Enters `local` into the registry, with a port if it has none, and says how smoltcp puts it.
    fn take_port(
        &mut self,
        protocol: Protocol,
        local: SocketAddr,
        owner: &'static str,
    ) -> Result<(SocketAddr, IpListenEndpoint), BindError> {
        let ip = local.ip().to_canonical();
        let not_ours = BindError::NotOurs { ip };
        let mut own = self
            .sockets
            .network
            .addresses
            .iter()
            .map(|&(own, _)| own)
            .filter(|own| own.is_ipv4() == ip.is_ipv4());
        let bound = if !ip.is_unspecified() {
            Some(own.find(|&own| own == ip).ok_or(not_ours)?)
        } else if self.autoconfiguration.may_bring(ip) {
            None
        } else if ip.is_ipv4() {
            let first = own.next().ok_or(not_ours)?;
            own.next().is_none().then_some(first)
        } else {
            own.next().ok_or(not_ours)?;
            None
        };
        let port = match local.port() {
            0 => self.ephemeral_port(protocol, ip).ok_or(BindError::NoPort)?,
            port => port,
        };
        let local = SocketAddr::new(ip, port);
        self.ports.take(protocol, local, owner)?;
        if bound.is_none()
            && let Err(in_use) = self.ports.take(protocol, other_version(local), owner)
        {
            self.ports.free(protocol, local);
            return Err(in_use.into());
        }
        let endpoint = IpListenEndpoint {
            addr: bound.and_then(address::ip_address),
            port,
        };
        Ok((local, endpoint))
    }

    fn free_port(&mut self, protocol: Protocol, local: SocketAddr) {
        self.ports.free(protocol, local);
        if local.ip().is_unspecified() {
            let other = other_version(local);
            self.ports.free(protocol, other);
        }
    }

    /// A port of `ip` that nobody has.
    fn ephemeral_port(&mut self, protocol: Protocol, ip: IpAddr) -> Option<u16> {
        let count = u64::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        // Others should not guess it, and one just used should not come again while the other side keeps it in
        // TIME-WAIT: RFC 6056, section 3.3.1 for UDP and 3.3.5 for TCP. Where it is taken, the next that is free.
        let first = match protocol {
            Protocol::Udp => self.rng.below(count),
            Protocol::Tcp => self.last_dialed + 1 + self.rng.below(8),
        };
        (0..count).find_map(|step| {
            let offset = (first + step) % count;
            let port = EPHEMERAL.start() + u16::try_from(offset).ok()?;
            let registered = !self.ports.is_free(protocol, SocketAddr::new(ip, port));
            let dialed = || {
                protocol == Protocol::Tcp
                    && self.sockets.table.sockets().any(|socket| match socket {
                        Socket::Tcp(socket) => socket
                            .local_endpoint()
                            .is_some_and(|local| local.port == port),
                        _ => false,
                    })
            };
            if registered || dialed() {
                return None;
            }
            if protocol == Protocol::Tcp {
                self.last_dialed = offset;
            }
            Some(port)
        })
    }
}

/// The unspecified address of the other IP version.
fn other_version(local: SocketAddr) -> SocketAddr {
    let ip = match local.ip() {
        IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, local.port())
}

/// See [`Stack::add_address`].
fn add_address(
    iface: &mut Interface,
    network: &mut Network,
    ip: IpAddr,
    prefix: u8,
) -> Result<(), ConfigError> {
    if network.owns(ip) {
        return Ok(());
    }
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let cidr = address::ip_address(ip)
        .filter(|_| address::is_unicast(ip) && prefix <= bits)
        .map(|ip| IpCidr::new(ip, prefix))
        .ok_or(ConfigError::Address { ip, prefix })?;
    let mut room = true;
    iface.update_ip_addrs(|addresses| room = addresses.push(cidr).is_ok());
    if !room || network.addresses.push((ip, prefix)).is_err() {
        let capacity = IFACE_MAX_ADDR_COUNT;
        return Err(ConfigError::TooManyAddresses { capacity });
    }
    Ok(())
}

/// See [`Stack::add_gateway`].
fn add_gateway(
    iface: &mut Interface,
    network: &mut Network,
    gateway: IpAddr,
) -> Result<(), ConfigError> {
    // A gateway behind a gateway would never be found.
    let usable = address::is_unicast(gateway) && network.on_link(gateway) && !network.owns(gateway);
    let (known, route) = match address::ip_address(gateway) {
        Some(router) if usable => gateway_route(network, router),
        _ => return Err(ConfigError::Gateway(gateway)),
    };
    let mut room = known.is_none();
    iface
        .routes_mut()
        .update(|routes| room = room && routes.push(route).is_ok());
    if !room {
        let capacity = IFACE_MAX_ROUTE_COUNT;
        return Err(ConfigError::TooManyGateways { capacity });
    }
    *known = Some(gateway);
    Ok(())
}

/// The default route over `router`, and the note of the one that there is already.
fn gateway_route(
    network: &mut Network,
    router: ::smoltcp::wire::IpAddress,
) -> (&mut Option<IpAddr>, Route) {
    use ::smoltcp::wire::IpAddress;
    match router {
        #[cfg(feature = "ipv4")]
        IpAddress::Ipv4(router) => (&mut network.gateway_v4, Route::new_ipv4_gateway(router)),
        #[cfg(feature = "ipv6")]
        IpAddress::Ipv6(router) => (&mut network.gateway_v6, Route::new_ipv6_gateway(router)),
    }
}

/// smoltcp's instants are signed. A deadline is at most a few minutes later, so half of the range is left for it.
pub(super) fn smoltcp_instant(at: Instant) -> ::smoltcp::time::Instant {
    let latest = i64::MAX / 2;
    ::smoltcp::time::Instant::from_micros(i64::try_from(at.micros()).unwrap_or(latest).min(latest))
}

fn instant(at: ::smoltcp::time::Instant) -> Instant {
    Instant::from_micros(u64::try_from(at.total_micros()).unwrap_or(0))
}

/// Why a [`Stack`] could not be made, or one of its addresses or gateways not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The device carries something else than Ethernet frames.
    NotEthernet,
    /// The device's packets are too short for TCP/IP.
    Mtu {
        /// The longest IP packet of the device, in bytes.
        mtu: usize,
        /// The shortest that is enough, in bytes.
        least: usize,
    },
    /// The Ethernet address is one of a group, or no address at all.
    Mac([u8; 6]),
    /// No host can have this address, its prefix is too long, or its IP version is not built in.
    Address {
        /// The address.
        ip: IpAddr,
        /// The length of its network's prefix, in bits.
        prefix: u8,
    },
    /// More addresses than smoltcp was built for, the IPv6 link-local one included.
    TooManyAddresses {
        /// How many it was built for (`SMOLTCP_IFACE_MAX_ADDR_COUNT`).
        capacity: usize,
    },
    /// The gateway is not in any network of ours, or is ourselves.
    Gateway(IpAddr),
    /// More than one gateway for an IP version, or more than smoltcp was built for.
    TooManyGateways {
        /// How many it was built for (`SMOLTCP_IFACE_MAX_ROUTE_COUNT`).
        capacity: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEthernet => f.write_str("the device is no Ethernet device"),
            Self::Mtu { mtu, least } => write!(
                f,
                "the device's longest IP packet has {mtu} bytes, {least} are the least"
            ),
            Self::Mac(mac) => write!(
                f,
                "{} is not the address of one device",
                EthernetAddress(*mac)
            ),
            Self::Address { ip, prefix } => write!(f, "{ip}/{prefix} is not a host's address"),
            Self::TooManyAddresses { capacity } => {
                write!(
                    f,
                    "more than {capacity} IP addresses, the link-local one included"
                )
            }
            Self::Gateway(ip) => write!(f, "the gateway {ip} is not another host on our network"),
            Self::TooManyGateways { capacity } => write!(
                f,
                "more than one gateway for an IP version, or more than {capacity} in all"
            ),
        }
    }
}

impl Error for ConfigError {}

/// Why an address could not be bound or listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// Another service has it, or the registry of ports is full.
    InUse(InUse),
    /// It is no address of ours.
    NotOurs {
        /// The address.
        ip: IpAddr,
    },
    /// All ephemeral ports are in use.
    NoPort,
    /// There are as many listeners as a stack can have.
    TooManyListeners {
        /// How many that is.
        capacity: usize,
    },
    /// The stack was given no memory for so many sockets more.
    NoRoom {
        /// How many it has.
        capacity: usize,
    },
}

impl From<InUse> for BindError {
    fn from(in_use: InUse) -> Self {
        Self::InUse(in_use)
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(in_use) => in_use.fmt(f),
            Self::NotOurs { ip } => write!(f, "{ip} is no address of this machine"),
            Self::NoPort => f.write_str("all ephemeral ports are in use"),
            Self::TooManyListeners { capacity } => {
                write!(f, "no room: the stack has {capacity} listeners already")
            }
            Self::NoRoom { capacity } => write!(f, "no room: the stack has {capacity} sockets"),
        }
    }
}

impl Error for BindError {}
