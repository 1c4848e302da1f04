//! The tour on two smoltcp stacks, at the ends of an Ethernet cable that is a queue in memory. Time is a number
//! that is set to the next moment at which something happens, so nothing ever waits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltalk::chat::{self, Chat, ContactBook};
use smoltalk::greeting::{self, DatagramServer, StreamServer};
use smoltalk::sim::script::{AUTO_REPLY, EXCHANGES, Exchange, IpVersion, Service, WALL};
use smoltalk::sim::{Ethernet, EthernetPort, Impairments};
use smoltalk::smoltcp::{
    Listener, SocketMemory, Sockets, Stack, StackConfig, TcpBuffers, Turn, UdpBuffers, UdpSocket,
};
use smoltalk::{DatagramService, Duration, Instant, Now, Protocol, earliest, pump, time};
use smoltalk_hosted::error::Error;

use super::client::{Client, Datagrams, Progress, Stream};
use super::host::finished;
use super::{Done, Talk, Tour};

/// Frames that a port holds in each direction.
const FRAMES: usize = 16;
/// TCP connections that the server's side has room for.
const CONNECTIONS: usize = 4;
/// Datagrams that one pump moves.
const BUDGET: u32 = 16;
/// Room for the longest datagram that Ethernet carries.
const SCRATCH: usize = 1472;
/// Where TCP's sequence numbers begin; nobody is there who could guess them.
const SEED: u64 = 1;

type Port = EthernetPort<FRAMES>;
/// What it needs is never given back: the program ends with the demo.
type Host = Stack<'static, Port>;

const SERVER: [IpAddr; 2] = addresses(1);
const CLIENT: [IpAddr; 2] = addresses(2);

/// The lab's networks, as documentation knows them.
const fn addresses(host: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host as u16)),
    ]
}

/// Runs the script between servers on one stack and clients on the other. `timeout` is of virtual time.
///
/// # Errors
/// A stack could not be set up.
pub fn tour(timeout: Duration) -> Result<Tour, Error> {
    let mut link = Link::new()?;
    let mut station = Station::bind(&mut link.server)?;
    let mut tour = Tour::default();
    for version in IpVersion::ALL {
        for (index, exchange) in EXCHANGES.iter().enumerate() {
            let addr = SocketAddr::new(SERVER[version as usize], exchange.service.port());
            let any = SocketAddr::new(CLIENT[version as usize], 0);
            let (client, answers, failure) = match exchange.service.protocol() {
                Protocol::Udp => link.ask(&mut station, exchange, any, addr, timeout)?,
                Protocol::Tcp => link.call(&mut station, exchange, addr, timeout)?,
            };
            tour.done.push(Done {
                exchange: index,
                client,
                server: addr,
                answers,
                failure,
            });
        }
    }
    tour.spoken = link.talk(timeout)?;
    Ok(tour)
}

fn broken(error: impl fmt::Display) -> Error {
    Error::failed(format!("smoltcp in memory: {error}"))
}

/// What came of one exchange: the client's address, the answers, and what went wrong.
type Came = (SocketAddr, Vec<Vec<u8>>, Option<String>);

/// The two stacks and the cable.
struct Link {
    server: Host,
    client: Host,
    cable: Ethernet,
    now: Instant,
}

