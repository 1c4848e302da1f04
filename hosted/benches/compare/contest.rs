//! A case: its contenders, each in its turn, round after round.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use smoltalk_hosted::error::Error;

use crate::child::{Running, own_cpu};
use crate::options::Options;
use crate::place::Cpus;

/// What all cases share.
#[derive(Debug)]
pub struct Bench {
    pub options: Options,
    pub cpus: Cpus,
}

/// One case.
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    /// What is counted: replies, connections.
    pub unit: &'static str,
    /// Figures to show, each as a ratio to the limit too.
    pub columns: &'static [Metric],
    pub run: fn(&Bench, &'static Case) -> Result<CaseResult, Error>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Units in a second.
    Rate,
    /// The server's CPU time for a unit, in microseconds.
    Cpu,
    /// The time from a request to its answer, in microseconds: what half of them take at most, and 99 of 100.
    P50,
    P99,
    /// Instructions of the processor for a unit.
    Instructions,
    /// Resident memory, in bytes: before there is any connection, and with all of them.
    Empty,
    Full,
    /// What it grew by, in bytes for each connection.
    PerConnection,
}

/// The part that a contender has in its case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What all others of its group are compared with.
    Limit,
    /// One to be compared.
    Peer,
    /// smoltalk, which has goals.
    Smoltalk,
}

/// What smoltalk is to reach, as a ratio to the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtLeast(Metric, f64),
    AtMost(Metric, f64),
    /// Nobody is turned away, and nothing lost.
    NoneRefused,
}

/// A server and what loads it.
pub struct Contender {
    pub name: String,
    pub role: Role,
    /// Each group has a limit of its own.
    pub group: usize,
    pub goals: &'static [Goal],
    pub server: Running,
    pub load: Box<dyn Load>,
    /// It never sleeps, so it must be stopped while it is not its turn.
    pub spins: bool,
}

impl Contender {
    /// One in the first group that sleeps when there is nothing to do. `goals` are smoltalk's alone.
    pub fn new(
        name: &str,
        role: Role,
        goals: &'static [Goal],
        server: Running,
        load: impl Load + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            role,
            group: 0,
            goals: if role == Role::Smoltalk { goals } else { &[] },
            server,
            load: Box::new(load),
            spins: false,
        }
    }
}

/// Clients of one server.
pub trait Load {
    /// Loads the server for about `time`, and returns when everything is answered or given up.
    fn run(&mut self, time: Duration) -> io::Result<Tally>;

    /// How many of the case's units each counts for that is tallied.
    fn counts(&self) -> f64 {
        1.0
    }
}

/// What a load counted in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// What was answered, all in all.
    pub units: u64,
    /// How long it took, and what was answered in that time: without the last ones, during which the load fades.
    pub time: Duration,
    pub units_in_time: u64,
    /// Requests that were not answered, and connections that did not end.
    pub lost: u64,
    /// Connections that were refused or reset.
    pub refused: u64,
    /// [`Metric::P50`] and [`Metric::P99`], where each answer is waited for.
    pub latency: Option<(f64, f64)>,
}

/// One turn of one contender.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    values: Vec<(Metric, f64)>,
    /// How much of a CPU the load took, and the server, where both ran in turns.
    pub busy: Option<Busy>,
    pub lost: u64,
    pub refused: u64,
}

/// Shares of a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    pub server: f64,
    pub load: f64,
}

impl Sample {
    pub fn new(values: &[(Metric, f64)]) -> Self {
        Self {
            values: values.to_vec(),
            ..Self::default()
        }
    }

    /// Not a number, where it was not measured.
    pub fn get(&self, metric: Metric) -> f64 {
        let value = self.values.iter().find(|(of, _)| *of == metric);
        value.map_or(f64::NAN, |(_, value)| *value)
    }
}

/// All turns of a case.
pub struct CaseResult {
    pub case: &'static Case,
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// All turns of a contender: one sample for each round.
pub struct Row {
    pub name: String,
    pub role: Role,
    pub group: usize,
    pub goals: &'static [Goal],
    pub samples: Vec<Sample>,
}

/// Before each turn, the contender's caches and branch predictors become its own.
const WARM_UP: Duration = Duration::from_millis(50);
/// After each turn, the server falls asleep: only then its time is counted to the end.
const REST: Duration = Duration::from_millis(3);

impl Bench {
    pub fn new(options: Options, cpus: Cpus) -> Self {
        Self { options, cpus }
    }

    /// Whether a contender is asked for.
    pub fn wants(&self, name: &str) -> bool {
        let only = &self.options.only;
        only.is_empty() || only.iter().any(|text| name.contains(text.as_str()))
    }

