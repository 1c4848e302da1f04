//! What the program writes: records on standard output, as text or as JSON, and notes on standard error.
//!
//! The one rule about bytes from peers: as text they go through [`Shown`], whether or not a terminal reads them,
//! because what is redirected today is shown with `cat` tomorrow. Who needs them exactly asks for JSON.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::{Serialize, Serializer};
use smoltalk::text::Shown;
use smoltalk::{Duration, Protocol};
use smoltalk_hosted::error::Error;

use crate::cli::{Common, When};

/// Bold white on blue, as the tutorial shows what others say.
pub const MESSAGE: &str = "\x1b[1;37;44m";
pub const BOLD: &str = "\x1b[1m";
pub const GREEN: &str = "\x1b[32m";
pub const RED: &str = "\x1b[31m";
pub const YELLOW: &str = "\x1b[33m";
pub const DIM: &str = "\x1b[2m";
pub const RESET: &str = "\x1b[0m";

/// How many lines may wait for standard output before those that peers cause are dropped.
const QUEUE: usize = 1024;

/// Where a command's lines go, and in which form.
#[derive(Debug)]
pub struct Output {
    pub json: bool,
    pub color: bool,
    pub verbose: bool,
    records_to: Stream,
    queue: Option<Queue>,
}

/// Where lines can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
    /// They are not wanted.
    Nowhere,
}

/// A thread that writes, so that the event loop never waits for a terminal that has been stopped.
#[derive(Debug)]
struct Queue {
    lines: Sender<Queued>,
    /// How many lines wait.
    waiting: Arc<AtomicUsize>,
    /// An answer to each [`Queued::Mark`], and the end when the thread ends.
    written: Mutex<Receiver<()>>,
    broken: Arc<AtomicBool>,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Queued {
    Line(Stream, String),
    /// To be answered when all that was queued before is written.
    Mark,
}

impl Output {
    /// Records go to `records_to`; colour and the rest are as `common` has it.
    pub fn new(common: &Common, records_to: Stream) -> Self {
        let color = match common.color.unwrap_or_default() {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
                records_to.is_terminal()
                    && set("NO_COLOR").is_none()
                    && set("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Self {
            json: common.json,
            color,
            verbose: common.verbose,
            records_to,
            queue: None,
        }
    }

    /// Lets a thread do the writing, so that nothing here waits for it. What peers cause is dropped (and counted)
    /// when nobody reads it.
    pub fn queued(mut self) -> Self {
        let (lines, queued) = channel();
        let (done, written) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let still_waiting = Arc::clone(&waiting);
        let broken = Arc::new(AtomicBool::new(false));
        let is_broken = Arc::clone(&broken);
        thread::spawn(move || {
            for queued in queued {
                match queued {
                    Queued::Line(to, line) => {
                        still_waiting.fetch_sub(1, Ordering::Relaxed);
                        if write(to, &line).is_err() && to == Stream::Out {
                            is_broken.store(true, Ordering::Relaxed);
                        }
                    }
                    Queued::Mark => {
                        let _ = done.send(());
                    }
                }
            }
        });
        self.queue = Some(Queue {
            lines,
            waiting,
            written: Mutex::new(written),
            broken,
            dropped: AtomicU64::new(0),
        });
        self
    }

    /// Writes `record`.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn record(&self, record: &Record<'_>) -> Result<(), Error> {
        self.put(self.records_to, self.format(record), true)
    }

    /// Writes a record that a peer caused: with a queue it is dropped when that is full.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn record_from_peer(&self, record: &Record<'_>) -> Result<(), Error> {
        self.put(self.records_to, self.format(record), false)
    }

    /// Tells the person at the terminal something that is no result.
    pub fn note(&self, what: impl fmt::Display) {
        // There is nobody left to tell that standard error is gone.
        let _ = self.put(Stream::Err, line(what), false);
    }

    /// Asks the person at the terminal for a line, without ending this one. `what` must be safe to show.
    pub fn prompt(&self, what: impl fmt::Display) {
        // As above.
        let _ = write!(io::stderr().lock(), "{what}");
    }

    /// The same, if the person wants to know it all.
    pub fn detail(&self, what: impl fmt::Display) {
        if self.verbose {
            self.note(what);
        }
    }

    /// Writes `text` as it is, on the stream of the records.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn text(&self, text: &str) -> Result<(), Error> {
        self.put(self.records_to, text.to_owned(), true)
    }

    /// `text` in `style` if colour is on.
    pub fn styled(&self, style: &str, text: impl fmt::Display) -> String {
        if self.color {
            format!("{style}{text}{RESET}")
        } else {
            text.to_string()
        }
    }

    /// Waits until all is written that was queued, but not for ever.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn flush(&self, at_most: Duration) -> Result<(), Error> {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        // The thread ends only after this sender does.
        let _ = queue.lines.send(Queued::Mark);
        let written = queue.written.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = written.recv_timeout(at_most);
        check(&queue.broken)
    }

    /// The same at the end: a stopped terminal must not keep a server.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn finish(self, at_most: Duration) -> Result<(), Error> {
        let Some(queue) = self.queue else {
            return Ok(());
        };
        let dropped = queue.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            let line = format!("smoltalk: {dropped} lines were dropped because nobody read them\n");
            let _ = queue.lines.send(Queued::Line(Stream::Err, line));
        }
        let Queue {
            lines,
            written,
            broken,
            ..
        } = queue;
        drop(lines);
        let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Until the thread has ended, or no word of it has come in time.
        while written.recv_timeout(at_most).is_ok() {}
        check(&broken)
    }

    fn put(&self, to: Stream, line: String, must: bool) -> Result<(), Error> {
        let Some(queue) = &self.queue else {
            return write(to, &line)
                .map_err(|error| unwritable(&smoltalk_hosted::error::reason(&error)));
        };
        if must || queue.waiting.load(Ordering::Relaxed) < QUEUE {
            queue.waiting.fetch_add(1, Ordering::Relaxed);
            // The thread ends only after this sender does.
            let _ = queue.lines.send(Queued::Line(to, line));
        } else {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
        check(&queue.broken)
    }

    fn format(&self, record: &Record<'_>) -> String {
        let mut line = if self.json {
            // The records have no map with keys other than texts, which alone could fail.
            ascii_where_unsafe(&serde_json::to_string(record).unwrap_or_default())
        } else {
            record.text(self.color)
        };
        line.push('\n');
        line
    }
}

