//! `smoltalk chat`: lines in, lines out.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use smoltalk::chat::{self, Chat, Config, ContactBook, Event, MAX_TEXT, Peer, SendError};
use smoltalk::text::Shown;
use smoltalk::{Duration, Instant, Now, Protocol};
use smoltalk_hosted::clock::Clock;
use smoltalk_hosted::error::{Error, Exit};
use smoltalk_hosted::network::{DatagramId, Io, Network, Waker};

use super::{CONTACTS, Job, MESSAGES, Stack, Traced, count, run};
use crate::cli::{Contact, Host, Place, Target};
use crate::output::{At, Output, Record};

/// How many lines may wait between standard input and the chat. A full queue holds up whoever writes them.
const LINES: usize = 64;

/// How long messages that the network does not take are waited for.
const STUCK: Duration = Duration::from_secs(5);

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    pub listen: Option<Place>,
    pub contacts: Vec<Contact>,
    pub name: Option<String>,
    /// How long to stay after the end of input, for those who have not answered yet.
    pub linger: Duration,
}

/// Chats until standard input ends.
pub fn chat(stack: &Stack, output: &Output, options: Options) -> Result<(), Error> {
    let book = stack.contact_book(&options.contacts)?;
    let current = match &options.name {
        None => None,
        Some(name) => Some(find(stack, &book, name)?),
    };
    let mut network = stack.open()?;
    let (id, local) = bind(&mut network, stack, output, options.listen)?;
    let at = at(local);
    let chat = Chat::new(book, Config::default());
    let mut session = Session {
        stack,
        output,
        id,
        local,
        chat: Box::new(Traced::new(chat, output, at.to_string())),
        current,
        lines: read_lines(network.waker()),
        waiting: None,
        line_number: 0,
        written: 0,
        unanswered: BTreeSet::new(),
        failures: 0,
        ended: false,
        linger: options.linger,
        last_progress: Instant::ZERO,
        is_interactive: io::stdin().is_terminal(),
        is_prompted: false,
    };
    session.welcome();
    run(&mut network, &Clock::system(), output, &mut session)?;
    match session.failures {
        0 => Ok(()),
        failures => Err(Error::failed(format!(
            "{} not sent or not delivered",
            match failures {
                1 => "1 line was".into(),
                failures => format!("{failures} lines were"),
            }
        ))),
    }
}

/// Shows a message that has come.
pub fn show_message<const N: usize>(
    output: &Output,
    book: &ContactBook<N>,
    from: Peer,
    address: SocketAddr,
    text: &str,
) -> Result<(), Error> {
    output.record_from_peer(&Record::Message {
        from: match from {
            Peer::Contact(id) => Some(book.name(id)),
            Peer::Stranger(_) => None,
        },
        address,
        text,
    })
}

/// Binds the address where messages come in, and says so.
fn bind(
    network: &mut Network,
    stack: &Stack,
    output: &Output,
    listen: Option<Place>,
) -> Result<(DatagramId, SocketAddr), Error> {
    let bind = [stack.default_bind()];
    let Some(&address) = Place::addresses(listen, &bind, chat::PORT).first() else {
        return Err(Error::usage("a chat must listen somewhere")
            .with_hint("`--listen 127.0.0.1:0` takes any port that is free"));
    };
    let id = network.bind_datagrams(address, "chat").map_err(|error| {
        if error.exit() != Exit::InUse {
            return error;
        }
        let any = SocketAddr::new(address.ip(), 0);
        error.with_hint(format!("`--listen {any}` takes any port that is free"))
    })?;
    network.watch_unreachable(id)?;
    let at = at(network.local_addr(id));
    if output.json {
        output.record(&Record::Listening(at))?;
    } else {
        output.note(format_args!("listening {at}"));
    }
    Ok((id, at.address))
}

fn at(address: SocketAddr) -> At<'static> {
    At {
        service: "chat",
        transport: Protocol::Udp,
        address,
    }
}

