//! A made-up report, and what its readers can rely on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::bench::shot::Seen;

/// Two servers, the second half as fast, whose name tries to be markup.
pub(in crate::bench) fn sample() -> Report {
    let mut scenario = ScenarioReport::new("throughput", "made up & <small>");
    for at_once in [1, 4, 10] {
        let (ours, theirs) = (wave(0.5, at_once), wave(1.0, at_once));
        let sides = vec![(Some(0), vec![&ours, &ours]), (Some(1), vec![&theirs, &theirs])];
        scenario.cases.push(Case::new(format!("{at_once} at a time"), sides).at_once(at_once));
    }
    let facts = |version: &str| ServerFacts {
        url: "http://127.0.0.1:1".to_owned(),
        model: Some("m".to_owned()),
        version: version.to_owned(),
        note: (version == "ours 1").then(|| "built <here>".to_owned()),
    };
    let mut report = Report {
        schema: SCHEMA,
        tool: "cllm bench 0".to_owned(),
        date: "2026-11-24T14:00:00Z".to_owned(),
        machine: Machine { cpu: "a CPU".to_owned(), cores: 2, memory_mb: Some(4096), os: "linux".to_owned() },
        servers: vec![facts("ours 1"), facts("</td><script src=\"http://x.example/\">")],
        failed_requests: 0,
        client_cpu_max: None,
        scenarios: vec![scenario],
        targets: Vec::new(),
    };
    report.add_up();
    report
}

/// Requests of 4 pieces of text each, the last one of them failed.
fn wave(seconds: f64, requests: usize) -> Wave {
    let began = Instant::now();
    let at = |share: f64| began + Duration::from_secs_f64(seconds * share);
    let mut seen: Vec<Seen> = (0..requests)
        .map(|_| Seen {
            sent: began,
            arrivals: [0.25, 0.5, 0.75, 1.0].map(at).to_vec(),
            ended: at(1.0),
            ending: Ending::Complete,
            tokens: 4,
            prompt_tokens: Some(12),
            ..Seen::begin("")
        })
        .collect();
    if requests > 1 {
        seen[0].ending = Ending::Failed("the stream was cut".to_owned());
    }
    Wave { seen, wall: Duration::from_secs_f64(seconds), client_cpu: Some(0.1 * requests as f64) }
}

#[test]
fn a_case_says_what_clients_saw() {
    let report: Value = serde_json::to_value(sample()).unwrap();
    let case = &report["scenarios"][0]["cases"][2];
    let ours = &case["sides"][0];
    assert_eq!((&ours["requests"], &ours["failed"], &ours["completion_tokens"]), (&json!(20), &json!(2), &json!(80)));
    assert_eq!(ours["failures"], json!({ "the stream was cut": 2 }));
    assert_eq!(ours["tokens_per_second"]["median"], 80.0);
    assert_eq!((&ours["first_token_ms"]["p50"], &ours["gap_ms"]["max"]), (&json!(125.0), &json!(125.0)));
    assert_eq!((&ours["answer_ms"]["count"], &ours["prompt_tokens"]), (&json!(18), &json!(12.0)));
    assert_eq!(case["ratios"][0]["tokens_per_second"]["rounds"], json!([2.0, 2.0]));
    assert_eq!((&report["failed_requests"], &report["client_cpu_max"]), (&json!(8), &json!(1.0)));
    assert_eq!(report["schema"], 1);
    assert_eq!((&report["servers"][0]["note"], &report["servers"][1]["note"]), (&json!("built <here>"), &Value::Null));
}

#[test]
fn two_servers_of_one_version_are_told_apart() {
    let mut report = sample();
    assert_eq!(report.server_name(Some(0)), "ours 1");
    report.servers[1].version = "ours 1".to_owned();
    assert_eq!([0, 1].map(|index| report.server_name(Some(index))), ["ours 1 [1]", "ours 1 [2]"]);
}

#[test]
fn the_table_shows_failures_and_ratios() {
    let table = terminal::table(&sample());
    assert!(table.contains("2.000 (2.000..2.000)") && table.contains("FAILED [1] 2 x the stream was cut"), "{table}");
    assert!(table.ends_with("8 requests FAILED\n"), "{table}");
    assert!(table.contains("ours 1 (m), built <here>\n"), "{table}");
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_from_outside() {
    let mut report = sample();
    report.targets = crate::bench::targets::judge(&report);
    let row = SeedRow {
        name: crate::bench::scenario::seed::HONEST_ROW,
        published_before: Some(1.0),
        published_after: Some(2.0),
        measured: vec![Some(3.0), None],
    };
    let seed = ScenarioReport {
        seed_table: Some(SeedTable { rows: vec![row] }),
        cases: report.scenarios[0].cases[..1].to_vec(),
        ..ScenarioReport::new("seed-sequential", "")
    };
    report.scenarios.push(seed);
    let page = html::page(&report);
    assert_balanced(&page);
    assert_eq!(page.matches("<polyline").count(), 2 + 4 + 4, "three charts of levels: two lines, and twice four");
    assert!(page.contains("seed, before") && page.contains("not measured"));
    for outside in ["<script", "<link", "<img", "@import", "url(", "src=", "href="] {
        // The made-up name is text, with its brackets and quotes escaped.
        let found = page.replace("&lt;script src=&quot;", "").contains(outside);
        assert!(!found, "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("<td>ours 1, m, http://127.0.0.1:1, built &lt;here&gt;</td>"));
    assert!(page.contains("The number of tokens is the server's own count (usage)"));
}

/// Every element ends, in the right order.
fn assert_balanced(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "before {tag}");
        } else if !tag.ends_with('/') && !tag.starts_with('!') {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}