impl Link {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            server: host(1, SERVER)?,
            client: host(2, CLIENT)?,
            cable: Ethernet::new(SEED, Impairments::default()),
            now: Instant::ZERO,
        })
    }

    /// The virtual time; what people read stands still, as the script has it.
    fn now(&self) -> Now {
        Now {
            monotonic: self.now,
            wall: Some(WALL),
        }
    }

    /// One turn of each stack, and then on to the next moment at which something happens. False: nothing more will
    /// happen by itself.
    fn step(
        &mut self,
        serve: impl FnMut(&mut Sockets<'static>, Now) -> Option<Instant>,
        ask: impl FnMut(&mut Sockets<'static>, Now) -> Option<Instant>,
    ) -> bool {
        let now = self.now();
        let turns = [
            self.server.turn(now, BUDGET, serve),
            self.client.turn(now, BUDGET, ask),
        ];
        let [server, client] = [self.server.device_mut(), self.client.device_mut()];
        self.cable.exchange(self.now, server, client);
        let mut next = earliest(server.next_arrival(), client.next_arrival());
        if server.has_sent() || client.has_sent() {
            next = Some(self.now);
        }
        for Turn { deadline, more, .. } in turns {
            next = earliest(next, if more { Some(self.now) } else { deadline });
        }
        // Deadlines in the past are due now.
        self.now = self.now.max(next.unwrap_or(self.now));
        next.is_some()
    }

    /// One exchange over datagrams.
    fn ask(
        &mut self,
        station: &mut Station,
        exchange: &'static Exchange,
        any: SocketAddr,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<Came, Error> {
        let mut socket = self
            .client
            .bind(any, "client", udp_buffers())
            .map_err(broken)?;
        let local = socket.local_addr();
        let mut client = Datagrams::new(exchange, server, self.now + timeout);
        while client.progress() == Progress::Pending {
            let goes_on = self.step(
                |sockets, now| station.serve(sockets, now),
                |sockets, now| pump_datagrams(&mut client, sockets, &mut socket, now),
            );
            if !goes_on {
                break;
            }
        }
        self.client.unbind(socket);
        let (answers, failure) = finished(&client);
        Ok((local, answers, failure))
    }

    /// One exchange over a connection.
    fn call(
        &mut self,
        station: &mut Station,
        exchange: &'static Exchange,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<Came, Error> {
        let buffers: &mut TcpBuffers<2048, 2048> = Box::leak(Box::default());
        let mut dial = self.client.connect(server, buffers).map_err(broken)?;
        let local = dial.local_addr();
        let mut client = Stream::new(exchange, self.now + timeout);
        // To the end of the connection and not only of the answer, so that both sides are through with it.
        while !dial.is_done() {
            let goes_on = self.step(
                |sockets, now| station.serve(sockets, now),
                |sockets, now| dial.pump(sockets, &mut client, now).deadline,
            );
            if !goes_on {
                break;
            }
        }
        let now = self.now();
        self.client.hang_up(now, dial);
        let (answers, failure) = finished(&client);
        Ok((local, answers, failure))
    }

    /// Lets the two people talk, one on each stack.
    fn talk(&mut self, timeout: Duration) -> Result<Vec<super::Spoken>, Error> {
        // The chat's own port belongs to the station.
        let places = [CLIENT, SERVER].map(|[_, v6]| SocketAddr::new(v6, chat::PORT + 1));
        let [mut here, mut there] = [
            self.client
                .bind(places[0], "chat", udp_buffers())
                .map_err(broken)?,
            self.server
                .bind(places[1], "chat", udp_buffers())
                .map_err(broken)?,
        ];
        let mut talk = Talk::new(self.now(), places, timeout);
        while !talk.is_over() {
            let (now, deadline) = (self.now(), talk.deadline);
            let [one, other] = &mut talk.chats;
            self.step(
                |sockets, now| pump_datagrams(other, sockets, &mut there, now),
                |sockets, now| {
                    earliest(pump_datagrams(one, sockets, &mut here, now), Some(deadline))
                },
            );
            let said = talk.spoken.len();
            talk.listen(now);
            if talk.spoken.len() > said {
                // The answer goes out before any time passes.
                self.now = now.monotonic;
            }
        }
        Ok(talk.spoken)
    }
}

fn host(number: u8, addresses: [IpAddr; 2]) -> Result<Host, Error> {
    let [v4, v6] = addresses;
    let config = StackConfig {
        // Locally administered (IEEE 802, section 8.4).
        mac: [2, 0, 0, 0, 0, number],
        addresses: &[(v4, 24), (v6, 64)],
        gateways: &[],
        seed: SEED + u64::from(number),
    };
    let memory = Box::leak(Box::new(SocketMemory::<{ CONNECTIONS + 4 }>::new()));
    Stack::new(Port::new(), &config, memory, Instant::ZERO).map_err(broken)
}

fn udp_buffers() -> &'static mut UdpBuffers<8, 8192> {
    Box::leak(Box::default())
}

fn pump_datagrams<S: DatagramService>(
    service: &mut S,
    sockets: &mut Sockets<'static>,
    socket: &mut UdpSocket,
    now: Now,
) -> Option<Instant> {
    let mut scratch = [0; SCRATCH];
    // It has no error of its own: it cannot break.
    let Ok(pumped) = pump(
        service,
        &mut sockets.udp(socket, now),
        now,
        &mut scratch,
        BUDGET,
    );
    pumped.deadline
}

/// Every service on one stack.
struct Station {
    greeting_tcp: StreamServer<CONNECTIONS>,
    listener: Listener<CONNECTIONS>,
    greeting_udp: (DatagramServer, UdpSocket),
    time: (time::Server, UdpSocket),
    chat: (Chat<1, { BUDGET as usize }>, UdpSocket),
}

impl Station {
    fn bind(stack: &mut Host) -> Result<Self, Error> {
        let everywhere = |service: Service| SocketAddr::new([0; 16].into(), service.port());
        let buffers = [(); CONNECTIONS].map(|()| {
            let buffers: &mut TcpBuffers<2048, 2048> = Box::leak(Box::default());
            buffers
        });
        let listener = stack
            .listen(everywhere(Service::GreetingTcp), "greeting", buffers)
            .map_err(broken)?;
        let mut bind = |service: Service| {
            stack
                .bind(everywhere(service), service.name(), udp_buffers())
                .map_err(broken)
        };
        let chat = Chat::new(
            ContactBook::new(),
            chat::Config {
                auto_reply: AUTO_REPLY.try_into().ok(),
                ..chat::Config::default()
            },
        );
        Ok(Self {
            greeting_tcp: StreamServer::new(greeting::Config {
                max_connections: CONNECTIONS - 1,
                ..greeting::Config::default()
            }),
            listener,
            greeting_udp: (DatagramServer::new(), bind(Service::GreetingUdp)?),
            time: (time::Server::new(), bind(Service::Time)?),
            chat: (chat, bind(Service::Chat)?),
        })
    }

    fn serve(&mut self, sockets: &mut Sockets<'static>, now: Now) -> Option<Instant> {
        let streams = self.listener.pump(sockets, &mut self.greeting_tcp, now);
        let (greeting, greeting_socket) = &mut self.greeting_udp;
        let (time, time_socket) = &mut self.time;
        let (chat, chat_socket) = &mut self.chat;
        let deadlines = [
            pump_datagrams(greeting, sockets, greeting_socket, now),
            pump_datagrams(time, sockets, time_socket, now),
            pump_datagrams(chat, sockets, chat_socket, now),
        ];
        // Nobody is there to read them.
        while chat.poll_event().is_some() {}
        deadlines.into_iter().fold(streams.deadline, earliest)
    }
}
