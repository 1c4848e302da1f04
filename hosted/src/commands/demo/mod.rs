//! `smoltalk demo`: every service on every stack, as the script has it, and a chat between the tutorial's people.

mod client;
mod host;
mod link;
mod tap;

use std::fmt;
use std::iter::repeat;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use smoltalk::chat::{self, Chat, ContactBook, Event, Peer, SendError};
use smoltalk::sim::script::{EXCHANGES, Exchange, Service};
use smoltalk::text::Shown;
use smoltalk::{Duration, Instant, Now};
use smoltalk_hosted::error::Error;

use crate::commands::count;
use crate::output::{BOLD, DIM, GREEN, MESSAGE, Output, RED, Record, Said, YELLOW};

pub use tap::inside;

/// One exchange as it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    /// Its place in the script.
    exchange: usize,
    client: SocketAddr,
    server: SocketAddr,
    answers: Vec<Vec<u8>>,
    /// What went wrong on the way, if the client noticed.
    failure: Option<String>,
}

impl Done {
    fn script(&self) -> Option<&'static Exchange> {
        EXCHANGES.get(self.exchange)
    }

    /// What is wrong with it, if something is.
    fn fault(&self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        let expected = self.script().map_or(&[][..], |exchange| exchange.answers);
        (self.answers != expected).then(|| {
            let expected: Vec<_> = expected
                .iter()
                .map(|answer| Shown(answer).to_string())
                .collect();
            format!("the answer should have been {}", expected.join(", "))
        })
    }
}

/// One message of the talk as it went.
#[derive(Debug)]
struct Spoken {
    from: &'static str,
    to: &'static str,
    from_addr: SocketAddr,
    to_addr: SocketAddr,
    text: &'static str,
    /// What is wrong with it, if something is.
    fault: Option<String>,
}

/// All that was done on one stack.
#[derive(Debug, Default)]
struct Tour {
    done: Vec<Done>,
    spoken: Vec<Spoken>,
    /// What could not be done, and why that is no failure.
    not_run: Vec<String>,
    /// Why nothing came of it that should have.
    broken: Option<String>,
}

/// A stack of the tour.
struct Stack {
    /// A word for the table.
    name: &'static str,
    about: &'static str,
}

const STACKS: [Stack; 3] = [
    Stack {
        name: "host sockets",
        about: "host sockets: this machine's own TCP/IP, on its loopback",
    },
    Stack {
        name: "smoltcp in memory",
        about: "smoltcp in memory: two stacks, an Ethernet link between them, virtual time",
    },
    Stack {
        name: "smoltcp on TAP",
        about: "smoltcp on TAP: the kernel's TCP/IP talks to smoltcp, in a network of their own",
    },
];

/// Takes the tour. Each exchange may take `timeout`.
///
/// # Errors
/// An exchange went wrong, after all were shown.
pub fn demo(output: &Output, timeout: Duration) -> Result<(), Error> {
    let mut tours = Vec::new();
    for (index, stack) in STACKS.iter().enumerate() {
        if !output.json {
            output.text(&format!("\n{}\n", output.styled(BOLD, stack.about)))?;
        }
        let tour = match index {
            0 => host::tour(timeout)?,
            1 => link::tour(timeout)?,
            _ => tap::tour(timeout),
        };
        show(output, stack, &tour)?;
        tours.push(tour);
    }
    show_table(output, &tours)?;
    match tours.iter().map(Tour::failed).sum::<usize>() {
        0 => Ok(()),
        failed => Err(Error::failed(format!(
            "{} went wrong",
            count(failed as u64, "exchange")
        ))),
    }
}

impl Tour {
    fn failed(&self) -> usize {
        let done = self.done.iter().filter(|done| done.fault().is_some());
        let spoken = self.spoken.iter().filter(|spoken| spoken.fault.is_some());
        done.count() + spoken.count() + usize::from(self.broken.is_some())
    }

    /// How many exchanges with `service` were right, and how many there were.
    fn score(&self, service: Service) -> (usize, usize) {
        let mut faults: Vec<_> = self
            .done
            .iter()
            .filter(|done| {
                done.script()
                    .is_some_and(|script| script.service == service)
            })
            .map(|done| done.fault().is_some())
            .collect();
        if service == Service::Chat {
            faults.extend(self.spoken.iter().map(|spoken| spoken.fault.is_some()));
        }
        (faults.iter().filter(|fault| !**fault).count(), faults.len())
    }
}

