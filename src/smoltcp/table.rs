//! The sockets of a stack: which of them a packet is for, which have something to send, and when the next of
//! them wants to be looked at, each found without looking at the others.
//!
//! smoltcp goes through all sockets of a set for each frame that comes in or goes out. So each socket is in a set
//! of its own here, and what smoltcp would search for is known beforehand. Ten thousand connections that say
//! nothing then cost those that speak nothing.

use core::net::{IpAddr, SocketAddr};

use ::smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use ::smoltcp::socket::{AnySocket, Socket, tcp};

use super::address;
use crate::Instant;

/// The number of a socket in its stack.
pub(super) type Index = u16;

/// The end of a list.
const NONE: Index = Index::MAX;

/// In a list of its own kind (to be sent, changed), an entry that is not in it.
const OUT: Index = Index::MAX - 1;

/// As many sockets as can be numbered.
const MOST: usize = OUT as usize;

/// What a [`Stack`](super::Stack) notes of one socket. 80 bytes on a 64-bit machine, 56 on a 32-bit one.
#[derive(Debug)]
pub struct SocketEntry<'a> {
    /// The set that has this socket alone.
    set: Option<SocketSet<'a>>,
    /// When it wants to be asked for what it has to send; the far future if never.
    timer: Instant,
    /// Of the timers below this node of the tree, the one that is due first. See [`Table::set_timer`].
    first: Index,
    /// The flows whose hash is the number of this entry, and the next one of the same hash as this one's.
    flows: Index,
    next_flow: Index,
    /// The hash of its flow, or [`NONE`].
    hash: Index,
    /// The next one that has something to send, or waits for a neighbour.
    next_to_send: Index,
    /// The next one that its listener is to look at.
    next_changed: Index,
    /// Its neighbours in the one [`List`] that it is in.
    previous: Index,
    next: Index,
    /// smoltcp asked for a neighbour on its behalf and has no answer yet.
    pub(super) waits: bool,
    /// What its listener notes of it.
    pub(super) slot: Slot,
}

/// What a listener notes of one of its sockets.
#[derive(Debug)]
pub(super) struct Slot {
    /// The listener's number, or [`Slot::NO_LISTENER`].
    pub(super) listener: u8,
    pub(super) phase: Phase,
    pub(super) end_told: bool,
    /// The number of the connection, for the service.
    pub(super) conn: u16,
    /// The sequence number with which its client began.
    pub(super) sequence: u32,
    /// When it came into its phase.
    pub(super) at: Instant,
}

impl Slot {
    pub(super) const NO_LISTENER: u8 = u8::MAX;
}

/// What a connection that came in is, for its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It listens.
    Free,
    /// A client has asked for a connection, and has not heard or not answered our consent.
    HalfOpen,
    /// It is a connection of the service.
    Open,
    /// The service is done with it, the stack perhaps not.
    Ending,
    /// The same, and nothing is left to do but to let time pass (TIME-WAIT: RFC 9293, section 3.6.1).
    TimeWait,
}

impl<'a> SocketEntry<'a> {
    /// No socket. All zeroes, so that a static of it takes no flash; a stack makes something of it.
    pub const EMPTY: Self = Self::new(None, 0, 0, Instant::ZERO);

    const fn new(set: Option<SocketSet<'a>>, none: Index, out: Index, timer: Instant) -> Self {
        Self {
            set,
            timer,
            first: 0,
            flows: none,
            next_flow: none,
            hash: none,
            next_to_send: out,
            next_changed: out,
            previous: none,
            next: none,
            waits: false,
            slot: Slot {
                listener: 0,
                phase: Phase::Free,
                end_told: false,
                conn: 0,
                sequence: 0,
                at: Instant::ZERO,
            },
        }
    }
}

/// The memory of a stack's sockets, for `N` of them: 568 bytes each on a 64-bit machine, 370 on a 32-bit one with
/// IPv4 alone.
///
/// Who does not know how many there are until the program runs makes [`SocketSlices`] of two slices.
#[derive(Debug)]
pub struct SocketMemory<'a, const N: usize> {
    storage: [SocketStorage<'a>; N],
    entries: [SocketEntry<'a>; N],
}

impl<const N: usize> SocketMemory<'_, N> {
    /// Room for `N` sockets.
    pub const fn new() -> Self {
        Self {
            storage: [SocketStorage::EMPTY; N],
            entries: [const { SocketEntry::EMPTY }; N],
        }
    }
}

