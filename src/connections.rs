//! The connections of a server over streams: who is here, whose time is up, and who gives way to whom.

use core::error::Error;
use core::fmt;

use crate::{ConnId, Duration, Instant, Now};

/// How a server treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a connection may do nothing, and how long it may take to close: 10 seconds by default.
    pub idle_timeout: Duration,
    /// How many connections there may be before one must give way; `N` where it is more than that. Leave it
    /// below the number of connections that the transport can hold, so that a new one can always come in.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(10),
            max_connections: usize::MAX,
        }
    }
}

/// Why a connection was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The table has no slot for it.
    NoRoom,
    /// The server is about to end.
    ShuttingDown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "no room for another connection",
            Self::ShuttingDown => "the server is shutting down",
        })
    }
}

impl Error for Refusal {}

/// Up to `N` connections, and what the service keeps of each while it is open.
///
/// Takes 64 bytes, and 16 for each connection if a `T` has 2 bytes, or 4 with a value to spare. All calls take the same
/// few steps for any `N`, [`shut_down`](Self::shut_down) aside.
#[derive(Debug)]
pub struct Connections<T, const N: usize> {
    config: Config,
    slots: [Slot<T>; N],
    /// Open connections in the order of their last activity, which is the order of their deadlines.
    active: Queue,
    /// Connections to be reset.
    doomed: Queue,
    shutting_down: bool,
    counts: Counts,
}

/// What happened to connections so far.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub opened: u64,
    /// Cut off because their time was up.
    pub timed_out: u64,
    /// Gave way to a new one.
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot<T> {
    state: State<T>,
    prev: u16,
    next: u16,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug)]
enum State<T> {
    Free,
    Open(T),
    Doomed,
}

/// The ends of a doubly linked list through the slots.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u16,
    last: u16,
    len: u16,
}

/// The link that leads nowhere. No slot has this index, since `ConnId` has 65,536 values and `N` is less.
const NIL: u16 = u16::MAX;

impl<T> Slot<T> {
    const FREE: Self = Self {
        state: State::Free,
        prev: NIL,
        next: NIL,
        deadline: Instant::ZERO,
    };
}

impl<T: Copy, const N: usize> Connections<T, N> {
    const FITS: () = assert!(
        N < NIL as usize,
        "a ConnId names at most 65,535 connections"
    );

    pub const fn new(config: Config) -> Self {
        let () = Self::FITS;
        const EMPTY: Queue = Queue {
            first: NIL,
            last: NIL,
            len: 0,
        };
        Self {
            config,
            slots: [Slot::FREE; N],
            active: EMPTY,
            doomed: EMPTY,
            shutting_down: false,
            counts: Counts {
                opened: 0,
                timed_out: 0,
                evicted: 0,
            },
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many are open, those about to be reset not counted.
    pub fn len(&self) -> usize {
        usize::from(self.active.len)
    }

    /// Takes in a connection. Where there are as many as there may be, the one that was active longest ago is to be
    /// reset.
    pub fn open(&mut self, now: Now, id: ConnId, with: T) -> Result<(), Refusal> {
        if self.shutting_down {
            return Err(Refusal::ShuttingDown);
        }
        let most = self.config.max_connections.min(N);
        let slot = self.slots.get(id.index());
        if most == 0 || slot.is_none_or(|slot| !matches!(slot.state, State::Free)) {
            return Err(Refusal::NoRoom);
        }
        if self.len() >= most {
            self.counts.evicted += 1;
            self.doom(self.active.first);
        }
        let deadline = now.monotonic + self.config.idle_timeout;
        let slot = &mut self.slots[id.index()];
        slot.state = State::Open(with);
        slot.deadline = deadline;
        self.append(id.index() as u16);
        self.counts.opened += 1;
        Ok(())
    }

    /// What is kept of a connection that is open, and not about to be reset.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        match self.slots.get_mut(id.index()) {
            Some(Slot {
                state: State::Open(kept),
                ..
            }) => Some(kept),
            _ => None,
        }
    }

    /// Notes that an open connection is active, so that its time begins anew.
    pub fn renew(&mut self, now: Now, id: ConnId) {
        if self.get_mut(id).is_none() {
            return;
        }
        let index = id.index() as u16;
        if self.active.last != index {
            self.unlink(index);
            self.append(index);
        }
        self.slots[id.index()].deadline = now.monotonic + self.config.idle_timeout;
    }

    /// Forgets a connection that is gone, and returns what was kept of it, if it was open.
    pub fn close(&mut self, id: ConnId) -> Option<T> {
        let state = self.slots.get(id.index())?.state;
        if matches!(state, State::Free) {
            return None;
        }
        self.unlink(id.index() as u16);
        self.slots[id.index()].state = State::Free;
        match state {
            State::Open(kept) => Some(kept),
            State::Free | State::Doomed => None,
        }
    }

    /// Takes in no more connections, and lets those be reset that are `idle`.
    pub fn shut_down(&mut self, idle: impl Fn(&T) -> bool) {
        self.shutting_down = true;
        for index in 0..N {
            if matches!(&self.slots[index].state, State::Open(kept) if idle(kept)) {
                self.doom(index as u16);
            }
        }
    }

    /// A connection to be reset: the same until it is closed.
    pub fn doomed(&self) -> Option<ConnId> {
        match self.doomed.first {
            NIL => None,
            index => Some(ConnId::new(index)),
        }
    }

    /// Lets those be reset whose time is up.
    pub fn handle_timeout(&mut self, now: Now) {
        while self.deadline().is_some_and(|at| at <= now.monotonic) {
            self.counts.timed_out += 1;
            self.doom(self.active.first);
        }
    }

    /// When the next one's time is up.
    pub fn deadline(&self) -> Option<Instant> {
        match self.active.first {
            NIL => None,
            index => Some(self.slots[usize::from(index)].deadline),
        }
    }

    fn doom(&mut self, index: u16) {
        self.unlink(index);
        self.slots[usize::from(index)].state = State::Doomed;
        self.append(index);
    }

    fn queue(&mut self, index: u16) -> &mut Queue {
        match self.slots[usize::from(index)].state {
            State::Doomed => &mut self.doomed,
            State::Free | State::Open(_) => &mut self.active,
        }
    }

    fn append(&mut self, index: u16) {
        let queue = self.queue(index);
        queue.len += 1;
        let last = core::mem::replace(&mut queue.last, index);
        if last == NIL {
            queue.first = index;
        } else {
            self.slots[usize::from(last)].next = index;
        }
        let slot = &mut self.slots[usize::from(index)];
        (slot.prev, slot.next) = (last, NIL);
    }

    fn unlink(&mut self, index: u16) {
        let Slot { prev, next, .. } = self.slots[usize::from(index)];
        let queue = self.queue(index);
        queue.len -= 1;
        if prev == NIL {
            queue.first = next;
        }
        if next == NIL {
            queue.last = prev;
        }
        if let Some(slot) = self.slots.get_mut(usize::from(prev)) {
            slot.next = next;
        }
        if let Some(slot) = self.slots.get_mut(usize::from(next)) {
            slot.prev = prev;
        }
    }
}
