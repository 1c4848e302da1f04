//! What was measured, as a table, as Markdown and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use smoltalk_hosted::error::Error;

use crate::chart;
use crate::contest::{CaseResult, Goal, Metric, Role, Row, Sample};
use crate::options::Options;

/// One figure of one contender.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The median over all rounds.
    pub value: f64,
    /// As a ratio to the limit, if there is one.
    pub ratio: Option<Ratio>,
}

/// The ratios to the limit, each within its round.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Ratio {
    /// Half the distance between the least and the most.
    fn spread(self) -> String {
        format!("±{:.2}", (self.most - self.least) / 2.0)
    }
}

impl CaseResult {
    /// What `row` is compared with.
    pub fn limit(&self, row: &Row) -> Option<&Row> {
        self.rows
            .iter()
            .find(|other| other.role == Role::Limit && other.group == row.group)
    }

    pub fn figure(&self, row: &Row, metric: Metric) -> Figure {
        let all = |row: &Row| -> Vec<f64> {
            row.samples
                .iter()
                .map(|sample| sample.get(metric))
                .collect()
        };
        let mut values = all(row);
        let ratio = self.limit(row).map(|limit| {
            let limits = all(limit);
            let mut ratios: Vec<f64> = values
                .iter()
                .zip(limits)
                .map(|(value, limit)| value / limit)
                .collect();
            Ratio {
                median: median(&mut ratios),
                least: ratios[0],
                most: ratios[ratios.len() - 1],
            }
        });
        Figure {
            value: median(&mut values),
            ratio,
        }
    }

    /// Whether a goal of `row` is met.
    pub fn meets(&self, row: &Row, goal: Goal) -> bool {
        let ratio = |metric| {
            let ratio = self.figure(row, metric).ratio;
            ratio.map_or(f64::NAN, |ratio| round(ratio.median))
        };
        match goal {
            Goal::AtLeast(metric, least) => ratio(metric) >= least,
            Goal::AtMost(metric, most) => ratio(metric) <= most,
            Goal::NoneRefused => refused(row) + lost(row) == 0,
        }
    }
}

/// Prints the table of a case.
pub fn print(result: &CaseResult) {
    let case = result.case;
    println!();
    println!("{}: {}", case.name, case.title);
    let compared = result.rows.iter().any(|row| row.role == Role::Limit);
    let measured_busy = result.rows.iter().any(|row| busy(row).is_some());
    let mut head = format!("  {:30}", "");
    for metric in case.columns {
        if compared {
            let _ = write!(head, " {:>8} {:>6}", name(*metric), "spread");
        }
        let _ = write!(head, " {:>16}", unit(*metric, case.unit));
    }
    if measured_busy {
        let _ = write!(head, "  {:>5} {:>5}", "busy", "load");
    }
    println!("{head}");
    for row in &result.rows {
        let mut line = format!("  {:30}", row.name);
        for metric in case.columns {
            let figure = result.figure(row, *metric);
            if let Some(ratio) = figure.ratio {
                let _ = write!(line, " {:>8} {:>6}", decimals(ratio.median), ratio.spread());
            }
            let _ = write!(line, " {:>16}", with_unit(*metric, figure.value));
        }
        if let Some((server, load)) = busy(row) {
            let _ = write!(line, "  {:4.0}% {:4.0}%", server * 100.0, load * 100.0);
        }
        let missing = missing(row);
        println!(
            "{line}{}{missing}",
            if missing.is_empty() { "" } else { "  " }
        );
        for goal in row.goals {
            let verdict = if result.meets(row, *goal) {
                "met"
            } else {
                "MISSED"
            };
            println!("    goal: {:29} {verdict}", describe(*goal));
        }
    }
    for note in &result.notes {
        println!("  note: {note}");
    }
}

