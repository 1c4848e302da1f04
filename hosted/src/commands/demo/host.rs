//! The tour on host sockets, all of it in one event loop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;

use smoltalk::chat::ContactBook;
use smoltalk::sim::script::{AUTO_REPLY, EXCHANGES, Exchange, Service, WALL};
use smoltalk::{Duration, Instant, Now, Protocol, earliest};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::Error;
use smoltalk_hosted::network::{DatagramId, Io, Network, StreamsId};

use super::client::{Client, Datagrams, Progress, Stream};
use super::{Done, Talk, Tour};
use crate::cli::{AutoReply, Common, Place, ServeArgs};
use crate::commands::serve::{Options, Station};
use crate::commands::{Job, run};
use crate::output;
use crate::output::Output;

/// Runs the script between servers and clients on the loopback.
///
/// # Errors
/// There is no loopback to bind on.
pub fn tour(timeout: Duration) -> Result<Tour, Error> {
    let output = Output::new(&Common::default(), output::Stream::Nowhere);
    let clock = Clock::system();
    let mut network = Network::host()?;
    let mut tour = Tour::default();
    for ip in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let mut station = match Station::bind(&mut network, &output, &services(ip)) {
            Ok(station) => station,
            Err(error) if ip.is_ipv6() => {
                tour.not_run.push(format!("IPv6: {error}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        let servers = station.addresses();
        let server = |service: Service| {
            servers
                .iter()
                .find(|at| at.service == service.name() && at.transport == service.protocol())
                .map(|at| at.address)
        };
        let mut guest = Guest {
            network: &mut network,
            clock: &clock,
            output: &output,
            timeout,
        };
        for (index, exchange) in EXCHANGES.iter().enumerate() {
            // Each service is on, so each has an address.
            if let Some(server) = server(exchange.service) {
                tour.done
                    .push(guest.exchange(index, server, Some(&mut station))?);
            }
        }
        if ip.is_ipv4() {
            tour.spoken = talk(&mut network, &clock, &output, ip, timeout)?.spoken;
        }
    }
    Ok(tour)
}

/// Every service at `ip`, each at a port that is free.
fn services(ip: IpAddr) -> Options {
    let any = Some(Place::Port(0));
    let args = ServeArgs {
        greeting_tcp: any,
        greeting_udp: any,
        time: any,
        chat: any,
        auto_reply: AUTO_REPLY.try_into().ok().map(AutoReply),
        ..ServeArgs::default()
    };
    Options::new(args, ip, ContactBook::new())
}

/// A client on host sockets.
pub struct Guest<'a> {
    pub network: &'a mut Network,
    pub clock: &'a Clock,
    pub output: &'a Output,
    /// For each exchange.
    pub timeout: Duration,
}

impl Guest<'_> {
    /// Runs one exchange with `server`, which is served meanwhile if it is `station`'s.
    ///
    /// # Errors
    /// The network itself is broken; what goes wrong in the exchange is noted.
    pub fn exchange(
        &mut self,
        index: usize,
        server: SocketAddr,
        station: Option<&mut Station<'_>>,
    ) -> Result<Done, Error> {
        let exchange: &Exchange = &EXCHANGES[index];
        let deadline = self.clock.monotonic() + self.timeout;
        let (local, done) = match exchange.service.protocol() {
            Protocol::Udp => {
                let id = self.network.dial_datagrams(server)?;
                let mut job = OverDatagrams {
                    id,
                    client: Datagrams::new(exchange, server, deadline),
                    station,
                };
                run(self.network, self.clock, self.output, &mut job)?;
                (self.network.local_addr(id), finished(&job.client))
            }
            Protocol::Tcp => {
                let id = self.network.dial_stream(server)?;
                let mut job = OverStream {
                    id,
                    client: Stream::new(exchange, deadline),
                    station,
                };
                // Asked for now, since the address goes with the connection.
                let local = self.network.local_addr(id);
                run(self.network, self.clock, self.output, &mut job)?;
                (local, finished(&job.client))
            }
        };
        let (answers, failure) = done;
        Ok(Done {
            exchange: index,
            client: local,
            server,
            answers,
            failure,
        })
    }
}

/// What a client got, and what went wrong.
pub fn finished(client: &impl Client) -> (Vec<Vec<u8>>, Option<String>) {
    let failure = match client.progress() {
        Progress::Failed(why) => Some(why),
        Progress::Pending | Progress::Done => None,
    };
    (client.answers(), failure)
}

/// The station's clock shows the script's time.
fn serve_station(
    station: &mut Option<&mut Station<'_>>,
    io: &mut Io<'_>,
    now: Now,
) -> Result<Option<Instant>, Error> {
    match station {
        None => Ok(None),
        Some(station) => station.pump(
            io,
            Now {
                wall: Some(WALL),
                ..now
            },
        ),
    }
}

fn until_done(client: &impl Client) -> ControlFlow<(), Option<Instant>> {
    match client.progress() {
        Progress::Pending => ControlFlow::Continue(None),
        Progress::Done | Progress::Failed(_) => ControlFlow::Break(()),
    }
}

struct OverDatagrams<'s, 'o> {
    id: DatagramId,
    client: Datagrams,
    station: Option<&'s mut Station<'o>>,
}

impl Job for OverDatagrams<'_, '_> {
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        let deadline = io.datagrams(self.id, &mut self.client, now)?.deadline;
        Ok(earliest(
            deadline,
            serve_station(&mut self.station, io, now)?,
        ))
    }

    fn after_turn(&mut self, _: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        Ok(until_done(&self.client))
    }
}

struct OverStream<'s, 'o> {
    id: StreamsId,
    client: Stream,
    station: Option<&'s mut Station<'o>>,
}

impl Job for OverStream<'_, '_> {
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        let deadline = io.streams(self.id, &mut self.client, now)?.deadline;
        Ok(earliest(
            deadline,
            serve_station(&mut self.station, io, now)?,
        ))
    }

    fn after_turn(&mut self, _: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        Ok(until_done(&self.client))
    }
}

/// Lets the two people talk.
fn talk(
    network: &mut Network,
    clock: &Clock,
    output: &Output,
    ip: IpAddr,
    timeout: Duration,
) -> Result<Talk, Error> {
    let mut bind = || network.bind_datagrams(SocketAddr::new(ip, 0), "chat");
    let ids = [bind()?, bind()?];
    let addresses = ids.map(|id| network.local_addr(id));
    let mut job = Talking {
        ids,
        talk: Talk::new(clock.now(), addresses, timeout),
    };
    run(network, clock, output, &mut job)?;
    Ok(job.talk)
}

struct Talking {
    ids: [DatagramId; 2],
    talk: Talk,
}

impl Job for Talking {
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        for (id, chat) in self.ids.iter().zip(&mut self.talk.chats) {
            io.datagrams(*id, chat, now)?;
        }
        Ok(None)
    }

    fn after_turn(&mut self, now: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        self.talk.listen(now);
        if self.talk.is_over() {
            return Ok(ControlFlow::Break(()));
        }
        // What was said just now waits to be sent.
        let said = self.talk.spoken.len() as u64;
        let unsent = self
            .talk
            .chats
            .iter()
            .map(|c| c.counters().sent)
            .sum::<u64>()
            <= said;
        Ok(ControlFlow::Continue(Some(if unsent {
            now.monotonic
        } else {
            self.talk.deadline
        })))
    }
}
