//! Character generator (RFC 864): a stream of lines without end, for whoever connects.
//!
//! It is what a receiver's speed is measured with. Each line has 72 of the 95 printing characters of ASCII, one further
//! on than the line before, and ends in CR LF; so the 96th line is the first again. What the peer sends is thrown away.
//! When the peer ends its direction, so does the server.
//!
//! Over TCP only. RFC 864 has it over UDP too, where a datagram of any size is answered with up to 512 bytes: whoever
//! forges a sender's address turns that into a flood upon somebody else, and so it was used.

use core::net::SocketAddr;

pub use crate::connections::{Config, Refusal};

use crate::connections::Connections;
use crate::{ConnId, Flow, Instant, Now, StreamService};

/// The default port (TCP).
pub const PORT: u16 = 19;

/// How long a line is, CR and LF counted.
pub const LINE: usize = LETTERS + 2;

/// After how many bytes the stream begins anew.
pub const PERIOD: usize = RING * LINE;

/// Characters of a line, and characters that there are.
const LETTERS: usize = 72;
const RING: usize = 95;

/// The ring of characters, cut open, and as many of it again as a line needs that begins with the last.
const CHARACTERS: [u8; RING + LETTERS - 1] = {
    let mut characters = [0; RING + LETTERS - 1];
    let mut index = 0;
    while index < characters.len() {
        characters[index] = b' ' + (index % RING) as u8;
        index += 1;
    }
    characters
};

/// Sends lines to up to `N` connections at a time, at 16 bytes each and 72 besides.
///
/// It writes as much as there is room for, and no more than the peer takes: a peer that takes nothing for
/// [`Config::idle_timeout`] is cut off, whatever it sends, and so is one that takes longer to close. When there are
/// [`Config::max_connections`] already, the one that has taken nothing for longest gives way to the new one.
#[derive(Debug)]
pub struct Server<const N: usize> {
    connections: Connections<Lines, N>,
    bytes: u64,
}

/// What happened to the connections of a [`Server`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections taken in.
    pub opened: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Connections cut off because their time was up.
    pub timed_out: u64,
    /// Connections that gave way to a new one.
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lines {
    /// Where in the [`PERIOD`] the next byte is.
    position: u16,
    /// Whether the peer's direction has ended.
    ended: bool,
}

impl<const N: usize> Server<N> {
    /// A server without connections.
    pub const fn new(config: Config) -> Self {
        Self {
            connections: Connections::new(config),
            bytes: 0,
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let counts = self.connections.counts();
        Counters {
            opened: counts.opened,
            bytes: self.bytes,
            timed_out: counts.timed_out,
            evicted: counts.evicted,
        }
    }

    /// How many connections are open, those about to be reset not counted.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Takes in no more connections, and cuts off those that have not ended.
    pub fn shut_down(&mut self) {
        self.connections.shut_down(|lines| !lines.ended);
    }
}

/// Fills `buf` with what the stream has from byte `position` on: to write it, or to compare what came with it. A
/// buffer longer than [`PERIOD`] is filled by copying, at the memory's speed.
pub fn fill(position: usize, buf: &mut [u8]) {
    let lines = buf.len().min(PERIOD);
    let mut position = position % PERIOD;
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..lines)
        && !rest.is_empty()
    {
        let (line, column) = (position / LINE, position % LINE);
        let piece = match column {
            0..LETTERS => CHARACTERS.get(line + column..line + LETTERS),
            LETTERS => Some(b"\r\n".as_slice()),
            _ => Some(b"\n".as_slice()),
        };
        let piece = piece.unwrap_or_default();
        let len = piece.len().min(rest.len());
        rest[..len].copy_from_slice(&piece[..len]);
        done += len;
        position = (position + len) % PERIOD;
    }
    // From here on each byte is the one that is a period before it.
    while done < buf.len() {
        let len = done.min(buf.len() - done);
        buf.copy_within(..len, done);
        done += len;
    }
}

impl<const N: usize> StreamService for Server<N> {
    type Reject = Refusal;

    fn handle_open(&mut self, now: Now, id: ConnId, _: SocketAddr) -> Result<(), Refusal> {
        let lines = Lines {
            position: 0,
            ended: false,
        };
        self.connections.open(now, id, lines)
    }

    fn handle_data(&mut self, _: Now, _: ConnId, data: &[u8]) -> usize {
        data.len()
    }

    fn handle_end(&mut self, _: Now, id: ConnId) {
        if let Some(lines) = self.connections.get_mut(id) {
            lines.ended = true;
        }
    }

    fn handle_close(&mut self, _: Now, id: ConnId) {
        self.connections.close(id);
    }

    fn poll_write(&mut self, now: Now, id: ConnId, buf: &mut [u8]) -> (usize, Flow) {
        let Some(lines) = self.connections.get_mut(id) else {
            return (0, Flow::Abort);
        };
        if lines.ended {
            return (0, Flow::Finish);
        }
        if buf.is_empty() {
            return (0, Flow::Open);
        }
        let position = usize::from(lines.position);
        fill(position, buf);
        lines.position = ((position + buf.len()) % PERIOD) as u16;
        self.bytes += buf.len() as u64;
        self.connections.renew(now, id);
        (buf.len(), Flow::Open)
    }