/// Who is meant by `text`: a contact by name, or anybody by address.
fn find(stack: &Stack, book: &ContactBook<CONTACTS>, text: &str) -> Result<Peer, Error> {
    if let Some(id) = book.find(text) {
        return Ok(Peer::Contact(id));
    }
    // A lone word is a name, and looking it up on the network as that of a host would only puzzle people.
    let target = text.parse::<Target>().ok();
    if let Some(target) = target.filter(|t| t.port.is_some() || matches!(t.host, Host::Ip(_))) {
        let addresses = stack.resolve(&target, chat::PORT)?;
        if let Some(addr) = addresses.first() {
            return Ok(Peer::Stranger(*addr));
        }
    }
    Err(Error::failed(format!(
        "unknown contact `{}`: {}",
        Shown(text.as_bytes()),
        known(book)
    ))
    .with_hint("give another name, or an address as HOST:PORT"))
}

fn known(book: &ContactBook<CONTACTS>) -> String {
    let names: Vec<_> = book.iter().map(|(_, name, _)| name).collect();
    match names.as_slice() {
        [] => "there are no contacts".into(),
        names => format!("the contacts are {}", names.join(", ")),
    }
}

/// What comes out of standard input.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Line(String),
    /// A line of so many bytes.
    TooLong(usize),
    NotUtf8,
    End,
}

/// Reads standard input in a thread of its own, as that alone can wait.
fn read_lines(waker: Waker) -> Receiver<Input> {
    let (lines, queue) = sync_channel(LINES);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let input = read_line(&mut stdin);
            let is_end = input == Input::End;
            // The chat is over when nobody takes the lines any more.
            let is_over = lines.send(input).is_err();
            waker.wake();
            if is_end || is_over {
                break;
            }
        }
    });
    queue
}

