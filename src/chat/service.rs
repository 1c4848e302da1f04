//! The chat as a datagram service: it is server and client at once.

use core::cmp::Reverse;
use core::error::Error;
use core::fmt;
use core::net::SocketAddr;

use heapless::{Deque, String};

use super::auto_reply::AutoReply;
use super::contacts::{canonical, is_destination};
use super::{
    ContactBook, ContactError, ContactId, Conversation, Dialect, MAX_AUTO_REPLY, MAX_TEXT,
};
use crate::{DatagramService, Duration, Instant, Now, Transmit, Unreachable};

/// A station of the chat, with up to `CONTACTS` contacts, `QUEUE` messages that wait to be sent, and `QUEUE`
/// messages that wait for the program to see them.
///
/// It takes 140 bytes for each of `CONTACTS`, 2,184 for each of `QUEUE` and 1,640 besides: 19,672 bytes for
/// `Chat<4, 8>`, and 6,568 for `Chat<4, 2>`, on a 64-bit machine.
///
/// **What came** waits for [`poll_event`](Self::poll_event). A message that finds the queue full is counted
/// and lost ([`Reject::NoRoom`]), as nobody could be told to wait. With `QUEUE` at least the budget of
/// [`pump`](crate::pump), and all events taken after each call of it, none is.
///
/// **Whose a message is** is told by the address that it came from. Where several contacts share that address
/// it is the one who was sent a message last, or the first of them if none was. Any other sender is a
/// stranger. Their messages come as events like all others, but a stranger has no [`Conversation`].
///
/// **An unattended station** answers messages by itself, see [`Config::auto_reply`].
#[derive(Clone, Debug)]
pub struct Chat<const CONTACTS: usize, const QUEUE: usize> {
    book: ContactBook<CONTACTS>,
    conversations: [Conversation; CONTACTS],
    dialect: Dialect,
    auto_reply: AutoReply,
    outgoing: Deque<Message, QUEUE>,
    /// Messages that came, and messages that will not arrive. They are apart since a message is long and the
    /// news of one is short, and so that neither takes the other's room; each has its place in the order of
    /// all events.
    incoming: Deque<(u64, Message), QUEUE>,
    undelivered: Deque<(u64, Failure), QUEUE>,
    events: u64,
    /// The last stranger who was sent messages, and how many of them may still prove undeliverable.
    stranger: Option<(SocketAddr, u64)>,
    counters: Counters,
}

/// How a [`Chat`] behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The form of messages on the wire.
    pub dialect: Dialect,
    /// What an unattended station answers to a message. `None` by default, and an empty text does the same:
    /// somebody is there and answers.
    ///
    /// So that two unattended stations never keep each other talking, and nobody can use one to flood
    /// another (a datagram's sender is easily forged), not every message is answered. Each address is
    /// answered once per [`cooldown`](Self::cooldown), as long as it is among the last 32 that were answered;
    /// all together at most [`AUTO_REPLIES_PER_SECOND`](super::AUTO_REPLIES_PER_SECOND) times a second; the
    /// reply itself never, and no address that [`may_answer`](crate::may_answer) excludes. A message that
    /// is not taken in is not answered either.
    pub auto_reply: Option<String<MAX_AUTO_REPLY>>,
    /// How long an address is not answered again: 5 seconds by default. It should be longer than a datagram
    /// takes there and back.
    pub cooldown: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            auto_reply: None,
            cooldown: Duration::from_secs(5),
        }
    }
}

/// The other side of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Somebody in the contact book.
    Contact(ContactId),
    /// Somebody who is not, by address.
    Stranger(SocketAddr),
}

/// What a program should know of, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is no heap to box it on")]
pub enum Event {
    /// A message came.
    Message {
        /// Who wrote it.
        from: Peer,
        /// Where it came from.
        addr: SocketAddr,
        /// The text as it was sent: not safe to show on a terminal, see [`Shown`](crate::text::Shown).
        text: String<MAX_TEXT>,
    },
    /// The network says that a message did not arrive: as far as it tells, the last one to that address.
    ///
    /// It comes at most once per message. That it does not come means nothing: networks may lose messages
    /// without a word.
    Undelivered {
        /// Who did not get it.
        to: Peer,
        /// Where it was sent.
        addr: SocketAddr,
        /// Why it did not arrive.
        why: Unreachable,
    },
}

/// What happened at a [`Chat`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came and were taken in.
    pub received: u64,
    /// Of those, messages from strangers.
    pub from_strangers: u64,
    /// Messages given to the transport, automatic replies not counted.
    pub sent: u64,
    /// Of those, messages of which the network said that they did not arrive.
    pub undelivered: u64,
    /// Of those, messages of which the program was not told, since the queue for such news was full.
    pub untold: u64,
    /// Automatic replies that fell due.
    pub auto_replies: u64,
    /// Messages that an unattended station took in and did not answer.
    pub unanswered: u64,
    /// Datagrams without a text.
    pub empty: u64,
    /// Datagrams longer than [`MAX_TEXT`].
    pub too_long: u64,
    /// Datagrams that are not UTF-8.
    pub not_utf8: u64,
    /// Messages lost since the queue of events was full.
    pub no_room: u64,
}

