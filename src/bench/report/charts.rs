//! Which charts a report gets.

use super::svg::{Chart, Look, Series, Value};
use super::{Case, Report, ScenarioReport, Side};
use crate::bench::scenario::seed::HONEST_ROW;
use crate::bench::stats::{Spread, Summary};

const P99: &str = "p99";

/// The last of the style's colours.
const SEED_COLOUR: usize = 4;

/// What is drawn of one side of a case: names, empty for the only one, and values.
type Figures = Vec<(&'static str, Option<Value>)>;

/// The charts of a scenario, ready to be placed.
pub(super) fn of(report: &Report, scenario: &ScenarioReport) -> String {
    if let Some(table) = &scenario.seed_table {
        let published = [("throughput, tokens/s (old formula)", "tokens/s"), (HONEST_ROW, "tokens/s")];
        let times = [("mean answer time, s", "s"), ("longest answer time, s", "s")];
        let charts = [published, times].into_iter().flatten().filter_map(|(name, unit)| {
            let row = table.rows.iter().find(|row| row.name == name)?;
            let sides = scenario.cases.first()?.sides.iter().map(|side| report.server_name(side.server));
            let names = ["seed, before", "seed, after"].map(str::to_owned).into_iter().chain(sides);
            let values = [row.published_before, row.published_after].into_iter().chain(row.measured.iter().copied());
            // The seed's two columns are one colour, which no server has.
            let looks =
                [(SEED_COLOUR, true), (SEED_COLOUR, false)].into_iter().chain((0..).map(|place| (place, false)));
            let series = names.zip(values).zip(looks).map(|((name, value), (colour, faint))| Series {
                name,
                look: Look { colour, faint },
                values: vec![value.map(exact)],
            });
            let title = format!("{}: {name}", scenario.name);
            Some(Chart { title, unit, axis: "", categories: vec![String::new()], series: series.collect() }.bars())
        });
        return charts.collect();
    }
    let mut out = String::new();
    let levels: Vec<&Case> = scenario.cases.iter().filter(|case| case.at_once.is_some()).collect();
    let several = levels.len() > 2;
    let cases = if several { levels } else { scenario.cases.iter().collect() };
    let mut chart = |what: &str, unit, values: &dyn Fn(&Side) -> Figures| {
        let chart = chart(report, &cases, several, format!("{}: {what}, {unit}", scenario.name), unit, values);
        if chart.series.iter().any(|series| series.values.iter().any(Option::is_some)) {
            out.push_str(&if several { chart.lines() } else { chart.bars() });
        }
    };
    chart("throughput", "tokens/s", &|side| vec![("", side.tokens_per_second.as_ref().map(spread))]);
    chart("time to first token", "ms", &|side| quantiles(side.first_token_ms.as_ref()));
    chart("token gap", "ms", &|side| quantiles(side.gap_ms.as_ref()));
    out
}

fn quantiles(summary: Option<&Summary>) -> Figures {
    vec![("median", summary.map(|summary| exact(summary.p50))), (P99, summary.map(|summary| exact(summary.p99)))]
}

/// A chart whose categories are cases and whose series are servers, each perhaps with several figures.
fn chart(
    report: &Report,
    cases: &[&Case],
    levels: bool,
    title: String,
    unit: &'static str,
    values: &dyn Fn(&Side) -> Figures,
) -> Chart {
    let category = |case: &&Case| match case.at_once {
        Some(count) if levels => count.to_string(),
        _ => case.label.clone(),
    };
    let mut series: Vec<Series> = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        for side in &case.sides {
            for (figure, value) in values(side) {
                let name = format!("{} {figure}", report.server_name(side.server)).trim().to_owned();
                let place = series.iter().position(|series| series.name == name).unwrap_or_else(|| {
                    let look = Look { colour: side.server.unwrap_or(0), faint: figure == P99 };
                    series.push(Series { name, look, values: vec![None; cases.len()] });
                    series.len() - 1
                });
                series[place].values[at] = value;
            }
        }
    }
    let axis = if levels { "requests at a time" } else { "" };
    Chart { title, unit, axis, categories: cases.iter().map(category).collect(), series }
}

fn spread(spread: &Spread) -> Value {
    Value { value: spread.median, range: Some((spread.min, spread.max)) }
}

fn exact(value: f64) -> Value {
    Value { value, range: None }
}