/// `smoltalk: what failed: why; what to do`, as a line on standard error. Whatever names there are in it, of hosts
/// and of files, nothing in it is a command to a terminal.
pub fn line(what: impl fmt::Display) -> String {
    let text = what.to_string().replace('\n', "; ");
    format!("smoltalk: {}\n", Shown(text.as_bytes()))
}

impl Stream {
    fn is_terminal(self) -> bool {
        match self {
            Self::Out => io::stdout().is_terminal(),
            Self::Err => io::stderr().is_terminal(),
            Self::Nowhere => false,
        }
    }
}

/// Whether standard output is still read.
fn check(broken: &AtomicBool) -> Result<(), Error> {
    if broken.load(Ordering::Relaxed) {
        return Err(unwritable("nobody reads it any more"));
    }
    Ok(())
}

fn unwritable(why: &str) -> Error {
    Error::failed(format!("cannot write to standard output: {why}"))
}

fn write(to: Stream, line: &str) -> io::Result<()> {
    match to {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(line.as_bytes())?;
            out.flush()
        }
        Stream::Err => io::stderr().lock().write_all(line.as_bytes()),
        Stream::Nowhere => Ok(()),
    }
}

/// JSON in which no character stands raw that [`Shown`] would not show raw. Such ones are only in strings, where
/// `\u` escapes mean the same.
fn ascii_where_unsafe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    let mut utf8 = [0; 4];
    for c in json.chars() {
        let encoded = c.encode_utf8(&mut utf8);
        if Shown(encoded.as_bytes()).is_verbatim() {
            safe.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String does not fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        }
    }
    safe
}

/// One line of standard output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Record<'a> {
    /// A service is bound.
    Listening(At<'a>),
    /// All services are bound.
    Ready,
    /// What a service did until the end.
    Counters {
        #[serde(flatten)]
        at: At<'a>,
        #[serde(serialize_with = "as_map")]
        counters: &'a [(&'static str, u64)],
    },
    /// A chat message came.
    Message {
        /// The contact, if the sender is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<&'a str>,
        address: SocketAddr,
        text: &'a str,
    },
    /// A server answered.
    Answer {
        #[serde(flatten)]
        at: At<'a>,
        #[serde(flatten)]
        answer: Said<'a>,
        elapsed_ms: f64,
        requests: u32,
    },
    /// One exchange of the demo.
    Exchange {
        stack: &'a str,
        name: &'a str,
        service: &'a str,
        #[serde(serialize_with = "as_text")]
        transport: Protocol,
        client: SocketAddr,
        server: SocketAddr,
        requests: Vec<Said<'a>>,
        answers: Vec<Said<'a>>,
        ok: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    },
    /// One message between people of the demo.
    Talk {
        stack: &'a str,
        from: &'a str,
        from_address: SocketAddr,
        to: &'a str,
        to_address: SocketAddr,
        text: &'a str,
        ok: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    },
    /// What the demo could not do, and whether that is no failure.
    NotRun {
        stack: &'a str,
        ok: bool,
        why: &'a str,
    },
    /// How often a service was right on a stack of the demo.
    Summary {
        stack: &'a str,
        service: &'a str,
        #[serde(serialize_with = "as_text")]
        transport: Protocol,
        right: usize,
        of: usize,
    },
}

/// A service and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct At<'a> {
    pub service: &'a str,
    #[serde(serialize_with = "as_text")]
    pub transport: Protocol,
    pub address: SocketAddr,
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.service, self.transport, self.address)
    }
}

/// What a peer said: as text where it is text, as bytes where it is not.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Said<'a> {
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<&'a [u8]>,
    #[serde(skip)]
    raw: &'a [u8],
}

impl<'a> Said<'a> {
    pub fn new(raw: &'a [u8]) -> Self {
        let text = std::str::from_utf8(raw).ok();
        Self {
            text,
            bytes: text.is_none().then_some(raw),
            raw,
        }
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_map<S: Serializer>(pairs: &&[(&str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

impl Record<'_> {
    /// The record for people, without the end of the line.
    fn text(&self, color: bool) -> String {
        match self {
            Self::Listening(at) => format!("listening {at}"),
            Self::Ready => "ready".into(),
            Self::Counters { at, counters } => counters
                .iter()
                .fold(format!("counters {at}"), |line, (name, value)| {
                    format!("{line} {name}={value}")
                }),
            Self::Message {
                from,
                address,
                text,
            } => {
                let from =
                    from.map_or(String::new(), |name| format!("{} ", Shown(name.as_bytes())));
                let text = Shown(text.as_bytes());
                let (on, off) = if color { (MESSAGE, RESET) } else { ("", "") };
                format!("message from {from}[{address}]: {on}{text}{off}")
            }
            Self::Answer { answer, .. } => Shown(answer.raw).to_string(),
            // The demo has its own way of showing them to people.
            Self::Exchange { .. }
            | Self::Talk { .. }
            | Self::NotRun { .. }
            | Self::Summary { .. } => String::new(),
        }
    }
}