/// A message on its way in or out. 1,064 bytes.
#[derive(Clone, Debug)]
struct Message {
    peer: Peer,
    text: String<MAX_TEXT>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    to: Peer,
    why: Unreachable,
}

impl<const CONTACTS: usize, const QUEUE: usize> Chat<CONTACTS, QUEUE> {
    /// A station with the contacts of `book`.
    pub fn new(book: ContactBook<CONTACTS>, config: Config) -> Self {
        Self {
            book,
            conversations: [Conversation::default(); CONTACTS],
            dialect: config.dialect,
            auto_reply: AutoReply::new(config.auto_reply.unwrap_or_default(), config.cooldown),
            outgoing: Deque::new(),
            incoming: Deque::new(),
            undelivered: Deque::new(),
            events: 0,
            stranger: None,
            counters: Counters::default(),
        }
    }

    /// Writes a message. It waits until [`poll_transmit`](DatagramService::poll_transmit) takes it out, behind
    /// those written before it.
    ///
    /// # Errors
    /// The message cannot be sent, or there is no room for it. Nothing has changed.
    pub fn send_message(&mut self, now: Now, to: Peer, text: &str) -> Result<(), SendError> {
        let to = match to {
            Peer::Contact(id) if !self.book.contains(id) => return Err(SendError::UnknownContact),
            Peer::Contact(_) => to,
            Peer::Stranger(addr) => Peer::Stranger(canonical(addr)),
        };
        if !is_destination(self.addr(to)) {
            return Err(SendError::NoAddress);
        }
        if text.is_empty() {
            return Err(SendError::Empty);
        }
        let message = Message {
            peer: to,
            text: String::try_from(text).map_err(|_| SendError::TooLong)?,
        };
        self.outgoing
            .push_back(message)
            .map_err(|_| SendError::QueueFull)?;
        if let Some(conversation) = self.conversation_mut(to) {
            conversation.last_written = Some(now.monotonic);
        }
        Ok(())
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        let message = self.incoming.front().map(|(order, _)| *order);
        let failure = self.undelivered.front().map(|(order, _)| *order);
        if failure.is_some_and(|failure| message.is_none_or(|message| failure < message)) {
            let (_, Failure { to, why }) = self.undelivered.pop_front()?;
            let addr = self.addr(to);
            Some(Event::Undelivered { to, addr, why })
        } else {
            let (_, Message { peer: from, text }) = self.incoming.pop_front()?;
            let addr = self.addr(from);
            Some(Event::Message { from, addr, text })
        }
    }

    /// The contacts.
    pub fn book(&self) -> &ContactBook<CONTACTS> {
        &self.book
    }

    /// Adds a contact, with a conversation in which nothing was said yet.
    ///
    /// # Errors
    /// As [`ContactBook::add`].
    pub fn add_contact(&mut self, name: &str, addr: SocketAddr) -> Result<ContactId, ContactError> {
        self.book.add(name, addr)
    }

    /// The conversation with a contact.
    ///
    /// # Panics
    /// If `id` is of another book, and its index not less than `CONTACTS`.
    pub fn conversation(&self, id: ContactId) -> &Conversation {
        &self.conversations[id.index()]
    }

