//! Datagrams that leave together: `sendmmsg(2)` for many destinations, and `UDP_SEGMENT` (udp(7)) for several in a
//! row to one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::sendmmsg::{Message, SendBuffers};

/// What is to be sent, in the order in which it is to leave.
///
/// Datagrams in a row to one destination, of one length but for the last, which may be shorter, are one entry: the
/// system takes it for one datagram nearly all the way, and cuts it where the datagrams end.
#[derive(Debug, Default)]
pub struct Outbox {
    payloads: Vec<u8>,
    entries: Vec<Entry>,
    /// Entries before this one have left, or were taken out.
    first: usize,
}

/// One or more datagrams to one destination.
#[derive(Debug)]
struct Entry {
    to: SocketAddr,
    /// The address of ours that they are to leave from; `None`: the one that the system prefers.
    source: Option<IpAddr>,
    bytes: Range<usize>,
    /// The length of the first, and of all but the last.
    segment: usize,
}

impl Entry {
    /// How many datagrams it is.
    fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1)).max(1)
    }
}

/// Datagrams longer than this are not merged: a link with a smaller MTU than theirs (IPv6 has 1,280 at least, RFC 8200,
/// section 5) would refuse all of them.
const LONGEST_MERGED: usize = 1_280 - 48;
/// As many datagrams as every Linux that can cuts apart (`UDP_MAX_SEGMENTS`; 128 since 6.9).
const MOST_MERGED: usize = 64;
/// As many bytes as an IPv4 packet has room for, merged datagrams included.
const MOST_BYTES: usize = 65_507;
/// Entries that leave in one call at most.
const ENTRIES: usize = 64;

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.first == self.entries.len()
    }

    /// Whether another datagram of `len` bytes has room.
    pub fn has_room(&self, len: usize) -> bool {
        self.entries.len() < ENTRIES && self.payloads.len() + len <= MOST_BYTES
    }

    /// Adds a datagram, with those before it in one entry if `merge` allows and it belongs there.
    pub fn push(&mut self, to: SocketAddr, source: Option<IpAddr>, payload: &[u8], merge: bool) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        let end = self.payloads.len();
        let last = self.entries[self.first..].last_mut();
        match last.filter(|_| merge) {
            Some(last)
                if last.to == to
                    && last.source == source
                    && (1..=last.segment.min(LONGEST_MERGED)).contains(&payload.len())
                    && last.segment <= LONGEST_MERGED
                    // A shorter one was the last that it could take.
                    && last.bytes.len() % last.segment == 0
                    && last.count() < MOST_MERGED =>
            {
                last.bytes.end = end;
            }
            _ => self.entries.push(Entry {
                to,
                source,
                bytes: start..end,
                segment: payload.len(),
            }),
        }
    }

    /// Sends what there is. An error is the first remaining entry's; those before it have left.
    pub fn send(
        &mut self,
        buffers: &mut SendBuffers,
        socket: BorrowedFd<'_>,
        is_ipv6: bool,
    ) -> io::Result<()> {
        while !self.is_empty() {
            let messages = self.entries[self.first..].iter().map(|entry| Message {
                to: entry.to,
                source: entry.source,
                payload: &self.payloads[entry.bytes.clone()],
                segment: (entry.count() > 1).then_some(entry.segment as u16),
            });
            self.first += buffers.send(socket, is_ipv6, messages)?;
        }
        self.payloads.clear();
        self.entries.clear();
        self.first = 0;
        Ok(())
    }

    /// The first datagram, and how many there are in its entry.
    pub fn first(&self) -> Option<(Message<'_>, usize)> {
        let entry = self.entries.get(self.first)?;
        let bytes = &self.payloads[entry.bytes.clone()];
        let message = Message {
            to: entry.to,
            source: entry.source,
            payload: &bytes[..entry.segment.min(bytes.len())],
            segment: None,
        };
        Some((message, entry.count()))
    }

    /// Takes the first datagram out.
    pub fn remove_first(&mut self) {
        if let Some(entry) = self.entries.get_mut(self.first) {
            if entry.count() > 1 {
                entry.bytes.start += entry.segment;
            } else {
                self.first += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(sent: &[(&str, &str)]) -> Outbox {
        let mut outbox = Outbox::default();
        for (to, payload) in sent {
            outbox.push(to.parse().unwrap(), None, payload.as_bytes(), true);
        }
        outbox
    }

    /// The datagrams in it, and how many they are to the end of the entry.
    fn datagrams(mut outbox: Outbox) -> Vec<(String, String, usize)> {
        std::iter::from_fn(|| {
            let (message, count) = outbox.first()?;
            let to = message.to.to_string();
            let payload = String::from_utf8_lossy(message.payload).into_owned();
            outbox.remove_first();
            Some((to, payload, count))
        })
        .collect()
    }

    /// How many datagrams each entry has.
    fn counts(outbox: &Outbox) -> Vec<usize> {
        outbox.entries.iter().map(Entry::count).collect()
    }

    #[test]
    fn datagrams_in_a_row_to_one_destination_are_one_entry_while_they_have_one_length() {
        let (a, b) = ("192.0.2.1:7", "192.0.2.2:7");
        let outbox = outbox(&[
            (a, "abc"),
            (a, "def"),
            (a, "g"),
            // A shorter one has been the last.
            (a, "h"),
            (a, "long"),
            (b, "long"),
            (b, "long"),
            (b, ""),
            (b, ""),
            (a, "x"),
        ]);
        assert_eq!(counts(&outbox), [3, 1, 1, 2, 1, 1, 1]);
        let expected = [
            (a, "abc", 3),
            (a, "def", 2),
            (a, "g", 1),
            (a, "h", 1),
            (a, "long", 1),
            (b, "long", 2),
            (b, "long", 1),
            (b, "", 1),
            (b, "", 1),
            (a, "x", 1),
        ];
        assert_eq!(
            datagrams(outbox),
            expected.map(|(to, payload, count)| (to.to_owned(), payload.to_owned(), count))
        );
    }

    #[test]
    fn neither_long_datagrams_nor_those_from_different_addresses_are_merged() {
        let to = "192.0.2.1:7".parse().unwrap();
        let mut outbox = Outbox::default();
        for _ in 0..2 {
            outbox.push(to, None, &[7; LONGEST_MERGED + 1], true);
        }
        for source in [1, 2, 2] {
            outbox.push(to, Some([127, 0, 0, source].into()), b"hi", true);
        }
        outbox.push(to, Some([127, 0, 0, 2].into()), b"hi", false);
        assert_eq!(counts(&outbox), [1, 1, 1, 2, 1]);
    }

    #[test]
    fn an_entry_has_no_more_datagrams_than_every_system_takes() {
        let to = "192.0.2.1:7".parse().unwrap();
        let mut outbox = Outbox::default();
        for _ in 0..MOST_MERGED + 1 {
            outbox.push(to, None, b"hi", true);
        }
        assert_eq!(counts(&outbox), [MOST_MERGED, 1]);
    }
}
