//! The report as one HTML file: tables and charts, light and dark, nothing from outside.

use super::svg::escape;
use super::terminal::{dash, figure, met, spread, summary};
use super::{Case, Report, ScenarioReport, SeedTable, Side, charts};
use crate::bench::targets::Verdict;

const STYLE: &str = include_str!("style.css");

/// The whole file.
pub(in crate::bench) fn page(report: &Report) -> String {
    let mut body = String::new();
    body.push_str("<h1>Benchmark report</h1>\n");
    body.push_str(&facts(report));
    if !report.targets.is_empty() {
        body.push_str(&verdicts(&report.targets));
    }
    for scenario in &report.scenarios {
        body.push_str(&section(report, scenario));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Benchmark report, {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&report.date)
    )
}

fn facts(report: &Report) -> String {
    let machine = &report.machine;
    let memory = machine.memory_mb.map_or_else(String::new, |memory| format!(", {} GiB", memory.div_ceil(1024)));
    let mut rows = vec![
        vec!["when".to_owned(), report.date.clone()],
        vec!["machine".to_owned(), format!("{}, {} cores{memory}, {}", machine.cpu, machine.cores, machine.os)],
    ];
    for (index, server) in report.servers.iter().enumerate() {
        let (model, note) = (server.model.as_deref().unwrap_or("unknown model"), server.note_after_comma());
        rows.push(vec![format!("server {}", index + 1), format!("{}, {model}, {}{note}", server.version, server.url)]);
    }
    let cpu = report.client_cpu_max.map_or_else(dash, |cpu| format!("{:.0} % of one core at most", 100.0 * cpu));
    rows.push(vec!["client".to_owned(), format!("{}, {cpu}", report.tool)]);
    rows.push(vec!["failed requests".to_owned(), report.failed_requests.to_string()]);
    let note = "<p class=\"note\">All times are what clients saw over HTTP. The number of tokens is the server's own \
                count (usage). Tokens per second are those completion tokens over wall time; ranges are over rounds, \
                in which the servers take turns; ratios are taken round by round.</p>\n";
    format!("{}{note}", table(&[], &rows))
}

fn verdicts(verdicts: &[Verdict]) -> String {
    let rows: Vec<Vec<String>> = verdicts
        .iter()
        .map(|verdict| {
            let measured = verdict.measured.as_ref().map_or_else(dash, |value| spread(value, verdict.unit));
            vec![verdict.line.to_owned(), verdict.target.clone(), measured, met(verdict.met).to_owned()]
        })
        .collect();
    format!("<h2>Targets</h2>\n{}", table(&["line", "target", "measured", ""], &rows))
}

fn section(report: &Report, scenario: &ScenarioReport) -> String {
    let mut out = format!("<h2>{}</h2>\n<p>{}</p>\n", escape(&scenario.name), escape(&scenario.about));
    out.push_str("<div class=\"charts\">\n");
    out.push_str(&charts::of(report, scenario));
    out.push_str("</div>\n");
    let rows = scenario
        .cases
        .iter()
        .flat_map(|case| case.sides.iter().enumerate().map(move |(place, side)| case_row(report, case, place, side)));
    out.push_str(&table(&CASE_HEAD, &rows.collect::<Vec<_>>()));
    let failures = scenario.cases.iter().flat_map(|case| case.sides.iter().map(move |side| (case, side)));
    let failures = failures.flat_map(|(case, side)| side.failures.iter().map(move |failure| (case, side, failure)));
    let failures: Vec<Vec<String>> = failures
        .map(|(case, side, (reason, count))| {
            vec![case.label.clone(), report.server_name(side.server), count.to_string(), reason.clone()]
        })
        .collect();
    if !failures.is_empty() {
        out.push_str(&table(&["case", "server", "failed", "why"], &failures));
    }
    let measures: Vec<Vec<String>> = scenario
        .measures
        .iter()
        .map(|measure| {
            let value = spread(&measure.value, measure.unit);
            vec![report.server_name(measure.server), value, measure.about.to_owned()]
        })
        .collect();
    if !measures.is_empty() {
        out.push_str(&table(&["server", "figure", "what it is"], &measures));
    }
    if let Some(table) = &scenario.seed_table {
        out.push_str(&seed_table(report, table, scenario.cases.first()));
    }
    out
}

const CASE_HEAD: [&str; 8] = [
    "case",
    "server",
    "tokens/s (min..max)",
    "server 1 / this",
    "first token, ms: median / p99",
    "gap, ms: median / p99 / longest",
    "answer, ms: median / p99",
    "failed",
];

fn case_row(report: &Report, case: &Case, place: usize, side: &Side) -> Vec<String> {
    let ratio = case.ratios.iter().find(|ratio| ratio.server == side.server).filter(|_| place > 0);
    let rate = side.tokens_per_second.as_ref();
    vec![
        case.label.clone(),
        report.server_name(side.server),
        rate.map_or_else(dash, |rate| format!("{} ({}..{})", figure(rate.median), figure(rate.min), figure(rate.max))),
        ratio.map_or_else(dash, |ratio| spread(&ratio.tokens_per_second, "x")),
        summary(side.first_token_ms.as_ref(), &[|s| s.p50, |s| s.p99]),
        summary(side.gap_ms.as_ref(), &[|s| s.p50, |s| s.p99, |s| s.max]),
        summary(side.answer_ms.as_ref(), &[|s| s.p50, |s| s.p99]),
        format!("{} of {}", side.failed, side.requests),
    ]
}

fn seed_table(report: &Report, seed: &SeedTable, case: Option<&Case>) -> String {
    let sides = case.map(|case| case.sides.as_slice()).unwrap_or_default();
    let names: Vec<String> = sides.iter().map(|side| report.server_name(side.server)).collect();
    let head: Vec<&str> =
        ["row", "seed, before", "seed, after"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let cell = |value: &Option<f64>| value.map_or_else(dash, |value| format!("{value:.2}"));
    let row = |row: &super::SeedRow| {
        let published = [row.name.to_owned(), cell(&row.published_before), cell(&row.published_after)];
        published.into_iter().chain(row.measured.iter().map(cell)).collect()
    };
    let note = "<p class=\"note\">The seed measured another model on another machine (Apple M3, Qwen3 0.6B): its \
                columns are there for the formulas, not for a race.</p>\n";
    format!("{}{note}", table(&head, &seed.rows.iter().map(row).collect::<Vec<_>>()))
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |cells: &[String], tag: &str| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let head = if head.is_empty() { head.concat() } else { format!("<thead><tr>{}</tr></thead>", cells(&head, "th")) };
    let rows: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row, "td"))).collect();
    format!("<div class=\"wide\"><table>{head}<tbody>\n{rows}</tbody></table></div>\n")
}