    /// Notes that all messages of a contact were read.
    pub fn mark_read(&mut self, id: ContactId) {
        if let Some(conversation) = self.conversation_mut(Peer::Contact(id)) {
            conversation.unread = 0;
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where a peer is. A contact must be one of this book's.
    fn addr(&self, peer: Peer) -> SocketAddr {
        match peer {
            Peer::Contact(id) => self.book.addr(id),
            Peer::Stranger(addr) => addr,
        }
    }

    fn conversation_mut(&mut self, peer: Peer) -> Option<&mut Conversation> {
        match peer {
            Peer::Contact(id) => self.conversations.get_mut(id.index()),
            Peer::Stranger(_) => None,
        }
    }

    /// Of the contacts at `addr` of whose conversation `is_so` is true, the one who was sent a message last,
    /// and the first if none was sent any.
    fn last_written_to(
        &self,
        addr: SocketAddr,
        is_so: impl Fn(&Conversation) -> bool,
    ) -> Option<ContactId> {
        self.book
            .iter()
            .filter(|(id, _, at)| *at == addr && is_so(self.conversation(*id)))
            .map(|(id, ..)| id)
            .min_by_key(|id| Reverse(self.conversation(*id).last_turn))
    }

    fn take_in(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) -> Result<(), Reject> {
        let text = self.dialect.decode(datagram)?;
        let from = canonical(from);
        let peer = match self.last_written_to(from, |_| true) {
            Some(id) => Peer::Contact(id),
            None => Peer::Stranger(from),
        };
        if text.len() > MAX_TEXT {
            return Err(Reject::TooLong);
        }
        // The text is written where it stays: a small machine's stack is no place for a kilobyte on its way.
        let message = Message {
            peer,
            text: String::new(),
        };
        self.incoming
            .push_back((self.events, message))
            .map_err(|_| Reject::NoRoom)?;
        if let Some((_, message)) = self.incoming.back_mut() {
            // It fits: its length was just looked at.
            let _ = message.text.push_str(text);
        }
        self.events += 1;
        self.counters.received += 1;
        match self.conversation_mut(peer) {
            Some(conversation) => {
                conversation.received += 1;
                conversation.unread += 1;
                conversation.last_heard = Some(now.monotonic);
            }
            None => self.counters.from_strangers += 1,
        }
        if self.auto_reply.is_on() {
            if self.auto_reply.hear(now, from, text) {
                self.counters.auto_replies += 1;
            } else {
                self.counters.unanswered += 1;
            }
        }
        Ok(())
    }

    /// Notes that a message to `peer` was given to the transport.
    fn note_sent(&mut self, peer: Peer) {
        self.counters.sent += 1;
        let turn = self.counters.sent;
        match peer {
            Peer::Contact(_) => {
                if let Some(conversation) = self.conversation_mut(peer) {
                    conversation.sent += 1;
                    conversation.last_turn = turn;
                }
            }
            Peer::Stranger(addr) => {
                let before = match self.stranger {
                    Some((last, in_doubt)) if last == addr => in_doubt,
                    _ => 0,
                };
                self.stranger = Some((addr, before + 1));
            }
        }
    }

    /// Whose message it was that did not arrive at `addr`, and that it did not. `None`: no message's, but an
    /// automatic reply's, or forged news.
    fn note_undelivered(&mut self, addr: SocketAddr) -> Option<Peer> {
        let has_doubtful =
            |conversation: &Conversation| conversation.undelivered < conversation.sent;
        if let Some(id) = self.last_written_to(addr, has_doubtful) {
            let peer = Peer::Contact(id);
            self.conversation_mut(peer)?.undelivered += 1;
            return Some(peer);
        }
        match &mut self.stranger {
            Some((last, in_doubt)) if *last == addr && *in_doubt > 0 => {
                *in_doubt -= 1;
                Some(Peer::Stranger(addr))
            }
            _ => None,
        }
    }
}

impl<const CONTACTS: usize, const QUEUE: usize> DatagramService for Chat<CONTACTS, QUEUE> {
    const MAX_DATAGRAM: usize = Dialect::MAX_DATAGRAM;
    type Reject = Reject;

    fn handle_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Reject> {
        let taken = self.take_in(now, from, payload);
        if let Err(reject) = taken {
            *match reject {
                Reject::Empty => &mut self.counters.empty,
                Reject::TooLong => &mut self.counters.too_long,
                Reject::NotUtf8 => &mut self.counters.not_utf8,
                Reject::NoRoom => &mut self.counters.no_room,
            } += 1;
        }
        taken
    }

    fn handle_unreachable(&mut self, _: Now, peer: SocketAddr, why: Unreachable) {
        let Some(to) = self.note_undelivered(canonical(peer)) else {
            return;
        };
        self.counters.undelivered += 1;
        match self
            .undelivered
            .push_back((self.events, Failure { to, why }))
        {
            Ok(()) => self.events += 1,
            Err(_) => self.counters.untold += 1,
        }
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_transmit(&mut self, _: Now, buf: &mut [u8]) -> Option<Transmit> {
        if let Some(message) = self.outgoing.front() {
            let peer = message.peer;
            let len = self.dialect.encode(&message.text, buf)?;
            self.outgoing.pop_front();
            self.note_sent(peer);
            let to = self.addr(peer);
            return Some(Transmit { to, len });
        }
        let (to, text) = self.auto_reply.due()?;
        let len = self.dialect.encode(text, buf)?;
        self.auto_reply.sent();
        Some(Transmit { to, len })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Why a datagram was not taken in. Each is counted in [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// It has no text.
    Empty,
    /// It has more than [`MAX_TEXT`] bytes.
    TooLong,
    /// It is not UTF-8.
    NotUtf8,
    /// The queue of events is full.
    NoRoom,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a message without text"),
            Self::TooLong => write!(f, "a message of more than {MAX_TEXT} bytes"),
            Self::NotUtf8 => f.write_str("a message that is not UTF-8"),
            Self::NoRoom => f.write_str("no room for another message"),
        }
    }
}

impl Error for Reject {}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// It has no text.
    Empty,
    /// It has more than [`MAX_TEXT`] bytes.
    TooLong,
    /// As many messages as there is room for wait to be sent already: try again after the next pump.
    QueueFull,
    /// The contact is not in this book.
    UnknownContact,
    /// Nothing can be sent to port 0, or to the unspecified address (`0.0.0.0`, `[::]`).
    NoAddress,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a message needs some text"),
            Self::TooLong => write!(f, "a message has at most {MAX_TEXT} bytes"),
            Self::QueueFull => f.write_str("too many messages wait to be sent"),
            Self::UnknownContact => f.write_str("that contact is not in the book"),
            Self::NoAddress => f.write_str("nothing can be sent to that address"),
        }
    }
}