impl<const N: usize> Default for SocketMemory<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The memory of a stack's sockets: as many as both slices have room for, and at most 65,534.
#[derive(Debug)]
pub struct SocketSlices<'a> {
    /// Room for the sockets.
    pub storage: &'a mut [SocketStorage<'a>],
    /// Room for what the stack notes of them.
    pub entries: &'a mut [SocketEntry<'a>],
}

impl<'a, const N: usize> From<&'a mut SocketMemory<'a, N>> for SocketSlices<'a> {
    fn from(memory: &'a mut SocketMemory<'a, N>) -> Self {
        Self {
            storage: &mut memory.storage,
            entries: &mut memory.entries,
        }
    }
}

/// The first of those that a listener is to look at.
pub(super) struct Changed(Index);

/// A list of entries. An entry is in one of these at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: Index,
    last: Index,
    pub(super) len: u16,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        len: 0,
    };

    pub(super) fn first(&self) -> Option<Index> {
        some(self.first)
    }
}

fn some(index: Index) -> Option<Index> {
    (index < OUT).then_some(index)
}

/// All sockets of a stack.
#[derive(Debug)]
pub(super) struct Table<'a> {
    entries: &'a mut [SocketEntry<'a>],
    /// Those without a socket.
    empty: List,
    /// Those with a socket for datagrams.
    datagrams: List,
    /// The first and the last that has something to send, perhaps.
    to_send: (Index, Index),
    /// The first of those that wait for a neighbour.
    unresolved: Index,
    /// The first of those that a listener is to look at.
    changed: Index,
    /// Keeps others from choosing flows of one hash.
    key: u32,
}

impl<'a> Table<'a> {
    pub(super) fn new(memory: SocketSlices<'a>, key: u32) -> Self {
        let SocketSlices { storage, entries } = memory;
        let capacity = storage.len().min(entries.len()).min(MOST);
        let (entries, _) = entries.split_at_mut(capacity);
        for (entry, storage) in entries.iter_mut().zip(storage) {
            let set = SocketSet::new(core::slice::from_mut(storage));
            *entry = SocketEntry::new(Some(set), NONE, OUT, Instant::FAR_FUTURE);
        }
        let mut table = Self {
            entries,
            empty: List::EMPTY,
            datagrams: List::EMPTY,
            to_send: (NONE, NONE),
            unresolved: NONE,
            changed: NONE,
            key,
        };
        let mut empty = List::EMPTY;
        for index in 0..capacity as Index {
            table.push(&mut empty, index);
            table.set_timer(index, None);
        }
        table.empty = empty;
        table
    }

    /// How many sockets there is memory for.
    pub(super) fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// How many more sockets there is memory for.
    pub(super) fn room(&self) -> usize {
        self.empty.len.into()
    }

    /// Takes a socket in. It is asked at once whether it has something to send.
    pub(super) fn add(&mut self, socket: impl AnySocket<'a>) -> Option<Index> {
        let index = self.empty.first()?;
        let mut empty = self.empty;
        self.unlink(&mut empty, index);
        self.empty = empty;
        let socket = socket.upcast();
        let is_tcp = matches!(socket, Socket::Tcp(_));
        let entry = self.entry(index);
        entry.waits = false;
        entry.slot.listener = Slot::NO_LISTENER;
        // The set has room for one socket and none in it.
        entry.set.as_mut()?.add(socket);
        if !is_tcp {
            let mut datagrams = self.datagrams;
            self.push(&mut datagrams, index);
            self.datagrams = datagrams;
        }
        self.touch(index);
        Some(index)
    }