    /// Runs `contenders`, the limit among them, in turns.
    pub fn contest(
        &self,
        case: &'static Case,
        contenders: Vec<Contender>,
        notes: Vec<String>,
    ) -> Result<CaseResult, Error> {
        self.contest_then(case, contenders, notes, Vec::new)
    }

    /// The same, and asks `after` for more notes while the servers are still there.
    pub fn contest_then(
        &self,
        case: &'static Case,
        mut contenders: Vec<Contender>,
        mut notes: Vec<String>,
        after: impl FnOnce() -> Vec<String>,
    ) -> Result<CaseResult, Error> {
        contenders.sort_by_key(|contender| (contender.group, contender.role as u8));
        let mut rows: Vec<Row> = contenders
            .iter()
            .map(|contender| Row {
                name: contender.name.clone(),
                role: contender.role,
                group: contender.group,
                goals: contender.goals,
                samples: Vec::new(),
            })
            .collect();
        for contender in contenders.iter().filter(|contender| contender.spins) {
            contender.server.pause();
        }
        let count = contenders.len();
        let mut quiet = Quiet::begin(self.cpus);
        for round in 0..self.options.rounds() as usize {
            for turn in 0..count {
                // Nobody is always next to the same one.
                let index = (turn + round) % count;
                let (sample, spent) = self.turn(case, &mut contenders[index])?;
                quiet.ours(spent);
                rows[index].samples.push(sample);
            }
        }
        notes.extend(quiet.end());
        notes.extend(after());
        Ok(CaseResult { case, rows, notes })
    }

    /// One turn, and the CPU time of all that belongs to it.
    fn turn(&self, case: &Case, contender: &mut Contender) -> Result<(Sample, Duration), Error> {
        let Contender {
            name, server, load, ..
        } = contender;
        let failed =
            |error: io::Error| Error::io(format_args!("{}: load on {name}", case.name), &error);
        if contender.spins {
            server.go_on();
        }
        let (server_first, own_first) = (server.cpu()?, own_cpu());
        load.run(WARM_UP).map_err(failed)?;
        sleep(REST);
        let (server_before, own_before) = (server.cpu()?, own_cpu());
        let tally = load.run(self.options.slice()).map_err(failed)?;
        let own = own_cpu() - own_before;
        // The time of one that spins goes on as long as it may.
        let spinning = if contender.spins {
            server.pause();
            server.cpu()?
        } else {
            Duration::ZERO
        };
        sleep(REST);
        let end = server.cpu()?;
        let spent = if contender.spins { spinning } else { end } - server_before;
        if tally.units == 0 && contender.role == Role::Limit {
            return Err(Error::failed(format!(
                "{}: {name} answered nothing (lost {}, refused {})",
                case.name, tally.lost, tally.refused
            )));
        }
        let seconds = tally.time.as_secs_f64();
        let units = |count: u64| count as f64 * load.counts();
        let mut values = vec![
            (Metric::Rate, units(tally.units_in_time) / seconds),
            (Metric::Cpu, spent.as_secs_f64() * 1e6 / units(tally.units)),
        ];
        if let Some((p50, p99)) = tally.latency {
            values.extend([(Metric::P50, p50), (Metric::P99, p99)]);
        }
        let sample = Sample {
            values,
            busy: Some(Busy {
                server: spent.as_secs_f64() / seconds,
                load: own.as_secs_f64() / seconds,
            }),
            lost: tally.lost,
            refused: tally.refused,
        };
        let ours = (end - server_first) + (own_cpu() - own_first);
        Ok((sample, ours))
    }
}

/// Watches over how much of our CPUs others take meanwhile: they make every figure worse, and some more than others.
struct Quiet {
    cpus: Cpus,
    busy: Option<Duration>,
    ours: Duration,
    start: Instant,
}

impl Quiet {
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn begin(cpus: Cpus) -> Self {
        Self {
            cpus,
            busy: cpus.busy(),
            ours: Duration::ZERO,
            start: Instant::now(),
        }
    }

    fn ours(&mut self, spent: Duration) {
        self.ours += spent;
    }

    /// What is to be said of it.
    fn end(&self) -> Option<String> {
        let busy = self.cpus.busy()?.checked_sub(self.busy?)?;
        let both = 2.0 * self.start.elapsed().as_secs_f64();
        let others = busy.as_secs_f64() - self.ours.as_secs_f64();
        let share = 100.0 * others / both;
        (share >= 5.0).then(|| {
            format!("the machine was not quiet: others took {share:.0} % of the two CPUs meanwhile")
        })
    }
}