/// Shows the first exchange with each service, and all that went wrong.
fn show(output: &Output, stack: &Stack, tour: &Tour) -> Result<(), Error> {
    if output.json {
        return show_as_json(output, stack, tour);
    }
    let indented = |style, what: &dyn fmt::Display| {
        output.text(&format!("  {}\n", output.styled(style, what)))
    };
    let mut shown = Vec::new();
    let mut unshown: u32 = 0;
    for done in &tour.done {
        let Some(script) = done.script() else {
            continue;
        };
        let fault = done.fault();
        if fault.is_none() && !output.verbose && shown.contains(&script.service) {
            unshown += 1;
            continue;
        }
        shown.push(script.service);
        if output.verbose {
            indented(DIM, &script.name)?;
        }
        let mut label = label(script.service);
        for request in script.requests {
            output.text(&line(&label, done.client, done.server, request))?;
            label.clear();
        }
        for answer in &done.answers {
            output.text(&line(&label, done.server, done.client, answer))?;
            label.clear();
        }
        if let Some(fault) = fault {
            indented(RED, &format_args!("wrong: {}: {fault}", script.name))?;
        }
    }
    for spoken in &tour.spoken {
        output.text(&format!(
            "  {} {} > {} {}  {}\n",
            spoken.from,
            spoken.from_addr,
            spoken.to,
            spoken.to_addr,
            output.styled(MESSAGE, spoken.text)
        ))?;
        if let Some(fault) = &spoken.fault {
            indented(RED, &format_args!("wrong: {fault}"))?;
        }
    }
    if unshown > 0 {
        let versions = match tour.done.iter().any(|done| done.server.is_ipv6()) {
            true => "over IPv4 and IPv6",
            false => "over IPv4",
        };
        indented(
            DIM,
            &format_args!("and {unshown} more {versions}, all of them right (-v shows them)"),
        )?;
    }
    if let Some(why) = &tour.broken {
        indented(RED, &format_args!("failed: {why}"))?;
    }
    for why in &tour.not_run {
        indented(YELLOW, &format_args!("not run: {why}"))?;
    }
    Ok(())
}

fn label(service: Service) -> String {
    format!("{} {}", service.name(), service.protocol())
}

