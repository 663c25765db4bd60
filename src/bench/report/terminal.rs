//! The report as text for a terminal.

use std::fmt::Write as _;

use super::{Case, Report, ScenarioReport, SeedTable, Side};
use crate::bench::stats::{Spread, Summary};
use crate::bench::targets::Verdict;

/// All of it.
pub(in crate::bench) fn table(report: &Report) -> String {
    let mut out = String::new();
    let machine = &report.machine;
    line(&mut out, format!("{}, {}, {} cores, {}", report.date, machine.cpu, machine.cores, machine.os));
    for (index, server) in report.servers.iter().enumerate() {
        let (model, note) = (server.model.as_deref().unwrap_or("unknown model"), server.note_after_comma());
        line(&mut out, format!("  [{}] {} {} ({model}){note}", index + 1, server.url, server.version));
    }
    for scenario in &report.scenarios {
        self::scenario(&mut out, report, scenario);
    }
    if let Some(cpu) = report.client_cpu_max {
        line(&mut out, format!("\nthis client took at most {:.0} % of one core in a case", 100.0 * cpu));
    }
    if !report.targets.is_empty() {
        verdicts(&mut out, &report.targets);
    }
    match report.failed_requests {
        0 => line(&mut out, "\nno request failed".to_owned()),
        failed => line(&mut out, format!("\n{failed} requests FAILED")),
    }
    out
}

fn line(out: &mut String, text: String) {
    out.push_str(&text);
    out.push('\n');
}

fn scenario(out: &mut String, report: &Report, scenario: &ScenarioReport) {
    line(out, format!("\n{}: {}", scenario.name, scenario.about));
    let mut rows = vec![CASE_HEAD.map(str::to_owned).to_vec()];
    for case in &scenario.cases {
        rows.extend(case.sides.iter().enumerate().map(|(place, side)| case_row(case, place, side)));
    }
    grid(out, &rows);
    for side in scenario.cases.iter().flat_map(|case| &case.sides) {
        for (reason, count) in &side.failures {
            line(out, format!("  FAILED {} {count} x {reason}", number(side.server)));
        }
        if side.resent > 0 {
            let why = "sent again: the server closed a kept connection";
            line(out, format!("  {} {} x {why}", number(side.server), side.resent));
        }
    }
    for measure in &scenario.measures {
        let value = spread(&measure.value, measure.unit);
        line(out, format!("  {} {} = {value}: {}", number(measure.server), measure.name, measure.about));
    }
    if let Some(table) = &scenario.seed_table {
        seed_table(out, report, table, scenario.cases.first());
    }
}

const CASE_HEAD: [&str; 10] = [
    "case",
    "server",
    "tokens/s",
    "min..max",
    "[1] / this",
    "first token ms p50/p99",
    "gap ms p50/p99/max",
    "answer ms p50",
    "prompt",
    "failed",
];

fn case_row(case: &Case, place: usize, side: &Side) -> Vec<String> {
    let ratio = case.ratios.iter().find(|ratio| ratio.server == side.server).filter(|_| place > 0);
    let ratio = ratio.map(|ratio| &ratio.tokens_per_second);
    vec![
        case.label.clone(),
        number(side.server),
        side.tokens_per_second.as_ref().map_or_else(dash, |rate| figure(rate.median)),
        side.tokens_per_second.as_ref().map_or_else(dash, |rate| format!("{}..{}", figure(rate.min), figure(rate.max))),
        ratio.map_or_else(dash, |ratio| format!("{:.3} ({:.3}..{:.3})", ratio.median, ratio.min, ratio.max)),
        summary(side.first_token_ms.as_ref(), &[|s| s.p50, |s| s.p99]),
        summary(side.gap_ms.as_ref(), &[|s| s.p50, |s| s.p99, |s| s.max]),
        summary(side.answer_ms.as_ref(), &[|s| s.p50]),
        side.prompt_tokens.map_or_else(dash, figure),
        format!("{}/{}", side.failed, side.requests),
    ]
}

fn seed_table(out: &mut String, report: &Report, table: &SeedTable, case: Option<&Case>) {
    let head = ["row", "seed before", "seed after"].map(str::to_owned).into_iter();
    let sides = case.map(|case| case.sides.as_slice()).unwrap_or_default();
    let head = head.chain(sides.iter().map(|side| report.server_name(side.server)));
    let mut rows = vec![head.collect::<Vec<_>>()];
    let cell = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.2}"));
    for row in &table.rows {
        let published = [row.name.to_owned(), cell(row.published_before), cell(row.published_after)];
        rows.push(published.into_iter().chain(row.measured.iter().map(|value| cell(*value))).collect());
    }
    grid(out, &rows);
}

fn verdicts(out: &mut String, verdicts: &[Verdict]) {
    line(out, "\ntargets".to_owned());
    let mut rows = vec![["line", "target", "measured", ""].map(str::to_owned).to_vec()];
    rows.extend(verdicts.iter().map(|verdict| {
        let measured = verdict.measured.as_ref().map_or_else(dash, |value| spread(value, verdict.unit));
        vec![verdict.line.to_owned(), verdict.target.clone(), measured, met(verdict.met).to_owned()]
    }));
    grid(out, &rows);
}

/// What a verdict is called.
pub(super) fn met(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "not measured",
    }
}

/// A median with its range, when there was more than one round.
pub(super) fn spread(value: &Spread, unit: &str) -> String {
    match value.rounds.len() {
        1 => format!("{} {unit}", figure(value.median)),
        _ => format!("{} {unit} ({}..{})", figure(value.median), figure(value.min), figure(value.max)),
    }
}

/// Three digits or so: more would pretend.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Some figures of a summary, with slashes between.
pub(super) fn summary(summary: Option<&Summary>, figures: &[fn(&Summary) -> f64]) -> String {
    let Some(summary) = summary else { return dash() };
    figures.iter().map(|of| figure(of(summary))).collect::<Vec<_>>().join(" / ")
}

pub(super) fn dash() -> String {
    "-".to_owned()
}

fn number(server: Option<usize>) -> String {
    server.map_or_else(|| "[own]".to_owned(), |index| format!("[{}]", index + 1))
}

/// Columns as wide as they need to be.
fn grid(out: &mut String, rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    for row in rows {
        out.push(' ');
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            // Writing into a String cannot fail.
            let _ = write!(out, " {cell:<width$} ");
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
}