/// Writes what is asked for.
pub fn write(options: &Options, results: &[CaseResult]) -> Result<(), Error> {
    if let Some(path) = &options.json.as_deref().map(from_root) {
        let failed = |error: std::io::Error| Error::io(path.display(), &error);
        let mut text = serde_json::to_string_pretty(&as_json(options, results))
            .map_err(|error| failed(error.into()))?;
        text.push('\n');
        fs::write(path, text).map_err(failed)?;
    }
    if let Some(path) = &options.markdown.as_deref().map(from_root) {
        let failed = |error: std::io::Error| Error::io(path.display(), &error);
        let page = fs::read_to_string(path).map_err(failed)?;
        let page = with_results(&page, &as_markdown(options, results))
            .ok_or_else(|| Error::failed(format!("{}: no `{BEGIN}`, `{END}`", path.display())))?;
        fs::write(path, page).map_err(failed)?;
    }
    if let Some(path) = &options.svg.as_deref().map(from_root) {
        let failed = |error: std::io::Error| Error::io(path.display(), &error);
        fs::write(path, chart::draw(results)).map_err(failed)?;
    }
    Ok(())
}

/// Between these lines of a page are the tables.
const BEGIN: &str = "<!-- results -->";
const END: &str = "<!-- end of results -->";

/// `page` with `tables` in the place of those that it has.
fn with_results(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

/// A path as it is meant at the root of the repository: `cargo bench` runs the program in the package's folder.
fn from_root(path: &Path) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn as_markdown(options: &Options, results: &[CaseResult]) -> String {
    let (cpu, kernel) = machine();
    let mut text = format!(
        "On {cpu}, two of its CPUs, Linux {kernel}: the median of {} rounds of {} ms.\n",
        options.rounds(),
        options.slice().as_millis()
    );
    for result in results {
        let case = result.case;
        let compared = result.rows.iter().any(|row| row.role == Role::Limit);
        let _ = write!(
            text,
            "\n### `{}`\n\n{}.\n\n|",
            case.name,
            sentence(case.title)
        );
        let mut rule = String::from("|---|");
        for metric in case.columns {
            if compared {
                let _ = write!(text, " | {}", name(*metric));
                rule.push_str("---:|");
            }
            let _ = write!(text, " | {}", unit(*metric, case.unit));
            rule.push_str("---:|");
        }
        let measured_busy = result.rows.iter().any(|row| busy(row).is_some());
        if measured_busy {
            text.push_str(" | busy | load");
            rule.push_str("---:|---:|");
        }
        let _ = write!(text, " | goals |\n{rule}---|\n");
        for row in &result.rows {
            let bold = if row.role == Role::Smoltalk { "**" } else { "" };
            let _ = write!(text, "| {bold}{}{bold}", row.name);
            for metric in case.columns {
                let figure = result.figure(row, *metric);
                if let Some(ratio) = figure.ratio {
                    let spread = if row.samples.len() > 1 && row.role != Role::Limit {
                        format!(" {}", ratio.spread())
                    } else {
                        String::new()
                    };
                    let _ = write!(text, " | {bold}{}{bold}{spread}", decimals(ratio.median));
                }
                let _ = write!(text, " | {}", with_unit(*metric, figure.value));
            }
            if let Some((server, load)) = busy(row) {
                let _ = write!(text, " | {:.0} % | {:.0} %", server * 100.0, load * 100.0);
            }
            let goals: Vec<String> = row
                .goals
                .iter()
                .map(|goal| {
                    let missed = if result.meets(row, *goal) {
                        "met"
                    } else {
                        "**missed**"
                    };
                    format!("{}: {missed}", describe(*goal))
                })
                .chain([missing(row)].into_iter().filter(|text| !text.is_empty()))
                .collect();
            let _ = writeln!(text, " | {} |", goals.join("; "));
        }
        for note in &result.notes {
            let _ = write!(text, "\n{}.\n", sentence(note));
        }
    }
    text
}

/// With a capital letter, as far as it has one.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters).collect()
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
    let (cpu, kernel) = machine();
    json!({
        "machine": { "cpu": cpu, "kernel": kernel },
        "rounds": options.rounds(),
        "slice_ms": options.slice().as_millis() as u64,
        "cases": cases,
    })
}

