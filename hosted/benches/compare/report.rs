//! What was measured, as a table and as JSON.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use smoltalk_hosted::error::Error;

use crate::contest::{CaseResult, Goal, Metric, Role, Row};
use crate::options::Options;

/// One figure of one contender.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The median over all rounds.
    pub value: f64,
    /// The median of the ratios to the limit, each within its round; and the least and the greatest of them.
    pub ratio: f64,
    pub least: f64,
    pub most: f64,
}

impl CaseResult {
    pub fn limit(&self) -> &Row {
        self.rows
            .iter()
            .find(|row| row.role == Role::Limit)
            .unwrap_or(&self.rows[0])
    }

    pub fn figure(&self, row: &Row, metric: Metric) -> Figure {
        let limit = &self.limit().samples;
        let mut ratios: Vec<f64> = row
            .samples
            .iter()
            .zip(limit)
            .map(|(sample, limit)| sample.get(metric) / limit.get(metric))
            .collect();
        let ratio = median(&mut ratios);
        let mut values: Vec<f64> = row
            .samples
            .iter()
            .map(|sample| sample.get(metric))
            .collect();
        Figure {
            value: median(&mut values),
            ratio,
            least: ratios[0],
            most: ratios[ratios.len() - 1],
        }
    }

    /// Whether a goal of `row` is met.
    pub fn meets(&self, row: &Row, goal: Goal) -> bool {
        match goal {
            Goal::AtLeast(metric, least) => round(self.figure(row, metric).ratio) >= least,
            Goal::AtMost(metric, most) => round(self.figure(row, metric).ratio) <= most,
            Goal::NoneRefused => refused(row) + lost(row) == 0,
        }
    }
}

/// Prints the table of a case.
pub fn print(result: &CaseResult) {
    let case = result.case;
    println!();
    println!("{}: {}", case.name, case.title);
    let mut head = format!("  {:30}", "");
    for metric in case.columns {
        let _ = write!(
            head,
            " {:>7} {:>7} {:>11}",
            name(*metric),
            "spread",
            unit(*metric, case.unit)
        );
    }
    println!("{head}  {:>5} {:>5}", "busy", "load");
    for row in &result.rows {
        let mut line = format!("  {:30}", row.name);
        for metric in case.columns {
            let figure = result.figure(row, *metric);
            let spread = format!("±{:.2}", (figure.most - figure.least) / 2.0);
            let value = match metric {
                Metric::Rate => thousands(figure.value),
                Metric::Cpu => format!("{:.2} µs", figure.value),
            };
            let _ = write!(line, " {:7.2} {spread:>7} {value:>11}", figure.ratio);
        }
        let mut server: Vec<f64> = row
            .samples
            .iter()
            .map(|sample| sample.server_busy)
            .collect();
        let mut load: Vec<f64> = row.samples.iter().map(|sample| sample.load_busy).collect();
        let _ = write!(
            line,
            "  {:4.0}% {:4.0}%",
            median(&mut server) * 100.0,
            median(&mut load) * 100.0
        );
        let (lost, refused) = (lost(row), refused(row));
        if lost > 0 {
            let _ = write!(line, "  lost {}", thousands(lost as f64));
        }
        if refused > 0 {
            let _ = write!(line, "  refused {}", thousands(refused as f64));
        }
        println!("{line}");
        for goal in row.goals {
            let verdict = if result.meets(row, *goal) {
                "met"
            } else {
                "MISSED"
            };
            println!("    goal: {:25} {verdict}", describe(*goal));
        }
    }
    for note in &result.notes {
        println!("  note: {note}");
    }
}

/// Writes what is asked for.
pub fn write(options: &Options, results: &[CaseResult]) -> Result<(), Error> {
    let Some(path) = &options.json else {
        return Ok(());
    };
    let failed = |error: std::io::Error| Error::io(path.display(), &error);
    let mut text = serde_json::to_string_pretty(&as_json(options, results))
        .map_err(|error| failed(error.into()))?;
    text.push('\n');
    fs::write(path, text).map_err(failed)
}

fn as_json(options: &Options, results: &[CaseResult]) -> Value {
    let cases: Vec<Value> = results
        .iter()
        .map(|result| {
            let rows: Vec<Value> = result
                .rows
                .iter()
                .map(|row| row_json(result, row))
                .collect();
            json!({
                "name": result.case.name,
                "title": result.case.title,
                "unit": result.case.unit,
                "contenders": rows,
                "notes": result.notes,
            })
        })
        .collect();
    json!({
        "machine": machine(),
        "rounds": options.rounds(),
        "slice_ms": options.slice().as_millis() as u64,
        "cases": cases,
    })
}

fn row_json(result: &CaseResult, row: &Row) -> Value {
    let mut figures = serde_json::Map::new();
    for metric in result.case.columns {
        let figure = result.figure(row, *metric);
        figures.insert(
            name(*metric).to_lowercase(),
            json!({
                "ratio": figure.ratio,
                "ratio_least": figure.least,
                "ratio_most": figure.most,
                "median": figure.value,
                "rounds": row.samples.iter().map(|sample| sample.get(*metric)).collect::<Vec<_>>(),
            }),
        );
    }
    let goals: Vec<Value> = row
        .goals
        .iter()
        .map(|goal| json!({ "goal": describe(*goal), "met": result.meets(row, *goal) }))
        .collect();
    json!({
        "name": row.name,
        "role": format!("{:?}", row.role).to_lowercase(),
        "figures": figures,
        "lost": lost(row),
        "refused": refused(row),
        "load_busy": row.samples.iter().map(|sample| sample.load_busy).collect::<Vec<_>>(),
        "goals": goals,
    })
}

/// The machine that the figures came from.
fn machine() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({ "cpu": model, "kernel": kernel.trim() })
}

fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::Rate => "rate",
        Metric::Cpu => "CPU",
    }
}

fn unit(metric: Metric, unit: &str) -> String {
    match metric {
        Metric::Rate => "a second".to_owned(),
        Metric::Cpu => format!("a {unit}"),
    }
}

fn describe(goal: Goal) -> String {
    match goal {
        Goal::AtLeast(metric, least) => format!("{} at least {least:.2}", name(metric)),
        Goal::AtMost(metric, most) => format!("{} at most {most:.2}", name(metric)),
        Goal::NoneRefused => "none lost, none refused".to_owned(),
    }
}

fn lost(row: &Row) -> u64 {
    row.samples.iter().map(|sample| sample.lost).sum()
}

fn refused(row: &Row) -> u64 {
    row.samples.iter().map(|sample| sample.refused).sum()
}

/// Goals have two decimals.
fn round(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}

/// Sorts, and takes the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match (
        values.get((values.len().saturating_sub(1)) / 2),
        values.get(values.len() / 2),
    ) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