/// One line of what was said, at most 80 columns wide: who, to whom, how many bytes, what.
fn line(label: &str, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> String {
    let mut line = format!("  {label:<12} {from} > {to} {} B ", bytes.len());
    let shown = Shown(bytes).to_string();
    let mut columns = 80_usize.saturating_sub(line.len());
    // What is not ASCII is taken to be two columns wide, as Chinese characters are.
    let width = |c: char| 1 + usize::from(!c.is_ascii());
    if shown.chars().map(width).sum::<usize>() <= columns {
        line.push_str(&shown);
    } else {
        columns = columns.saturating_sub(3);
        for c in shown.chars() {
            let Some(left) = columns.checked_sub(width(c)) else {
                break;
            };
            columns = left;
            line.push(c);
        }
        line.push_str("...");
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

fn show_as_json(output: &Output, stack: &Stack, tour: &Tour) -> Result<(), Error> {
    let stack = stack.name;
    for done in &tour.done {
        let Some(script) = done.script() else {
            continue;
        };
        let fault = done.fault();
        output.record(&Record::Exchange {
            stack,
            name: script.name,
            service: script.service.name(),
            transport: script.service.protocol(),
            client: done.client,
            server: done.server,
            requests: script
                .requests
                .iter()
                .map(|bytes| Said::new(bytes))
                .collect(),
            answers: done.answers.iter().map(|bytes| Said::new(bytes)).collect(),
            ok: fault.is_none(),
            why: fault.as_deref(),
        })?;
    }
    for spoken in &tour.spoken {
        output.record(&Record::Talk {
            stack,
            from: spoken.from,
            from_address: spoken.from_addr,
            to: spoken.to,
            to_address: spoken.to_addr,
            text: spoken.text,
            ok: spoken.fault.is_none(),
            why: spoken.fault.as_deref(),
        })?;
    }
    for (why, ok) in tour
        .not_run
        .iter()
        .zip(repeat(true))
        .chain(tour.broken.iter().zip(repeat(false)))
    {
        output.record(&Record::NotRun { stack, ok, why })?;
    }
    Ok(())
}

/// Each service on each stack.
fn show_table(output: &Output, tours: &[Tour]) -> Result<(), Error> {
    const COLUMN: usize = 20;
    let mut table = format!("\n  {:<14}", "");
    for stack in &STACKS {
        table += &format!("{:<COLUMN$}", stack.name);
    }
    let mut table = format!("{}\n", output.styled(BOLD, table.trim_end()));
    for service in Service::ALL {
        table += &format!("  {:<14}", label(service));
        for (stack, tour) in STACKS.iter().zip(tours) {
            let (right, of) = tour.score(service);
            if output.json {
                output.record(&Record::Summary {
                    stack: stack.name,
                    service: service.name(),
                    transport: service.protocol(),
                    right,
                    of,
                })?;
            }
            let (style, cell) = match (right, of) {
                (_, 0) if tour.broken.is_some() => (RED, "failed".into()),
                (_, 0) => (YELLOW, "not run".into()),
                _ if right == of => (GREEN, format!("ok, {of} of {of}")),
                _ => (RED, format!("failed, {right} of {of}")),
            };
            table += &output.styled(style, format_args!("{cell:<COLUMN$}"));
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    match output.json {
        true => Ok(()),
        false => output.text(&table),
    }
}

/// Two people of the tutorial, each with the tutorial's contact book, and what they say to each other.
struct Talk {
    /// Who speaks, and where.
    people: [(&'static str, SocketAddr); 2],
    chats: [Chat<4, 8>; 2],
    /// When what was said must have arrived.
    deadline: Instant,
    spoken: Vec<Spoken>,
}

impl Talk {
    const LINES: [&str; 2] = ["哪吒，你好！", "金老板，你也好！"];

    fn new(now: Now, addresses: [SocketAddr; 2], timeout: Duration) -> Self {
        let chat = |other| Chat::new(ContactBook::tutorial(other), chat::Config::default());
        let mut talk = Self {
            people: [("金老板", addresses[0]), ("哪吒", addresses[1])],
            chats: [chat(addresses[1]), chat(addresses[0])],
            deadline: now.monotonic + timeout,
            spoken: Vec::new(),
        };
        talk.say(now, 0);
        talk
    }

    fn is_over(&self) -> bool {
        self.spoken.len() >= Self::LINES.len()
            || self.spoken.iter().any(|spoken| spoken.fault.is_some())
    }

    /// Lets one write to the other.
    fn say(&mut self, now: Now, speaker: usize) {
        let (listener, _) = self.people[1 - speaker];
        let chat = &mut self.chats[speaker];
        let sent = chat
            .book()
            .find(listener)
            .ok_or(SendError::UnknownContact)
            .and_then(|id| chat.send_message(now, Peer::Contact(id), Self::LINES[speaker]));
        if let Err(error) = sent {
            self.note(speaker, Some(error.to_string()));
        }
    }

    /// Listens to what has come, and lets the other answer.
    fn listen(&mut self, now: Now) {
        for listener in 0..self.chats.len() {
            let speaker = 1 - listener;
            while let Some(event) = self.chats[listener].poll_event() {
                let (_, speaker_addr) = self.people[speaker];
                let fault = match event {
                    Event::Message { addr, text, .. }
                        if addr == speaker_addr && text == Self::LINES[speaker] =>
                    {
                        None
                    }
                    other => Some(format!("what came was {other:?}")),
                };
                self.note(speaker, fault);
                if !self.is_over() {
                    self.say(now, listener);
                }
            }
        }
        if !self.is_over() && now.monotonic >= self.deadline {
            self.note(
                self.spoken.len() % 2,
                Some("it did not arrive in time".into()),
            );
        }
    }

    fn note(&mut self, speaker: usize, fault: Option<String>) {
        let ((from, from_addr), (to, to_addr)) = (self.people[speaker], self.people[1 - speaker]);
        self.spoken.push(Spoken {
            from,
            to,
            from_addr,
            to_addr,
            text: Self::LINES[speaker],
            fault,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(answers: &[&[u8]]) -> Done {
        Done {
            exchange: 0,
            client: "127.0.0.1:40000".parse().unwrap(),
            server: "127.0.0.1:8898".parse().unwrap(),
            answers: answers.iter().map(|answer| answer.to_vec()).collect(),
            failure: None,
        }
    }

    #[test]
    fn only_the_expected_answer_is_right() {
        assert_eq!(done(&[b"hi"]).fault(), None);
        for answers in [&[b"ho".as_slice()][..], &[], &[b"hi", b"hi"]] {
            assert_eq!(
                done(answers).fault().as_deref(),
                Some("the answer should have been hi")
            );
        }
        let failed = Done {
            failure: Some("no connection".into()),
            ..done(&[b"hi"])
        };
        assert_eq!(failed.fault().as_deref(), Some("no connection"));
        let tour = Tour {
            done: vec![done(&[b"hi"]), failed],
            ..Tour::default()
        };
        assert_eq!(tour.score(Service::GreetingTcp), (1, 2));
        assert_eq!(tour.score(Service::Chat), (0, 0));
        assert_eq!(tour.failed(), 1);
    }

    #[test]
    fn a_line_has_80_columns_at_most() {
        let addr = "[fdaa::100]:49152".parse().unwrap();
        let long = line("greeting tcp", addr, addr, &[b'x'; 1024]);
        assert_eq!(long.trim_end().len(), 80, "{long}");
        assert!(long.ends_with("xxx...\n"));
        let chinese = line("chat udp", addr, addr, "好".repeat(30).as_bytes());
        assert!(chinese.trim_end().chars().count() < 80, "{chinese}");
        assert_eq!(
            line("time udp", addr, addr, b""),
            "  time udp     [fdaa::100]:49152 > [fdaa::100]:49152 0 B\n"
        );
    }
}