fn row_json(result: &CaseResult, row: &Row) -> Value {
    let mut figures = serde_json::Map::new();
    for metric in result.case.columns {
        let figure = result.figure(row, *metric);
        let each =
            |get: &dyn Fn(&Sample) -> f64| -> Vec<f64> { row.samples.iter().map(get).collect() };
        figures.insert(
            name(*metric).to_lowercase(),
            json!({
                "ratio": figure.ratio.map(|ratio| ratio.median),
                "ratio_least": figure.ratio.map(|ratio| ratio.least),
                "ratio_most": figure.ratio.map(|ratio| ratio.most),
                "median": figure.value,
                "rounds": each(&|sample| sample.get(*metric)),
            }),
        );
    }
    let goals: Vec<Value> = row
        .goals
        .iter()
        .map(|goal| json!({ "goal": describe(*goal), "met": result.meets(row, *goal) }))
        .collect();
    let busy = busy(row);
    json!({
        "name": row.name,
        "role": format!("{:?}", row.role).to_lowercase(),
        "figures": figures,
        "lost": lost(row),
        "refused": refused(row),
        "server_busy": busy.map(|(server, _)| server),
        "load_busy": busy.map(|(_, load)| load),
        "goals": goals,
    })
}

/// The processor and the kernel that the figures came from.
fn machine() -> (String, String) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("an unknown processor", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (model.to_owned(), kernel.trim().to_owned())
}

fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::Rate => "rate",
        Metric::Cpu => "CPU",
        Metric::P50 => "p50",
        Metric::P99 => "p99",
        Metric::Instructions => "instr.",
        Metric::Empty => "empty",
        Metric::Full => "full",
        Metric::PerConnection => "each",
    }
}

fn unit(metric: Metric, unit: &str) -> String {
    match metric {
        Metric::Rate => "a second".to_owned(),
        Metric::Cpu => format!("CPU a {unit}"),
        Metric::P50 => "half within".to_owned(),
        Metric::P99 => "99 % within".to_owned(),
        Metric::Instructions => format!("a {unit}"),
        Metric::Empty => "without".to_owned(),
        Metric::Full => "with all".to_owned(),
        Metric::PerConnection => format!("a {unit}"),
    }
}

fn with_unit(metric: Metric, value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    match metric {
        Metric::Rate | Metric::Instructions => thousands(value),
        Metric::Cpu => format!("{value:.2} µs"),
        Metric::P50 | Metric::P99 => format!("{value:.1} µs"),
        Metric::Empty | Metric::Full => format!("{:.1} MiB", value / f64::from(1 << 20)),
        Metric::PerConnection => format!("{} bytes", thousands(value)),
    }
}

fn describe(goal: Goal) -> String {
    match goal {
        Goal::AtLeast(metric, least) => format!("{} at least {least:.2}", name(metric)),
        Goal::AtMost(metric, most) => format!("{} at most {most:.2}", name(metric)),
        Goal::NoneRefused => "none lost, none refused".to_owned(),
    }
}

/// The medians of what the server and the load took of their CPUs.
fn busy(row: &Row) -> Option<(f64, f64)> {
    let all: Vec<_> = row
        .samples
        .iter()
        .filter_map(|sample| sample.busy)
        .collect();
    let mut server: Vec<f64> = all.iter().map(|busy| busy.server).collect();
    let mut load: Vec<f64> = all.iter().map(|busy| busy.load).collect();
    (!all.is_empty()).then(|| (median(&mut server), median(&mut load)))
}

/// What was not answered.
fn missing(row: &Row) -> String {
    let counted = [("lost", lost(row)), ("refused", refused(row))];
    let told: Vec<String> = counted
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what} {}", thousands(*count as f64)))
        .collect();
    told.join(", ")
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

/// Two decimals, and more of what would be nothing then.
pub fn decimals(ratio: f64) -> String {
    match ratio {
        _ if ratio.is_nan() => "-".to_owned(),
        ..0.095 => format!("{ratio:.3}"),
        _ => format!("{ratio:.2}"),
    }
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