impl Error for SendError {}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;
    use crate::{Arrival, DatagramTransport, Pumped, Sent, pump};

    type Station = Chat<4, 4>;

    const EGG: &str = "192.0.2.7:8081";
    const YUAN: &str = "[2001:db8::7]:8081";
    const STRANGER: &str = "198.51.100.9:40000";
    /// More of anything than a test has, so that one which finds no end fails.
    const ENDLESS: usize = 1_000;

    fn at(micros: u64) -> Now {
        Now::monotonic(Instant::from_micros(micros))
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn station() -> (Station, Peer, Peer) {
        let mut book = ContactBook::new();
        let egg = book.add("egg", addr(EGG)).unwrap();
        let yuan = book.add("yuan", addr(YUAN)).unwrap();
        let chat = Chat::new(book, Config::default());
        (chat, Peer::Contact(egg), Peer::Contact(yuan))
    }

    fn unattended(reply: &str) -> Station {
        let auto_reply = Some(reply.try_into().unwrap());
        let config = Config {
            auto_reply,
            ..Config::default()
        };
        Chat::new(ContactBook::new(), config)
    }

    fn id(peer: Peer) -> ContactId {
        match peer {
            Peer::Contact(id) => id,
            Peer::Stranger(addr) => panic!("{addr} is a stranger"),
        }
    }

    /// All that waits to be sent.
    fn drain<const C: usize, const Q: usize>(
        chat: &mut Chat<C, Q>,
        now: Now,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut buf = [0; MAX_TEXT];
        core::iter::from_fn(|| {
            chat.poll_transmit(now, &mut buf)
                .map(|t| (t.to, buf[..t.len].to_vec()))
        })
        .take(ENDLESS)
        .collect()
    }

    fn message(from: Peer, from_addr: &str, text: &str) -> Event {
        Event::Message {
            from,
            addr: addr(from_addr),
            text: text.try_into().unwrap(),
        }
    }

    fn events<const C: usize, const Q: usize>(chat: &mut Chat<C, Q>) -> Vec<Event> {
        core::iter::from_fn(|| chat.poll_event())
            .take(ENDLESS)
            .collect()
    }

    #[test]
    fn the_text_is_the_datagram_byte_for_byte() {
        let (mut chat, egg, yuan) = station();
        chat.send_message(at(1), egg, "你好，egg").unwrap();
        chat.send_message(at(2), yuan, "a\r\n\0").unwrap();
        chat.send_message(at(3), Peer::Stranger(addr(STRANGER)), "q")
            .unwrap();
        assert_eq!(
            drain(&mut chat, at(4)),
            [
                (
                    addr(EGG),
                    b"\xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8cegg".to_vec()
                ),
                (addr(YUAN), b"a\r\n\0".to_vec()),
                (addr(STRANGER), b"q".to_vec()),
            ]
        );
        chat.handle_datagram(at(5), addr(YUAN), b"\xe5\x93\xaa\xe5\x90\x92")
            .unwrap();
        assert_eq!(events(&mut chat), [message(yuan, YUAN, "哪吒")]);
    }

    #[test]
    fn the_longest_message_is_1024_bytes_both_ways() {
        let (mut chat, egg, _) = station();
        let longest = "好".repeat(341) + "!";
        assert_eq!(longest.len(), MAX_TEXT);
        chat.send_message(at(0), egg, &longest).unwrap();
        assert_eq!(
            chat.send_message(at(0), egg, &(longest.clone() + "!")),
            Err(SendError::TooLong)
        );
        assert_eq!(
            drain(&mut chat, at(0)),
            [(addr(EGG), longest.clone().into_bytes())]
        );
        chat.handle_datagram(at(0), addr(EGG), longest.as_bytes())
            .unwrap();
        assert_eq!(events(&mut chat), [message(egg, EGG, &longest)]);
        assert_eq!(
            chat.handle_datagram(at(0), addr(EGG), &[b'a'; MAX_TEXT + 1]),
            Err(Reject::TooLong)
        );
    }

    #[test]
    fn a_conversation_counts_what_was_said() {
        let (mut chat, egg, yuan) = station();
        chat.send_message(at(10), egg, "hello").unwrap();
        assert_eq!(chat.conversation(id(egg)).sent, 0);
        drain(&mut chat, at(20));
        chat.handle_datagram(at(30), addr(EGG), b"hello yourself")
            .unwrap();
        chat.handle_datagram(at(40), addr(EGG), b"and now?")
            .unwrap();
        let expected = Conversation {
            sent: 1,
            undelivered: 0,
            received: 2,
            unread: 2,
            last_heard: Some(Instant::from_micros(40)),
            last_written: Some(Instant::from_micros(10)),
            last_turn: 1,
        };
        assert_eq!(*chat.conversation(id(egg)), expected);
        chat.mark_read(id(egg));
        assert_eq!(
            *chat.conversation(id(egg)),
            Conversation {
                unread: 0,
                ..expected
            }
        );
        assert_eq!(*chat.conversation(id(yuan)), Conversation::default());
    }

    #[test]
    fn a_lost_message_has_no_effect() {
        let (mut chat, egg, _) = station();
        chat.send_message(at(0), egg, "anyone?").unwrap();
        assert_eq!(drain(&mut chat, at(0)).len(), 1);
        assert_eq!(chat.poll_timeout(), None);
        chat.handle_timeout(at(3_600_000_000));
        assert_eq!(drain(&mut chat, at(3_600_000_000)), []);
        assert_eq!(events(&mut chat), []);
    }

    #[test]
    fn doubled_and_overtaking_messages_are_shown_as_they_come() {
        let (mut chat, egg, yuan) = station();
        for (from, text) in [(EGG, "two"), (EGG, "one"), (YUAN, "three"), (EGG, "one")] {
            chat.handle_datagram(at(0), addr(from), text.as_bytes())
                .unwrap();
        }
        assert_eq!(
            events(&mut chat),
            [
                message(egg, EGG, "two"),
                message(egg, EGG, "one"),
                message(yuan, YUAN, "three"),
                message(egg, EGG, "one"),
            ]
        );
    }

    #[test]
    fn a_stranger_is_heard_and_can_be_answered_and_added() {
        let (mut chat, ..) = station();
        let stranger = Peer::Stranger(addr(STRANGER));
        chat.handle_datagram(at(0), addr(STRANGER), b"hi").unwrap();
        // The same host from another port is somebody else.
        chat.handle_datagram(at(0), addr("192.0.2.7:8082"), b"me")
            .unwrap();
        assert_eq!(
            events(&mut chat),
            [
                message(stranger, STRANGER, "hi"),
                message(
                    Peer::Stranger(addr("192.0.2.7:8082")),
                    "192.0.2.7:8082",
                    "me"
                ),
            ]
        );
        assert_eq!(chat.counters().from_strangers, 2);
        chat.send_message(at(1), stranger, "who is it?").unwrap();
        assert_eq!(
            drain(&mut chat, at(1)),
            [(addr(STRANGER), b"who is it?".to_vec())]
        );
        let new = chat.add_contact("new", addr(STRANGER)).unwrap();
        chat.handle_datagram(at(2), addr(STRANGER), b"me").unwrap();
        assert_eq!(
            events(&mut chat),
            [message(Peer::Contact(new), STRANGER, "me")]
        );
    }

    #[test]
    fn an_ipv4_sender_in_ipv6_form_is_the_same_person() {
        let (mut chat, egg, _) = station();
        chat.handle_datagram(at(0), addr("[::ffff:192.0.2.7]:8081"), b"hi")
            .unwrap();
        assert_eq!(events(&mut chat), [message(egg, EGG, "hi")]);
    }

    #[test]
    fn at_a_shared_address_answers_whoever_was_sent_a_message_last() {
        const HERE: &str = "127.0.0.1:8081";
        let mut chat = Station::new(ContactBook::tutorial(addr(HERE)), Config::default());
        let who = |chat: &mut Station| {
            chat.handle_datagram(at(9), addr(HERE), b"hi").unwrap();
            match chat.poll_event() {
                Some(Event::Message { from, .. }) => chat.book().name(id(from)).to_string(),
                other => panic!("{other:?}"),
            }
        };
        let peer = |chat: &Station, name| Peer::Contact(chat.book().find(name).unwrap());
        assert_eq!(who(&mut chat), "金老板");
        for name in ["egg", "哪吒", "yuan", "egg"] {
            // All at one moment: the order counts, not the clock.
            let to = peer(&chat, name);
            chat.send_message(at(9), to, "hi").unwrap();
            drain(&mut chat, at(9));
            assert_eq!(who(&mut chat), name);
            assert_eq!(who(&mut chat), name);
        }
        let egg = *chat.conversation(id(peer(&chat, "egg")));
        assert_eq!((egg.sent, egg.received), (2, 4));
    }

    #[test]
    fn bad_datagrams_are_refused_and_counted_and_change_nothing_else() {
        let (mut chat, egg, _) = station();
        for (datagram, why) in [
            (b"".as_slice(), Reject::Empty),
            (&[b'a'; 1025], Reject::TooLong),
            (&[0xff; 65_507], Reject::TooLong),
            (b"\xff", Reject::NotUtf8),
            (b"\xe4\xbd", Reject::NotUtf8),
            (b"ok\xc0\x80", Reject::NotUtf8),
        ] {
            assert_eq!(chat.handle_datagram(at(1), addr(EGG), datagram), Err(why));
        }
        assert_eq!(
            chat.counters(),
            Counters {
                empty: 1,
                too_long: 2,
                not_utf8: 3,
                ..Counters::default()
            }
        );
        assert_eq!(*chat.conversation(id(egg)), Conversation::default());
        assert_eq!(events(&mut chat), []);
        assert_eq!(drain(&mut chat, at(1)), []);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_changes_nothing() {
        let (mut chat, egg, _) = station();
        let mut longer = ContactBook::<9>::new();
        let foreign = (0..9)
            .map(|n| longer.add(&n.to_string(), addr(EGG)).unwrap())
            .last();
        for (to, text, why) in [
            (egg, "", SendError::Empty),
            (
                Peer::Contact(foreign.unwrap()),
                "hi",
                SendError::UnknownContact,
            ),
            (
                Peer::Stranger(addr("192.0.2.1:0")),
                "hi",
                SendError::NoAddress,
            ),
            (
                Peer::Stranger(addr("[::]:8081")),
                "hi",
                SendError::NoAddress,
            ),
        ] {
            assert_eq!(chat.send_message(at(1), to, text), Err(why));
        }
        for n in 0..4 {
            chat.send_message(at(n), egg, &n.to_string()).unwrap();
        }
        assert_eq!(
            chat.send_message(at(9), egg, "4"),
            Err(SendError::QueueFull)
        );
        assert_eq!(
            chat.conversation(id(egg)).last_written,
            Some(Instant::from_micros(3))
        );
        let texts: Vec<_> = drain(&mut chat, at(9))
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(texts, [b"0", b"1", b"2", b"3"]);
        chat.send_message(at(9), egg, "4").unwrap();
        chat.mark_read(foreign.unwrap());
    }

    #[test]
    fn a_buffer_that_is_too_short_takes_nothing_out() {
        let (mut chat, egg, _) = station();
        chat.send_message(at(0), egg, "hello").unwrap();
        assert_eq!(chat.poll_transmit(at(0), &mut [0; 4]), None);
        assert_eq!(drain(&mut chat, at(0)), [(addr(EGG), b"hello".to_vec())]);
        let mut chat = unattended("away");
        chat.handle_datagram(at(0), addr(EGG), b"hello").unwrap();
        assert_eq!(chat.poll_transmit(at(0), &mut [0; 3]), None);
        assert_eq!(drain(&mut chat, at(0)), [(addr(EGG), b"away".to_vec())]);
    }

    #[test]
    fn a_full_event_queue_is_a_counted_loss_and_loses_nothing_else() {
        let (mut chat, egg, _) = station();
        for n in 0..4_u8 {
            chat.handle_datagram(at(0), addr(EGG), &[b'0' + n]).unwrap();
        }
        assert_eq!(
            chat.handle_datagram(at(0), addr(EGG), b"4"),
            Err(Reject::NoRoom)
        );
        assert_eq!(chat.counters().no_room, 1);
        assert_eq!(chat.conversation(id(egg)).received, 4);
        // News of what was sent have room of their own.
        chat.send_message(at(0), egg, "hi").unwrap();
        drain(&mut chat, at(0));
        chat.handle_unreachable(at(0), addr(EGG), Unreachable::Refused);
        let seen = events(&mut chat);
        assert_eq!(seen.len(), 5);
        assert_eq!(seen[3], message(egg, EGG, "3"));
        assert!(matches!(seen[4], Event::Undelivered { .. }));
        chat.handle_datagram(at(0), addr(EGG), b"5").unwrap();
        assert_eq!(events(&mut chat), [message(egg, EGG, "5")]);
    }

    #[test]
    fn a_message_that_was_lost_for_want_of_room_is_not_answered() {
        let mut chat = unattended("away");
        for n in 0..5 {
            let from = (addr(EGG).ip(), 5_000 + n).into();
            let _ = chat.handle_datagram(at(0), from, b"hello");
            assert_eq!(drain(&mut chat, at(0)).len(), usize::from(n < 4), "{n}");
        }
        assert_eq!(chat.counters().auto_replies, 4);
    }

    #[test]
    fn news_of_undelivered_messages_come_once_each_in_order() {
        let (mut chat, egg, yuan) = station();
        // Nothing was sent there: whatever that is about, it is no message.
        chat.handle_unreachable(at(0), addr(EGG), Unreachable::Refused);
        chat.send_message(at(0), egg, "1").unwrap();
        chat.handle_unreachable(at(0), addr(EGG), Unreachable::Refused);
        assert_eq!(events(&mut chat), []);
        chat.send_message(at(0), yuan, "2").unwrap();
        drain(&mut chat, at(0));
        chat.handle_datagram(at(1), addr(YUAN), b"before").unwrap();
        chat.handle_unreachable(at(2), addr("[::ffff:192.0.2.7]:8081"), Unreachable::NoRoute);
        chat.handle_datagram(at(3), addr(YUAN), b"between").unwrap();
        chat.handle_unreachable(at(4), addr(EGG), Unreachable::Refused);
        chat.handle_unreachable(at(4), addr(YUAN), Unreachable::Refused);
        chat.handle_datagram(at(5), addr(YUAN), b"after").unwrap();
        let undelivered = |to, addr, why| Event::Undelivered { to, addr, why };
        assert_eq!(
            events(&mut chat),
            [
                message(yuan, YUAN, "before"),
                undelivered(egg, addr(EGG), Unreachable::NoRoute),
                message(yuan, YUAN, "between"),
                undelivered(yuan, addr(YUAN), Unreachable::Refused),
                message(yuan, YUAN, "after"),
            ]
        );
        assert_eq!(chat.counters().undelivered, 2);
        assert_eq!(chat.conversation(id(egg)).undelivered, 1);
    }

    #[test]
    fn a_stranger_who_was_written_to_can_be_out_of_reach_too() {
        let (mut chat, ..) = station();
        let to = Peer::Stranger(addr(STRANGER));
        chat.send_message(at(0), to, "1").unwrap();
        chat.send_message(at(0), to, "2").unwrap();
        drain(&mut chat, at(0));
        for _ in 0..3 {
            chat.handle_unreachable(at(0), addr(STRANGER), Unreachable::Refused);
        }
        let undelivered = Event::Undelivered {
            to,
            addr: addr(STRANGER),
            why: Unreachable::Refused,
        };
        assert_eq!(events(&mut chat), [undelivered.clone(), undelivered]);
    }

    #[test]
    fn at_a_shared_address_the_last_message_is_the_one_that_failed() {
        const HERE: &str = "127.0.0.1:8081";
        let mut chat = Station::new(ContactBook::tutorial(addr(HERE)), Config::default());
        let peers: Vec<_> = chat
            .book()
            .iter()
            .map(|(id, ..)| Peer::Contact(id))
            .collect();
        let [gold, nezha, egg, _] = peers[..] else {
            panic!("{peers:?}");
        };
        // The transport tells at once, while the next message still waits.
        chat.send_message(at(0), egg, "1").unwrap();
        chat.send_message(at(0), gold, "2").unwrap();
        chat.send_message(at(0), nezha, "3").unwrap();
        let mut buf = [0; MAX_TEXT];
        for _ in 0..2 {
            chat.poll_transmit(at(0), &mut buf).unwrap();
            chat.handle_unreachable(at(0), addr(HERE), Unreachable::Prohibited);
        }
        // Or later, after all were sent.
        chat.send_message(at(0), gold, "4").unwrap();
        drain(&mut chat, at(0));
        for _ in 0..3 {
            chat.handle_unreachable(at(1), addr(HERE), Unreachable::Refused);
        }
        let to: Vec<_> = events(&mut chat)
            .into_iter()
            .map(|event| match event {
                Event::Undelivered { to, .. } => to,
                Event::Message { .. } => panic!("nothing came"),
            })
            .collect();
        assert_eq!(to, [egg, gold, gold, nezha]);
    }

    #[test]
    fn news_without_room_are_counted() {
        let mut chat = Chat::<1, 1>::new(ContactBook::new(), Config::default());
        let egg = Peer::Contact(chat.add_contact("egg", addr(EGG)).unwrap());
        for _ in 0..3 {
            chat.send_message(at(0), egg, "hi").unwrap();
            drain(&mut chat, at(0));
            chat.handle_unreachable(at(0), addr(EGG), Unreachable::Refused);
        }
        let counters = chat.counters();
        assert_eq!((counters.undelivered, counters.untold), (3, 2));
        assert_eq!(events(&mut chat).len(), 1);
    }

    #[test]
    fn an_unattended_station_answers_each_sender_once_per_cooldown() {
        let mut chat = unattended("我不在");
        let reply = |to: &str| (addr(to), "我不在".as_bytes().to_vec());
        let mut say = |micros, from: &str, text: &str| {
            chat.handle_datagram(at(micros), addr(from), text.as_bytes())
                .unwrap();
            assert_eq!(events(&mut chat).len(), 1);
            drain(&mut chat, at(micros))
        };
        assert_eq!(say(7, EGG, "hello"), [reply(EGG)]);
        assert_eq!(say(7, "[::ffff:192.0.2.7]:8081", "hello?"), []);
        assert_eq!(say(7, YUAN, "hello"), [reply(YUAN)]);
        // What a suite of checks does: the same host, a port for each message.
        for port in 50_000..50_020 {
            let from = std::format!("192.0.2.7:{port}");
            assert_eq!(say(8, &from, "hello"), [reply(&from)]);
        }
        assert_eq!(say(5_000_006, EGG, "hello??"), []);
        assert_eq!(say(5_000_007, EGG, "hello???"), [reply(EGG)]);
        assert_eq!(say(9_000_000, STRANGER, "我不在"), []);
        let counters = chat.counters();
        assert_eq!((counters.auto_replies, counters.unanswered), (23, 3));
    }

    #[test]
    fn an_automatic_reply_is_no_part_of_the_conversation() {
        let mut book = ContactBook::<1>::new();
        let egg = book.add("egg", addr(EGG)).unwrap();
        let config = Config {
            auto_reply: Some("away".try_into().unwrap()),
            ..Config::default()
        };
        let mut chat = Chat::<1, 1>::new(book, config);
        chat.handle_datagram(at(0), addr(EGG), b"hello").unwrap();
        assert_eq!(drain(&mut chat, at(0)).len(), 1);
        assert_eq!((chat.conversation(egg).sent, chat.counters().sent), (0, 0));
        // That it does not arrive is no news: the sender may have left, or been forged.
        events(&mut chat);
        chat.handle_unreachable(at(0), addr(EGG), Unreachable::Refused);
        assert_eq!(events(&mut chat), []);
    }

    #[test]
    fn an_attended_station_answers_nothing() {
        for reply in [None, Some(String::new())] {
            let config = Config {
                auto_reply: reply,
                ..Config::default()
            };
            let mut chat = Chat::<1, 1>::new(ContactBook::new(), config);
            chat.handle_datagram(at(0), addr(EGG), b"hello").unwrap();
            assert_eq!(drain(&mut chat, at(0)), []);
            assert_eq!(chat.counters().unanswered, 0);
        }
    }

    /// The datagrams that two unattended stations exchange in 1,000 seconds, `delay` apart from each other,
    /// after the first has written to the second.
    fn chatter(replies: [&str; 2], delay: Duration) -> usize {
        let addrs = [addr(EGG), addr(YUAN)];
        let mut stations = replies.map(unattended);
        let to_second = Peer::Stranger(addrs[1]);
        stations[0].send_message(at(0), to_second, "hello").unwrap();
        let mut on_the_way: VecDeque<(Instant, usize, Vec<u8>)> = VecDeque::new();
        let mut now = Instant::ZERO;
        let mut count = 0;
        loop {
            for (from, station) in stations.iter_mut().enumerate() {
                events(station);
                for (to, datagram) in drain(station, Now::monotonic(now)) {
                    assert_eq!(to, addrs[1 - from]);
                    on_the_way.push_back((now + delay, 1 - from, datagram));
                    count += 1;
                }
            }
            match on_the_way.pop_front() {
                Some((arrival, to, datagram))
                    if arrival <= Instant::from_secs(1_000) && count < ENDLESS =>
                {
                    now = arrival;
                    stations[to]
                        .handle_datagram(Now::monotonic(now), addrs[1 - to], &datagram)
                        .unwrap();
                }
                _ => return count,
            }
        }
    }

    #[test]
    fn two_unattended_stations_do_not_keep_each_other_talking() {
        for micros in [0, 1, 1_000, 2_499_999] {
            let delay = Duration::from_micros(micros);
            // The greeting, the second's reply, and (unless it knows it for its own) the first's to that.
            assert_eq!(chatter(["away", "out"], delay), 3);
            assert_eq!(chatter(["away", "away"], delay), 2);
        }
        // Slower than the cooldown they go on, but at the pace of the cooldown.
        assert_eq!(
            chatter(["away", "out"], Duration::from_micros(2_500_000)),
            401
        );
    }

    /// A transport with arrivals to hand out, which cannot send to some.
    struct Line {
        arrivals: VecDeque<(SocketAddr, Vec<u8>)>,
        lent: Vec<u8>,
        unreachable: Option<SocketAddr>,
    }

    impl DatagramTransport for Line {
        type Error = core::convert::Infallible;

        fn recv(&mut self) -> Result<Option<Arrival<'_>>, Self::Error> {
            let Some((from, payload)) = self.arrivals.pop_front() else {
                return Ok(None);
            };
            self.lent = payload;
            let payload = &self.lent;
            Ok(Some(Arrival::Datagram { from, payload }))
        }

        fn can_send(&mut self, _: usize) -> bool {
            true
        }

        fn send(&mut self, to: SocketAddr, _: &[u8]) -> Result<Sent, Self::Error> {
            Ok(if self.unreachable == Some(to) {
                Sent::Unreachable(Unreachable::NoRoute)
            } else {
                Sent::Queued
            })
        }
    }

    #[test]
    fn with_a_queue_as_long_as_the_budget_nothing_is_lost() {
        let (mut chat, egg, yuan) = station();
        let mut line = Line {
            arrivals: (0..100)
                .map(|n| (addr(YUAN), n.to_string().into_bytes()))
                .collect(),
            lent: Vec::new(),
            unreachable: Some(addr(EGG)),
        };
        let mut seen = Vec::new();
        let mut turns = 0;
        loop {
            for _ in 0..4 {
                chat.send_message(at(turns), egg, "are you there?").unwrap();
            }
            let pumped = pump(&mut chat, &mut line, at(turns), &mut [0; MAX_TEXT], 4);
            let Ok(Pumped {
                rejected: 0,
                undeliverable: 4,
                more,
                ..
            }) = pumped
            else {
                panic!("{pumped:?}");
            };
            seen.extend(events(&mut chat));
            turns += 1;
            if !more {
                break;
            }
        }
        let (messages, undelivered): (Vec<_>, Vec<_>) = seen
            .into_iter()
            .partition(|event| matches!(event, Event::Message { .. }));
        let expected: Vec<_> = (0..100)
            .map(|n: i32| message(yuan, YUAN, &n.to_string()))
            .collect();
        assert_eq!(messages, expected);
        assert_eq!(undelivered.len() as u64, 4 * turns);
        assert_eq!(chat.counters().untold, 0);
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn sizes_are_as_documented() {
        use core::mem::size_of;
        assert_eq!(size_of::<Chat<4, 8>>(), 19_672);
        assert_eq!(size_of::<Chat<4, 2>>(), 6_568);
        assert_eq!(size_of::<Chat<16, 32>>(), 16 * 140 + 32 * 2_184 + 1_640);
        assert_eq!(size_of::<Conversation>(), 72);
        assert_eq!(size_of::<Message>(), 1_064);
        assert_eq!(size_of::<AutoReply>(), 1_424);
        assert_eq!(size_of::<ContactBook<8>>(), 8 * 68 + 8);
    }
}
