//! The ratios as a picture: for each case a bar for each contender, whose length is what a unit costs it, with the
//! limit as 1. So shorter is better everywhere; of a rate, it is the time for a unit.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text, Title};

use crate::contest::{CaseResult, Goal, Metric, Role, Row};
use crate::report::decimals;

/// In pixels, as everything here.
const WIDTH: f64 = 1_000.0;
const COLUMNS: usize = 2;
const MARGIN: f64 = 16.0;
const COLUMN: f64 = (WIDTH - MARGIN) / COLUMNS as f64;
const NAMES: f64 = 196.0;
const VALUES: f64 = 52.0;
const BARS: f64 = COLUMN - NAMES - VALUES - MARGIN;
const HEAD: f64 = 56.0;
const TITLE: f64 = 26.0;
const BAR: f64 = 12.0;
const STEP: f64 = 17.0;
const GAP: f64 = 14.0;

/// The cost at the right end. Longer bars are cut, and say so.
const MOST: f64 = 2.0;

/// Colours that can be told apart by the colour-blind, on a light page and on a dark one.
const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.case { font-weight: 600 }
.head { font-size: 15px; font-weight: 600 }
.small { fill: #59636e; font-size: 11px }
.limit { fill: #8c959f }
.peer { fill: #b6bec8 }
.own { fill: #0969da }
.axis { stroke: #8c959f; stroke-dasharray: 2 3 }
.goal { stroke: #cf222e; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.small { fill: #9198a1 }
.limit { fill: #7d8590 }
.peer { fill: #4d555f }
.own { fill: #4493f8 }
.axis { stroke: #7d8590 }
.goal { stroke: #ff7b72 }
}
";

/// The chart of all cases that have a limit, and somebody beside it.
pub fn draw(results: &[CaseResult]) -> String {
    let shown: Vec<&CaseResult> = results
        .iter()
        .filter(|result| result.rows.len() > 1)
        .filter(|result| result.rows.iter().any(|row| row.role == Role::Limit))
        .collect();
    let total: f64 = shown.iter().map(|result| height(result)).sum();
    let mut document = Document::new()
        .set("width", WIDTH)
        .set("role", "img")
        .add(Title::new(
            "What smoltalk costs, beside the limit and its peers",
        ))
        .add(Style::new(STYLE))
        .add(text(
            MARGIN,
            22.0,
            "head",
            "Cost beside the limit = 1: shorter is better",
        ));
    document = document.add(text(
        MARGIN,
        42.0,
        "small",
        "CPU time, latency or instructions for each answer; for bulk, the time for each byte. Red: smoltalk's goal.",
    ));
    let (mut column, mut y, mut bottom) = (0, HEAD, HEAD);
    for result in shown {
        // The next column begins where this one has its share.
        if column + 1 < COLUMNS && y + height(result) / 2.0 > HEAD + total / COLUMNS as f64 {
            column += 1;
            y = HEAD;
        }
        let x = MARGIN + column as f64 * COLUMN;
        document = document.add(case(result, x, y));
        y += height(result);
        bottom = f64::max(bottom, y);
    }
    document = document
        .set("height", bottom)
        .set("viewBox", (0, 0, WIDTH, bottom));
    format!("{document}\n")
}

fn height(result: &CaseResult) -> f64 {
    TITLE + STEP * result.rows.len() as f64 + GAP
}

fn case(result: &CaseResult, x: f64, y: f64) -> Group {
    let metric = result.case.columns[0];
    let from = x + NAMES;
    let end = y + height(result) - GAP;
    let mut group = Group::new()
        .add(text(x, y + 16.0, "case", result.case.title))
        .add(line("axis", at(from, 1.0), y + TITLE - 4.0, end));
    for (index, row) in result.rows.iter().enumerate() {
        let top = y + TITLE + STEP * index as f64;
        group = group.add(text(x, top + 10.0, "", &row.name));
        let ratio = result.figure(row, metric).ratio;
        let cost = ratio.map_or(f64::NAN, |ratio| cost(metric, ratio.median));
        if cost.is_nan() {
            group = group.add(text(from, top + 10.0, "small", "answered nothing"));
            continue;
        }
        let class = match row.role {
            Role::Limit => "limit",
            Role::Peer => "peer",
            Role::Smoltalk => "own",
        };
        let bar = Rectangle::new()
            .set("class", class)
            .set("x", from)
            .set("y", top)
            .set("width", rounded(at(0.0, cost).max(1.0)))
            .set("height", BAR)
            .set("rx", 2);
        let cut = if cost > MOST { " »" } else { "" };
        let value = format!("{}{cut}", decimals(cost));
        let goal = goal(row, metric).map(|goal| at(from, goal));
        // Behind the mark too, if that is where the figure would be.
        let mut behind = at(from, cost);
        if let Some(goal) = goal.filter(|goal| (behind..behind + VALUES / 2.0).contains(goal)) {
            behind = goal;
        }
        group = group
            .add(bar)
            .add(text(behind + 6.0, top + 10.0, "small", &value));
        if let Some(goal) = goal {
            group = group.add(line("goal", goal, top - 2.0, top + BAR + 2.0));
        }
    }
    group
}

/// What a unit costs: its time, where units in a time were counted.
fn cost(metric: Metric, ratio: f64) -> f64 {
    match metric {
        Metric::Rate => 1.0 / ratio,
        _ => ratio,
    }
}

fn goal(row: &Row, metric: Metric) -> Option<f64> {
    row.goals.iter().find_map(|goal| match *goal {
        Goal::AtLeast(of, ratio) | Goal::AtMost(of, ratio) if of == metric => {
            Some(cost(metric, ratio))
        }
        _ => None,
    })
}

/// How far right a cost is.
fn at(from: f64, cost: f64) -> f64 {
    from + BARS * cost.min(MOST) / MOST
}

/// Finer than anybody can see.
fn rounded(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

fn text(x: f64, y: f64, class: &str, text: &str) -> Text {
    let element = Text::new(text).set("x", rounded(x)).set("y", y);
    if class.is_empty() {
        element
    } else {
        element.set("class", class)
    }
}

fn line(class: &str, x: f64, top: f64, bottom: f64) -> Line {
    Line::new()
        .set("class", class)
        .set("x1", rounded(x))
        .set("x2", rounded(x))
        .set("y1", top)
        .set("y2", bottom)
}