    /// Gives a socket back.
    pub(super) fn remove(&mut self, index: Index) -> Socket<'a> {
        if self.entry(index).waits {
            self.touch_unresolved();
        }
        self.set_timer(index, None);
        self.forget_flow(index);
        let socket = self.set(index).remove(SocketHandle::default());
        if !matches!(socket, Socket::Tcp(_)) {
            let mut datagrams = self.datagrams;
            self.unlink(&mut datagrams, index);
            self.datagrams = datagrams;
        }
        let mut empty = self.empty;
        self.push(&mut empty, index);
        self.empty = empty;
        socket
    }

    pub(super) fn entry(&mut self, index: Index) -> &mut SocketEntry<'a> {
        &mut self.entries[usize::from(index)]
    }

    /// The set with this socket alone.
    pub(super) fn set(&mut self, index: Index) -> &mut SocketSet<'a> {
        match &mut self.entry(index).set {
            Some(set) => set,
            None => unreachable!("every entry has a set from the start"),
        }
    }

    /// The socket itself.
    ///
    /// # Panics
    /// If it is not of that kind: then it was taken for a socket of another stack.
    pub(super) fn socket<T: AnySocket<'a>>(&mut self, index: Index) -> &mut T {
        self.set(index).get_mut(SocketHandle::default())
    }

    /// Lets a socket with another peer than before send at once, whomever smoltcp waited for on its behalf.
    pub(super) fn forget_wait(&mut self, index: Index) {
        if self.entry(index).waits {
            self.touch_unresolved();
            self.entry(index).waits = false;
            // The note of it is in the set, beside the socket.
            let set = self.set(index);
            let socket = set.remove(SocketHandle::default());
            set.add(socket);
        }
    }

    /// A TCP socket and what its listener notes of it.
    pub(super) fn connection(&mut self, index: Index) -> (&mut tcp::Socket<'a>, &mut Slot) {
        let SocketEntry { set, slot, .. } = self.entry(index);
        match set {
            Some(set) => (set.get_mut(SocketHandle::default()), slot),
            None => unreachable!("every entry has a set from the start"),
        }
    }

    /// What a listener has to hear of when sending changes it: the state, and whether there is a peer still.
    pub(super) fn connection_state(&mut self, index: Index) -> Option<(tcp::State, bool)> {
        match self.set(index).iter().next()?.1 {
            Socket::Tcp(socket) => Some((socket.state(), socket.remote_endpoint().is_some())),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// All sockets, whatever they are.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &Socket<'a>> {
        let sets = self.entries.iter().filter_map(|entry| entry.set.as_ref());
        sets.flat_map(|set| set.iter().map(|(_, socket)| socket))
    }

    // --- lists ---

    /// Puts an entry that is in no list at the end of `list`.
    pub(super) fn push(&mut self, list: &mut List, index: Index) {
        let last = list.last;
        let entry = self.entry(index);
        entry.previous = last;
        entry.next = NONE;
        match some(last) {
            Some(last) => self.entry(last).next = index,
            None => list.first = index,
        }
        list.last = index;
        list.len += 1;
    }

    /// Takes an entry out of the list that it is in.
    pub(super) fn unlink(&mut self, list: &mut List, index: Index) {
        let entry = self.entry(index);
        let (previous, next) = (entry.previous, entry.next);
        match some(previous) {
            Some(previous) => self.entry(previous).next = next,
            None => list.first = next,
        }
        match some(next) {
            Some(next) => self.entry(next).previous = previous,
            None => list.last = previous,
        }
        list.len -= 1;
    }

    // --- who has something to send ---

    /// Notes that a socket may have something to send.
    pub(super) fn touch(&mut self, index: Index) {
        let entry = self.entry(index);
        if entry.next_to_send == OUT {
            self.queue(index);
        } else if entry.waits {
            // What waited may be gone, and what comes now may be for another: that shows only when it is asked.
            self.touch_unresolved();
        }
    }

    /// Puts one that is in neither list at the end of those to be asked.
    fn queue(&mut self, index: Index) {
        self.entry(index).next_to_send = NONE;
        let (first, last) = &mut self.to_send;
        let last = core::mem::replace(last, index);
        match some(last) {
            Some(last) => self.entry(last).next_to_send = index,
            None => *first = index,
        }
    }

    /// The same of all of them.
    pub(super) fn touch_all(&mut self) {
        self.touch_unresolved();
        for index in 0..self.entries.len() as Index {
            self.touch(index);
        }
    }

    /// The next one to be asked for what it has to send.
    pub(super) fn next_to_send(&mut self) -> Option<Index> {
        let index = some(self.to_send.0)?;
        let next = core::mem::replace(&mut self.entry(index).next_to_send, OUT);
        self.to_send.0 = next;
        if next == NONE {
            self.to_send.1 = NONE;
        }
        Some(index)
    }

    /// Puts one that was just asked aside until something is heard of neighbours.
    pub(super) fn await_neighbour(&mut self, index: Index) {
        let first = core::mem::replace(&mut self.unresolved, index);
        self.entry(index).next_to_send = first;
    }

    /// Something was heard of neighbours.
    pub(super) fn touch_unresolved(&mut self) {
        while let Some(index) = some(self.unresolved) {
            self.unresolved = core::mem::replace(&mut self.entry(index).next_to_send, OUT);
            self.queue(index);
        }
    }

    // --- whom a listener is to look at ---

    /// Notes that the listener of a socket is to look at it.
    pub(super) fn mark_changed(&mut self, index: Index) {
        let first = self.changed;
        let entry = self.entry(index);
        if entry.slot.listener != Slot::NO_LISTENER && entry.next_changed == OUT {
            entry.next_changed = first;
            self.changed = index;
        }
    }

    /// Those that `listener` is to look at, for [`Self::pop_changed`], in no order that means anything. Which of them
    /// change meanwhile is noted anew.
    pub(super) fn take_changed(&mut self, listener: u8) -> Changed {
        let (mut mine, mut others) = (NONE, NONE);
        let mut at = self.changed;
        while let Some(index) = some(at) {
            let entry = self.entry(index);
            let list = if entry.slot.listener == listener {
                &mut mine
            } else {
                &mut others
            };
            at = core::mem::replace(&mut entry.next_changed, *list);
            *list = index;
        }
        self.changed = others;
        Changed(mine)
    }

    pub(super) fn pop_changed(&mut self, changed: &mut Changed) -> Option<Index> {
        let index = some(changed.0)?;
        changed.0 = core::mem::replace(&mut self.entry(index).next_changed, OUT);
        Some(index)
    }

    // --- when ---

    /// Notes when a socket wants to be asked for what it has to send.
    ///
    /// The entries are the leaves of a binary tree as well as its inner nodes: entry `n` is the leaf `n + len`,
    /// and the inner node `n`, which knows the earliest of the leaves below it. So a change costs as many steps
    /// as `len` has binary digits.
    pub(super) fn set_timer(&mut self, index: Index, at: Option<Instant>) {
        let at = at.unwrap_or(Instant::FAR_FUTURE);
        self.entry(index).timer = at;
        let len = self.entries.len();
        let mut node = (usize::from(index) + len) / 2;
        while node > 0 {
            let [one, other] = [2 * node, 2 * node + 1].map(|child| match child.checked_sub(len) {
                Some(leaf) => leaf,
                None => self.entries[child].first.into(),
            });
            let first = if self.entries[other].timer < self.entries[one].timer {
                other
            } else {
                one
            };
            self.entries[node].first = first as Index;
            node /= 2;
        }
    }

    /// The socket that wants to be asked first, and when.
    pub(super) fn next_timer(&self) -> Option<(Instant, Index)> {
        // With one leaf there are no inner nodes, and the leaf is at 0.
        let first = self.entries.get(1).map_or(0, |root| root.first);
        let at = self.entries.get(usize::from(first))?.timer;
        (at < Instant::FAR_FUTURE).then_some((at, first))
    }

    /// Lets all be asked whose time has come.
    pub(super) fn touch_due(&mut self, now: Instant) {
        while let Some((at, index)) = self.next_timer()
            && at <= now
        {
            self.set_timer(index, None);
            self.touch(index);
        }
    }

    // --- whom a packet is for ---

    /// Notes that the connection with `peer` from port `port` is on this socket.
    pub(super) fn note_flow(&mut self, index: Index, peer: SocketAddr, port: u16) {
        let hash = self.hash(peer, port);
        let first = core::mem::replace(&mut self.entry(hash).flows, index);
        let entry = self.entry(index);
        entry.next_flow = first;
        entry.hash = hash;
    }

    /// Forgets the connection on this socket, if there is one.
    pub(super) fn forget_flow(&mut self, index: Index) {
        let entry = self.entry(index);
        let next = entry.next_flow;
        let Some(hash) = some(core::mem::replace(&mut entry.hash, NONE)) else {
            return;
        };
        let mut at = self.entry(hash).flows;
        if at == index {
            self.entry(hash).flows = next;
            return;
        }
        while let Some(before) = some(at) {
            at = self.entry(before).next_flow;
            if at == index {
                self.entry(before).next_flow = next;
                return;
            }
        }
    }

    /// The socket with the connection of `peer` to `local`.
    pub(super) fn flow(&mut self, peer: SocketAddr, local: SocketAddr) -> Option<Index> {
        let hash = self.hash(peer, local.port());
        let mut at = self.entries.get(usize::from(hash))?.flows;
        while let Some(index) = some(at) {
            let socket = self.socket::<tcp::Socket<'_>>(index);
            let [theirs, ours] = [socket.remote_endpoint(), socket.local_endpoint()]
                .map(|endpoint| endpoint.and_then(address::socket_addr));
            if theirs == Some(peer) && ours == Some(local) {
                return Some(index);
            }
            at = self.entry(index).next_flow;
        }
        None
    }

    /// The socket for datagrams to `local`.
    pub(super) fn datagram_socket(&mut self, local: SocketAddr) -> Option<Index> {
        let mut found = None;
        let mut at = self.datagrams.first;
        while let Some(index) = some(at) {
            let entry = &self.entries[usize::from(index)];
            at = entry.next;
            let socket = entry.set.as_ref()?.iter().next()?.1;
            match socket {
                Socket::Udp(socket) => {
                    let endpoint = socket.endpoint();
                    let bound = endpoint.addr.and_then(address::ip_addr);
                    if endpoint.port != local.port() {
                        continue;
                    }
                    if bound == Some(local.ip()) {
                        return Some(index);
                    }
                    // What goes to all comes to whoever has the port.
                    let same_version = bound.is_none_or(|ip| ip.is_ipv4() == local.is_ipv4());
                    if same_version {
                        found = Some(index);
                    }
                }
                // RFC 2131, section 4.1.
                #[cfg(feature = "dhcp")]
                Socket::Dhcpv4(_) if local.port() == 68 => found = Some(index),
                #[allow(unreachable_patterns)]
                _ => {}
            }
        }
        found
    }

    /// Each word is mixed in by a multiplication and a shift (Knuth, volume 3, section 6.4); the key keeps others
    /// from knowing what comes out.
    fn hash(&self, peer: SocketAddr, port: u16) -> Index {
        let ports = u32::from(peer.port()) << 16 | u32::from(port);
        let mut hash = mix(self.key, ports);
        match peer.ip() {
            IpAddr::V4(ip) => hash = mix(hash, ip.to_bits()),
            IpAddr::V6(ip) => {
                for word in ip.octets().chunks_exact(4) {
                    let word = word
                        .iter()
                        .fold(0, |word, &byte| word << 8 | u32::from(byte));
                    hash = mix(hash, word);
                }
            }
        }
        // Below the number of entries, which is less than 65,535.
        ((u64::from(hash) * self.entries.len() as u64) >> 32) as Index
    }
}