    fn poll_ready(&mut self) -> Option<ConnId> {
        self.connections.doomed()
    }

    fn handle_timeout(&mut self, now: Now) {
        self.connections.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.connections.deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const PEER: SocketAddr = SocketAddr::new(
        core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 7)),
        40_000,
    );
    const ID: ConnId = ConnId::new(0);
    const IDLE: u64 = 10_000_000;

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn open() -> Server<1> {
        let mut server = Server::new(Config::default());
        server.handle_open(at(0), ID, PEER).unwrap();
        server
    }

    fn written(server: &mut Server<1>, now: Now, window: usize) -> Vec<u8> {
        let mut buf = std::vec![0; window];
        assert_eq!(server.poll_write(now, ID, &mut buf), (window, Flow::Open));
        buf
    }

    /// The stream's first `len` bytes, as RFC 864 describes them: "on line N, put characters (0+N mod 95) through
    /// (71+N mod 95)" of "the ASCII printing characters".
    fn described(len: usize) -> Vec<u8> {
        let lines = (0_usize..).flat_map(|line| {
            let characters = (line..line + 72).map(|number| 32 + (number % 95) as u8);
            characters.chain(*b"\r\n")
        });
        lines.take(len).collect()
    }

    #[test]
    fn lines_are_those_of_the_rfc() {
        let mut server = open();
        let text = written(&mut server, at(0), 97 * 74);
        let lines: Vec<&[u8]> = text.chunks(74).collect();
        assert_eq!(
            lines[0],
            b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n"
        );
        assert_eq!(
            lines[1],
            b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh\r\n"
        );
        assert_eq!(
            lines[94],
            b"~ !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdef\r\n"
        );
        assert_eq!(lines[95], lines[0]);
        assert_eq!(text, described(97 * 74));
    }

    #[test]
    fn a_peer_that_takes_nothing_is_cut_off_though_it_sends() {
        let mut server = open();
        written(&mut server, at(5), 100);
        for micros in [6, 1_000_000, IDLE] {
            assert_eq!(server.poll_write(at(micros), ID, &mut []), (0, Flow::Open));
            assert_eq!(server.handle_data(at(micros), ID, b"go on"), 5);
        }
        assert_eq!(server.poll_timeout(), Some(Instant::from_micros(IDLE + 5)));
        server.handle_timeout(at(IDLE + 5));
        assert_eq!(server.poll_ready(), Some(ID));
        assert_eq!(server.poll_write(at(0), ID, &mut [0; 9]), (0, Flow::Abort));
        server.handle_close(at(0), ID);
        let expected = Counters {
            opened: 1,
            bytes: 100,
            timed_out: 1,
            ..Counters::default()
        };
        assert_eq!(server.counters(), expected);
    }

    #[test]
    fn the_peers_end_is_ours_and_the_next_connection_begins_anew() {
        let mut server = open();
        written(&mut server, at(0), 100);
        server.handle_end(at(1), ID);
        let mut buf = [0xff; 9];
        assert_eq!(server.poll_write(at(1), ID, &mut buf), (0, Flow::Finish));
        assert_eq!(buf, [0xff; 9]);
        assert_eq!(server.poll_timeout(), Some(Instant::from_micros(IDLE)));
        server.handle_close(at(2), ID);
        server.handle_open(at(3), ID, PEER).unwrap();
        assert_eq!(written(&mut server, at(3), 100), described(100));
    }

    #[test]
    fn each_connection_has_its_own_place() {
        let mut server = Server::<2>::new(Config::default());
        let ids = [0, 1].map(ConnId::new);
        for id in ids {
            server.handle_open(at(0), id, PEER).unwrap();
        }
        let mut streams = [Vec::new(), Vec::new()];
        for window in [1, 5, 73, 74, 75, 148, 1_000] {
            for (id, stream) in ids.into_iter().zip(&mut streams) {
                let mut buf = std::vec![0; window + id.index()];
                server.poll_write(at(0), id, &mut buf);
                stream.extend_from_slice(&buf);
            }
        }
        for stream in streams {
            assert_eq!(stream, described(stream.len()));
        }
    }

    proptest! {
        /// However little or much room there is each time, the bytes are the same.
        #[test]
        fn any_splitting_gives_the_same_stream(
            windows in proptest::collection::vec(
                prop_oneof![1..10_usize, 1..200_usize, 7_000..7_100_usize, 1..30_000_usize],
                1..20,
            ),
        ) {
            let mut server = open();
            let mut stream = Vec::new();
            for &window in &windows {
                stream.extend(written(&mut server, at(0), window));
            }
            prop_assert_eq!(&stream, &described(stream.len()));
            prop_assert_eq!(server.counters().bytes, stream.len() as u64);
        }

        #[test]
        fn a_receiver_can_tell_what_comes_where(position in 0..100_000_usize, len in 0..20_000_usize) {
            let mut buf = std::vec![0; len];
            fill(position, &mut buf);
            prop_assert_eq!(&buf, &described(position + len)[position..]);
        }
    }
}
