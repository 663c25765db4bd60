//! The numbers that the project set itself, line by line: met, missed or not measured. Pure.

use serde::Serialize;

use super::report::{Report, ScenarioReport};
use super::scenario::{capacity, contention, long_prompt, repeat, survival, throughput};
use super::stats::Spread;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Verdict {
    pub(super) line: &'static str,
    /// Such as `>= 1.05 x`.
    pub(super) target: String,
    /// Medians over the rounds; `None` when it was not measured.
    pub(super) measured: Option<Spread>,
    pub(super) unit: &'static str,
    /// Whether the median meets the target; `None` when it was not measured.
    pub(super) met: Option<bool>,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Where a figure is in the report.
#[derive(Debug, Clone, Copy)]
enum Figure {
    /// Ours over theirs in tokens per second, of the case with so many at a time.
    Ratio(&'static str, usize),
    /// A measure of our server, of a scenario whose cases had so many at a time; `None`: however many.
    Measure(&'static str, Option<usize>, (&'static str, &'static str)),
    /// Failed requests of our server.
    Failures(&'static str),
}

const LINES: [(&str, Figure, Bound); 14] = [
    ("10 requests one after another, ours / theirs", Figure::Ratio("throughput", 1), Bound::AtLeast(1.05)),
    ("10 at a time, different prompts, ours / theirs", Figure::Ratio("throughput", 10), Bound::AtLeast(1.10)),
    ("16 at a time, different prompts, ours / theirs", Figure::Ratio("throughput", 16), Bound::AtLeast(1.10)),
    (
        "16 at a time, 400 shared + 30 own tokens, ours / theirs",
        Figure::Ratio("shared-prefix", 16),
        Bound::AtLeast(2.4),
    ),
    ("the same request again", Figure::Measure("repeat", None, repeat::REPEATED_SHARE), Bound::AtMost(2.0)),
    (
        "first token over whole answer, idle",
        Figure::Measure("throughput", Some(1), throughput::FIRST_TOKEN_SHARE),
        Bound::AtMost(20.0),
    ),
    (
        "long prompt among 8 streams: p99 gap / median",
        Figure::Measure("long-prompt", Some(8), long_prompt::GAP_P99_RATIO),
        Bound::AtMost(4.0),
    ),
    (
        "long prompt among 8 streams: longest gap / median",
        Figure::Measure("long-prompt", Some(8), long_prompt::GAP_MAX_RATIO),
        Bound::AtMost(8.0),
    ),
    ("/livez while saturated, p99", Figure::Measure("throughput", None, throughput::LIVEZ_P99), Bound::AtMost(10.0)),
    (
        "fake engine in a process, 256 streams: server CPU per token",
        Figure::Measure("capacity", Some(256), capacity::CPU_PER_TOKEN_PROCESS),
        Bound::AtMost(25.0),
    ),
    (
        "ten at a time beside a busy process / alone",
        Figure::Measure("contention", Some(10), contention::BESIDE_OVER_ALONE),
        Bound::AtLeast(0.45),
    ),
    (
        "kill -9 of the engine under load: kills",
        Figure::Measure("survival", None, survival::KILLS),
        Bound::AtLeast(1.0),
    ),
    ("kill -9 of the engine under load: failed requests", Figure::Failures("survival"), Bound::AtMost(0.0)),
    (
        "kill -9 of the engine under load: tokens missing or too many (net)",
        Figure::Measure("survival", None, survival::WRONG_TOKENS),
        Bound::AtMost(0.0),
    ),
];

/// Compares a report, whose first server is ours, with all of them.
pub(super) fn judge(report: &Report) -> Vec<Verdict> {
    let verdict = |(line, figure, bound): (&'static str, Figure, Bound)| {
        let measured = find(report, figure);
        let (target, unit) = (bound.text(figure.unit()), figure.unit());
        let met = measured.as_ref().map(|spread| bound.holds(spread));
        Verdict { line, target, measured, unit, met }
    };
    LINES.into_iter().map(verdict).collect()
}

fn find(report: &Report, figure: Figure) -> Option<Spread> {
    let scenario = |name: &str| report.scenarios.iter().find(|scenario: &&ScenarioReport| scenario.name == name);
    match figure {
        Figure::Ratio(name, at_once) => {
            let case = scenario(name)?.cases.iter().find(|case| case.at_once == Some(at_once))?;
            Some(case.ratios.first()?.tokens_per_second.clone())
        }
        Figure::Measure(name, at_once, (measure, _)) => {
            let scenario = scenario(name)?;
            if at_once.is_some() && scenario.cases.iter().all(|case| case.at_once != at_once) {
                return None;
            }
            let ours = |server: Option<usize>| server.is_none_or(|index| index == 0);
            let found = scenario.measures.iter().find(|found| found.name == measure && ours(found.server))?;
            Some(found.value.clone())
        }
        Figure::Failures(name) => {
            let sides = scenario(name)?.cases.iter().flat_map(|case| case.sides.first());
            Spread::of([sides.map(|side| side.failed).sum::<u64>() as f64])
        }
    }
}

impl Figure {
    fn unit(self) -> &'static str {
        match self {
            Self::Ratio(..) => "x",
            Self::Measure(_, _, (_, unit)) => unit,
            Self::Failures(_) => "requests",
        }
    }
}

impl Bound {
    fn text(self, unit: &str) -> String {
        match self {
            Self::AtLeast(limit) => format!("at least {limit} {unit}"),
            Self::AtMost(limit) => format!("at most {limit} {unit}"),
        }
    }

    /// The median counts. What must never happen, with a limit of 0, is judged by the worst round.
    fn holds(self, spread: &Spread) -> bool {
        match self {
            Self::AtLeast(limit) => spread.median >= limit,
            Self::AtMost(0.0) => spread.max <= 0.0,
            Self::AtMost(limit) => spread.median <= limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    fn line<'v>(verdicts: &'v [Verdict], start: &str) -> &'v Verdict {
        verdicts.iter().find(|verdict| verdict.line.starts_with(start)).expect("it is a line")
    }

    #[test]
    fn lines_are_met_missed_or_not_measured() {
        let mut report = sample();
        let verdicts = judge(&report);
        assert_eq!(line(&verdicts, "10 at a time").met, Some(true));
        assert_eq!(line(&verdicts, "16 at a time, different").met, None);
        report.scenarios[0].measure(throughput::LIVEZ_P99, "", Some(1), Spread::of([1.0]));
        assert_eq!(line(&judge(&report), "/livez").met, None, "another server's figure is not ours");
        report.scenarios[0].measure(throughput::LIVEZ_P99, "", Some(0), Spread::of([9.0, 11.0, 12.0]));
        assert_eq!(line(&judge(&report), "/livez").met, Some(false));
    }

    #[test]
    fn another_number_at_a_time_than_the_targets_is_not_judged() {
        let line_of = |scenario: &str, at_once: usize, measure, start: &str| {
            let mut report = sample();
            let mut other = ScenarioReport::new(scenario, "");
            let case = report.scenarios[0].cases.last().expect("it has cases").clone();
            other.cases.push(case.at_once(at_once));
            other.measure(measure, "", Some(0), Spread::of([1.0]));
            report.scenarios = vec![other];
            line(&judge(&report), start).met
        };
        let lines = [
            ("capacity", 256, capacity::CPU_PER_TOKEN_PROCESS, "fake engine"),
            ("contention", 10, contention::BESIDE_OVER_ALONE, "ten at a time beside"),
            ("long-prompt", 8, long_prompt::GAP_MAX_RATIO, "long prompt among 8 streams: longest"),
            ("long-prompt", 8, long_prompt::GAP_P99_RATIO, "long prompt among 8 streams: p99"),
        ];
        for (scenario, at_once, measure, start) in lines {
            assert_eq!(line_of(scenario, at_once, measure, start), Some(true), "{start}");
            assert_eq!(line_of(scenario, at_once - 1, measure, start), None, "{start}");
        }
    }

    #[test]
    fn what_must_never_happen_is_judged_by_the_worst_round() {
        let rounds = Spread::of([0.0, 0.0, 3.0]).unwrap();
        assert!(!Bound::AtMost(0.0).holds(&rounds));
        assert!(Bound::AtMost(1.0).holds(&rounds), "other limits go by the median");
    }
}