/// Reads one line, and keeps no more of it than a message may have. An error is the end.
fn read_line(reader: &mut impl BufRead) -> Input {
    let mut line = Vec::new();
    let mut len = 0;
    loop {
        let buffered = match reader.fill_buf() {
            Ok(buffered) => buffered,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Input::End,
        };
        let end = buffered.iter().position(|byte| *byte == b'\n');
        let part = &buffered[..end.unwrap_or(buffered.len())];
        if part.is_empty() && end.is_none() && len == 0 {
            return Input::End;
        }
        // With one byte to spare, for the carriage return of a line from elsewhere.
        let room = (MAX_TEXT + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        len += part.len();
        let is_last = end.is_some() || part.is_empty();
        let consumed = part.len() + usize::from(end.is_some());
        reader.consume(consumed);
        if is_last {
            break;
        }
    }
    if line.len() == len && line.last() == Some(&b'\r') {
        line.pop();
        len -= 1;
    }
    if len > MAX_TEXT {
        return Input::TooLong(len);
    }
    String::from_utf8(line).map_or(Input::NotUtf8, Input::Line)
}

/// A chat in progress.
struct Session<'s, 'o> {
    stack: &'s Stack,
    output: &'o Output,
    id: DatagramId,
    local: SocketAddr,
    chat: Box<Traced<'o, Chat<CONTACTS, MESSAGES>>>,
    /// Who is being written to.
    current: Option<Peer>,
    lines: Receiver<Input>,
    /// A message that found the queue full.
    waiting: Option<String>,
    line_number: u64,
    /// Messages that the chats took, to be sent.
    written: u64,
    /// Who was written to and has not answered.
    unanswered: BTreeSet<SocketAddr>,
    /// Lines that were lost, in whatever way.
    failures: u64,
    /// Standard input is over.
    ended: bool,
    linger: Duration,
    /// When a line was read or a message sent last.
    last_progress: Instant,
    is_interactive: bool,
    is_prompted: bool,
}

impl Session<'_, '_> {
    fn welcome(&self) {
        if self.is_interactive {
            self.output.note(format_args!(
                "{}; `q` leaves one, control-D ends",
                known(self.book())
            ));
        }
    }

    /// Asks for the next line, if somebody is there to be asked.
    fn prompt(&mut self) {
        if self.is_interactive && !self.ended && !std::mem::replace(&mut self.is_prompted, true) {
            match self.current {
                None => eprint!("to whom? "),
                Some(peer) => eprint!("{}> ", self.name(peer)),
            }
        }
    }

    /// Begins a new line, if a question stands on this one.
    fn break_prompt(&mut self) {
        if std::mem::take(&mut self.is_prompted) {
            eprintln!();
        }
    }

    fn book(&self) -> &ContactBook<CONTACTS> {
        self.chat.inner.book()
    }

    fn name(&self, peer: Peer) -> String {
        match peer {
            Peer::Contact(id) => self.book().name(id).to_owned(),
            Peer::Stranger(addr) => addr.to_string(),
        }
    }

    fn address(&self, peer: Peer) -> SocketAddr {
        match peer {
            Peer::Contact(id) => self.book().addr(id),
            Peer::Stranger(addr) => addr,
        }
    }

    /// A line that will not arrive.
    fn fail(&mut self, why: impl std::fmt::Display) {
        self.break_prompt();
        self.failures += 1;
        self.output.note(why);
    }

    fn fail_line(&mut self, why: impl std::fmt::Display) {
        let line = self.line_number;
        self.fail(format_args!("line {line}: not sent: {why}"));
    }

    /// Takes lines until there is none, or the queue is full.
    fn take_lines(&mut self, now: Now) {
        loop {
            if let Some(text) = self.waiting.take()
                && !self.write(now, text)
            {
                return;
            }
            match self.lines.try_recv() {
                Ok(input) => {
                    if input == Input::End {
                        self.break_prompt();
                    }
                    self.is_prompted = false;
                    self.last_progress = now.monotonic;
                    self.line_number += 1;
                    match input {
                        Input::Line(line) => self.take_line(line),
                        Input::TooLong(len) => self.fail_line(format_args!(
                            "it has {len} bytes, and a message at most {MAX_TEXT}"
                        )),
                        Input::NotUtf8 => self.fail_line("it is not UTF-8"),
                        Input::End => self.ended = true,
                    }
                    if self.ended {
                        return;
                    }
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn take_line(&mut self, line: String) {
        let word = line.trim();
        match (self.current, word) {
            (_, "") => {}
            (Some(_), "q") => self.current = None,
            (None, "q") if self.book().find("q").is_none() => self.ended = true,
            (Some(_), _) => self.waiting = Some(line),
            (None, name) => match find(self.stack, self.book(), name) {
                Ok(peer) => {
                    self.current = Some(peer);
                    self.output
                        .detail(format_args!("writing to {}", self.name(peer)));
                }
                Err(error) => {
                    let why = error.to_string().replacen('\n', "; ", 1);
                    self.fail_line(why);
                }
            },
        }
    }

    /// Gives one message to the chat. False if it must wait.
    fn write(&mut self, now: Now, text: String) -> bool {
        let Some(peer) = self.current else {
            return true;
        };
        let address = self.address(peer);
        if !reaches(self.local, address) {
            let listen = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            self.fail_line(format_args!(
                "{address} is of another IP version than the address this chat listens on; choose `--listen \
                 {listen}:{}`",
                chat::PORT
            ));
            return true;
        }
        match self.chat.inner.send_message(now, peer, &text) {
            Ok(()) => {
                self.written += 1;
                self.unanswered.insert(address);
            }
            Err(SendError::QueueFull) => {
                self.waiting = Some(text);
                return false;
            }
            Err(error) => self.fail_line(error),
        }
        true
    }

    /// Shows what has come.
    fn show_events(&mut self) -> Result<(), Error> {
        while let Some(event) = self.chat.inner.poll_event() {
            self.break_prompt();
            match event {
                Event::Message { from, addr, text } => {
                    self.unanswered.remove(&addr);
                    show_message(self.output, self.book(), from, addr, &text)?;
                }
                Event::Undelivered { to, addr, why } => {
                    self.unanswered.remove(&addr);
                    let hint = hint(self.local.ip(), addr.ip());
                    self.fail(format_args!(
                        "message to {} [{addr}] not delivered: {why}{hint}",
                        self.name(to)
                    ));
                }
            }
        }
        Ok(())
    }

    fn sent(&self) -> u64 {
        self.chat.inner.counters().sent
    }
}

/// Whether a socket at `local` is of the IP version of `peer`.
fn reaches(local: SocketAddr, peer: SocketAddr) -> bool {
    // IPv6's unspecified address stands for IPv4's too.
    local.is_ipv4() == peer.is_ipv4() || (local.is_ipv6() && local.ip().is_unspecified())
}

/// What could be the reason why `peer` is not to be reached from `local`.
fn hint(local: IpAddr, peer: IpAddr) -> &'static str {
    if local.is_loopback() && !peer.is_loopback() {
        "; this chat listens on the loopback only, choose another `--listen`"
    } else {
        ""
    }
}

impl Job for Session<'_, '_> {
    fn serve(&mut self, io: &mut Io<'_>, now: Now) -> Result<Option<Instant>, Error> {
        self.take_lines(now);
        let before = self.sent();
        let mut deadline = io.datagrams(self.id, &mut *self.chat, now)?.deadline;
        if self.sent() > before {
            self.last_progress = now.monotonic;
            if self.waiting.is_some() {
                // There is room for it now.
                deadline = Some(now.monotonic);
            }
        }
        self.show_events()?;
        Ok(deadline)
    }

    fn after_turn(&mut self, now: Now) -> Result<ControlFlow<(), Option<Instant>>, Error> {
        self.prompt();
        let unsent = self.written - self.sent() + u64::from(self.waiting.is_some());
        let until = match (self.ended, unsent) {
            (false, _) => return Ok(ControlFlow::Continue(None)),
            (true, 0) if self.unanswered.is_empty() => return Ok(ControlFlow::Break(())),
            (true, 0) => self.last_progress + self.linger,
            (true, _) => self.last_progress + STUCK.max(self.linger),
        };
        if now.monotonic < until {
            return Ok(ControlFlow::Continue(Some(until)));
        }
        if unsent > 0 {
            self.failures += unsent;
            self.output.note(format_args!(
                "{} could not be sent: the network does not take them",
                count(unsent, "message")
            ));
        }
        Ok(ControlFlow::Break(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Vec<Input> {
        let mut inputs = Vec::new();
        loop {
            let input = read_line(&mut bytes);
            if input == Input::End {
                return inputs;
            }
            inputs.push(input);
        }
    }

    #[test]
    fn lines_are_read_whole_the_last_one_without_its_end_too() {
        let line = |text: &str| Input::Line(text.into());
        assert_eq!(
            read("a\r\n\n 你好 \nlast".as_bytes()),
            [line("a"), line(""), line(" 你好 "), line("last")]
        );
        assert_eq!(read(b"\xff\nb\n"), [Input::NotUtf8, line("b")]);
        assert_eq!(read(b""), []);
    }

    #[test]
    fn a_line_longer_than_a_message_is_counted_and_not_kept() {
        for (len, fits) in [(MAX_TEXT, true), (MAX_TEXT + 1, false), (1 << 20, false)] {
            for end in ["\n", "\r\n", ""] {
                let text = format!("{}{end}", "x".repeat(len));
                let inputs = read_in_pieces(text.as_bytes());
                match inputs.as_slice() {
                    [Input::Line(line)] => assert!(fits && line.len() == len),
                    // A carriage return counts where it is not known to be the line's end.
                    [Input::TooLong(found)] => assert!(!fits && *found >= len),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// As a pipe would have it.
    fn read_in_pieces(bytes: &[u8]) -> Vec<Input> {
        let mut reader = io::BufReader::with_capacity(7, bytes);
        let mut inputs = Vec::new();
        loop {
            match read_line(&mut reader) {
                Input::End => return inputs,
                input => inputs.push(input),
            }
        }
    }

    #[test]
    fn somebody_is_found_by_name_or_address() {
        let mut book = ContactBook::new();
        let egg = book.add("egg", "192.0.2.7:8081".parse().unwrap()).unwrap();
        assert_eq!(
            find(&Stack::Host, &book, "egg").unwrap(),
            Peer::Contact(egg)
        );
        for (text, addr) in [
            ("192.0.2.8", "192.0.2.8:8081"),
            ("192.0.2.8:9", "192.0.2.8:9"),
            ("[::1]:9", "[::1]:9"),
        ] {
            let stranger = Peer::Stranger(addr.parse().unwrap());
            assert_eq!(find(&Stack::Host, &book, text).unwrap(), stranger);
        }
        let error = find(&Stack::Host, &book, "eg\x1b[2J").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown contact `eg\\x1b[2J`: the contacts are egg\ngive another name, or an address as HOST:PORT"
        );
    }
}