fn mix(hash: u32, word: u32) -> u32 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b1);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use crate::smoltcp::TcpBuffers;

    fn table(sockets: usize) -> Table<'static> {
        let storage: Vec<_> = (0..sockets).map(|_| SocketStorage::EMPTY).collect();
        let entries: Vec<_> = (0..sockets).map(|_| SocketEntry::EMPTY).collect();
        let memory = SocketSlices {
            storage: storage.leak(),
            entries: entries.leak(),
        };
        Table::new(memory, 0x5eed)
    }

    fn tcp_socket() -> tcp::Socket<'static> {
        Box::leak(Box::new(TcpBuffers::<16, 16>::new())).into()
    }

    proptest! {
        #[test]
        fn the_first_timer_is_found(
            sockets in 1_usize..40,
            changes in proptest::collection::vec((0_usize..40, proptest::option::of(0_u64..50)), 1..200),
        ) {
            let mut table = table(sockets);
            let mut model = BTreeMap::new();
            for (index, at) in changes {
                let index = index % sockets;
                let at = at.map(Instant::from_micros);
                table.set_timer(index as Index, at);
                model.remove(&index);
                if let Some(at) = at {
                    model.insert(index, at);
                }
                let first = table.next_timer();
                prop_assert_eq!(first.map(|(at, _)| at), model.values().min().copied());
                if let Some((at, index)) = first {
                    prop_assert_eq!(model.get(&usize::from(index)), Some(&at));
                }
            }
        }

        #[test]
        fn each_is_asked_once_and_in_turn(
            touched in proptest::collection::vec((0_u16..8, any::<bool>()), 1..60),
        ) {
            let mut table = table(8);
            let mut model: Vec<Index> = Vec::new();
            for (index, touch) in touched {
                if touch {
                    table.touch(index);
                    if !model.contains(&index) {
                        model.push(index);
                    }
                } else {
                    let next = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(table.next_to_send(), next);
                }
            }
        }

        #[test]
        fn flows_are_found_until_they_are_forgotten(
            steps in proptest::collection::vec((0_usize..12, any::<bool>()), 1..80),
        ) {
            // One entry has one hash: so most of them share theirs with another.
            let mut table = table(12);
            let mut iface = interface();
            let ours = SocketAddr::from(([192, 0, 2, 1], 8898));
            let peer = |n: usize| SocketAddr::from(([192, 0, 2, 7], 1_000 + n as u16));
            let indices: Vec<Index> = (0..12)
                .map(|n| {
                    let index = table.add(tcp_socket()).unwrap();
                    let ends = (address::endpoint(peer(n)), address::endpoint(ours));
                    let socket = table.socket::<tcp::Socket<'_>>(index);
                    socket.connect(iface.context(), ends.0.unwrap(), ends.1.unwrap()).unwrap();
                    index
                })
                .collect();
            let mut noted = [false; 12];
            for (n, note) in steps {
                if note && !noted[n] {
                    table.note_flow(indices[n], peer(n), ours.port());
                } else if !note {
                    table.forget_flow(indices[n]);
                }
                noted[n] = note;
                for (n, &noted) in noted.iter().enumerate() {
                    prop_assert_eq!(table.flow(peer(n), ours), noted.then(|| indices[n]));
                }
            }
        }
    }

    fn interface() -> ::smoltcp::iface::Interface {
        use ::smoltcp::iface::{Config, Interface};
        use ::smoltcp::phy::{Loopback, Medium};
        use ::smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 1]));
        let mut device = Loopback::new(Medium::Ethernet);
        let now = ::smoltcp::time::Instant::ZERO;
        let mut iface = Interface::new(Config::new(mac), &mut device, now);
        let ours = address::ip_address(IpAddr::from([192, 0, 2, 1])).unwrap();
        iface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(ours, 24)).unwrap());
        iface
    }

    #[test]
    fn a_listener_is_told_of_its_own_once() {
        let mut table = table(4);
        for index in 0..4 {
            table.entry(index).slot.listener = (index % 2) as u8;
        }
        for index in [0, 1, 2, 0, 3] {
            table.mark_changed(index);
        }
        let mut take = |listener| {
            let mut changed = table.take_changed(listener);
            let mut told: Vec<_> =
                core::iter::from_fn(|| table.pop_changed(&mut changed)).collect();
            told.sort_unstable();
            told
        };
        assert_eq!(take(1), [1, 3]);
        assert_eq!(take(0), [0, 2]);
        assert_eq!(take(0), []);
    }

    #[test]
    fn a_place_is_given_to_another_when_it_is_free() {
        let mut table = table(2);
        let [one, other] = [(); 2].map(|()| table.add(tcp_socket()).unwrap());
        assert_eq!(table.add(tcp_socket()), None);
        // It waits for a neighbour, and must not take that along.
        while let Some(index) = table.next_to_send() {
            table.entry(index).waits = true;
            table.await_neighbour(index);
        }
        table.set_timer(one, Some(Instant::ZERO));
        table.remove(one);
        assert_eq!((table.room(), table.next_timer()), (1, None));
        let again = table.add(tcp_socket()).unwrap();
        assert_eq!(again, one);
        let asked: Vec<_> = core::iter::from_fn(|| table.next_to_send()).collect();
        assert!(asked.contains(&one) && asked.contains(&other), "{asked:?}");
    }
}
