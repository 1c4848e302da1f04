//! A case: its contenders, each in its turn, round after round.

use std::io;
use std::thread::sleep;
use std::time::Duration;

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

/// What is measured in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Units in a second.
    Rate,
    /// The server's CPU time for a unit, in microseconds.
    Cpu,
}

/// The part that a contender has in its case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What all others are compared with.
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
    pub goals: &'static [Goal],
    pub server: Running,
    pub load: Box<dyn Load>,
    /// It never sleeps, so it must be stopped while it is not its turn.
    pub spins: bool,
}

/// Clients of one server.
pub trait Load {
    /// Loads the server for about `time`, and returns when everything is answered or given up.
    fn run(&mut self, time: Duration) -> io::Result<Tally>;
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
}

/// One turn of one contender.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub rate: f64,
    pub cpu: f64,
    /// How much of a CPU the load took, and the server.
    pub load_busy: f64,
    pub server_busy: f64,
    pub lost: u64,
    pub refused: u64,
}

impl Sample {
    pub fn get(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Rate => self.rate,
            Metric::Cpu => self.cpu,
        }
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
        mut contenders: Vec<Contender>,
        notes: Vec<String>,
    ) -> Result<CaseResult, Error> {
        contenders.sort_by_key(|contender| contender.role as u8);
        let mut rows: Vec<Row> = contenders
            .iter()
            .map(|contender| Row {
                name: contender.name.clone(),
                role: contender.role,
                goals: contender.goals,
                samples: Vec::new(),
            })
            .collect();
        for contender in contenders.iter().filter(|contender| contender.spins) {
            contender.server.pause();
        }
        let count = contenders.len();
        for round in 0..self.options.rounds() as usize {
            for turn in 0..count {
                // Nobody is always next to the same one.
                let index = (turn + round) % count;
                let sample = self.turn(case, &mut contenders[index])?;
                rows[index].samples.push(sample);
            }
        }
        Ok(CaseResult { case, rows, notes })
    }

    fn turn(&self, case: &Case, contender: &mut Contender) -> Result<Sample, Error> {
        let Contender {
            name, server, load, ..
        } = contender;
        let failed =
            |error: io::Error| Error::io(format_args!("{}: load on {name}", case.name), &error);
        if contender.spins {
            server.go_on();
        }
        load.run(WARM_UP).map_err(failed)?;
        sleep(REST);
        let (server_before, own_before) = (server.cpu()?, own_cpu());
        let tally = load.run(self.options.slice()).map_err(failed)?;
        let own = own_cpu() - own_before;
        sleep(REST);
        let spent = server.cpu()? - server_before;
        if contender.spins {
            server.pause();
        }
        if tally.units == 0 || tally.units_in_time == 0 {
            return Err(Error::failed(format!(
                "{}: {name} answered nothing (lost {}, refused {})",
                case.name, tally.lost, tally.refused
            )));
        }
        let seconds = tally.time.as_secs_f64();
        Ok(Sample {
            rate: tally.units_in_time as f64 / seconds,
            cpu: spent.as_secs_f64() * 1e6 / tally.units as f64,
            load_busy: own.as_secs_f64() / seconds,
            server_busy: spent.as_secs_f64() / seconds,
            lost: tally.lost,
            refused: tally.refused,
        })
    }
}
