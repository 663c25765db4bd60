//! Charts as inline SVG: lines over categories, and groups of bars. Colours come from the page's style. Pure.

use std::fmt::Write as _;

use super::terminal::figure;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 284.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 44.0;

/// Colours that the page's style knows, `s0` and up.
const COLOURS: usize = 5;

/// What is drawn.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// Read out instead of the picture.
    pub(super) title: String,
    /// Unit of the values.
    pub(super) unit: &'static str,
    /// What the categories count.
    pub(super) axis: &'static str,
    /// Below the horizontal axis, evenly spaced.
    pub(super) categories: Vec<String>,
    pub(super) series: Vec<Series>,
}

/// The values of one look, one for each category.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) look: Look,
    pub(super) values: Vec<Option<Value>>,
}

/// Series that belong together have one colour and differ in weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Counted from 0.
    pub(super) colour: usize,
    /// Paler, and a broken line.
    pub(super) faint: bool,
}

impl Look {
    /// Names that the page's style knows.
    fn class(self) -> String {
        format!("s{}{}", self.colour % COLOURS, if self.faint { " faint" } else { "" })
    }
}

/// A value, and the range of its rounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub(super) value: f64,
    pub(super) range: Option<(f64, f64)>,
}

impl Chart {
    /// A line for each series.
    pub(super) fn lines(&self) -> String {
        self.draw(|_, series, out| {
            let points: Vec<(usize, Value)> =
                series.values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?))).collect();
            let path: Vec<String> =
                points.iter().map(|(at, value)| format!("{:.1},{:.1}", self.x(*at), self.y(value.value))).collect();
            let look = series.look.class();
            push(out, format_args!("<polyline class=\"line {look}\" points=\"{}\"/>", path.join(" ")));
            for (at, value) in points {
                self.whisker(out, self.x(at), value);
                let (x, y) = (self.x(at), self.y(value.value));
                push(out, format_args!("<circle class=\"fill {look}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\">"));
                self.tip(out, &series.name, at, value);
                push(out, format_args!("</circle>"));
            }
        })
    }

    /// A bar for each value, in groups.
    pub(super) fn bars(&self) -> String {
        let width = (self.step() * 0.7 / self.series.len().max(1) as f64).min(56.0);
        self.draw(|place, series, out| {
            for (at, value) in series.values.iter().enumerate() {
                let Some(value) = *value else { continue };
                let middle = self.x(at) + (place as f64 - (self.series.len() as f64 - 1.0) / 2.0) * width;
                let (top, look) = (self.y(value.value), series.look.class());
                push(
                    out,
                    format_args!(
                        "<rect class=\"fill {look}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\">",
                        middle - width / 2.0 + 1.0,
                        width - 2.0,
                        (self.y(0.0) - top).max(0.0)
                    ),
                );
                self.tip(out, &series.name, at, value);
                push(out, format_args!("</rect>"));
                self.whisker(out, middle, value);
                let above = self.y(value.range.map_or(value.value, |(_, high)| high.max(value.value))) - 5.0;
                let text = figure(value.value);
                push(out, format_args!("<text class=\"value\" x=\"{middle:.1}\" y=\"{above:.1}\">{text}</text>"));
            }
        })
    }

    fn draw(&self, mut body: impl FnMut(usize, &Series, &mut String)) -> String {
        let mut out = String::new();
        let title = escape(&self.title);
        push(&mut out, format_args!("<figure><figcaption>{title}</figcaption>"));
        push(&mut out, format_args!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{title}</title>"));
        self.frame(&mut out);
        for (place, series) in self.series.iter().enumerate() {
            body(place, series, &mut out);
        }
        self.legend(&mut out);
        out.push_str("</svg></figure>\n");
        out
    }

    fn frame(&self, out: &mut String) {
        let right = WIDTH - RIGHT;
        for tick in self.ticks() {
            let y = self.y(tick);
            push(out, format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
            let (x, y, text) = (LEFT - 6.0, y + 4.0, label(tick));
            push(out, format_args!("<text class=\"tick end\" x=\"{x}\" y=\"{y:.1}\">{text}</text>"));
        }
        for (at, category) in self.categories.iter().enumerate() {
            let (x, y, text) = (self.x(at), HEIGHT - BOTTOM + 16.0, escape(category));
            push(out, format_args!("<text class=\"tick\" x=\"{x:.1}\" y=\"{y}\">{text}</text>"));
        }
        let (x, y) = ((LEFT + right) / 2.0, HEIGHT - 8.0);
        push(out, format_args!("<text class=\"tick\" x=\"{x}\" y=\"{y}\">{}</text>", escape(self.axis)));
    }

    /// In as many rows as it takes; there is room for two.
    fn legend(&self, out: &mut String) {
        let (mut x, mut y) = (LEFT, 4.0);
        for series in &self.series {
            let width = 36.0 + 6.4 * series.name.chars().count() as f64;
            if x > LEFT && x + width > WIDTH {
                (x, y) = (LEFT, y + 17.0);
            }
            let (look, name) = (series.look.class(), escape(&series.name));
            push(
                out,
                format_args!(
                    "<rect class=\"fill {look}\" x=\"{x:.1}\" y=\"{y}\" width=\"11\" height=\"11\" rx=\"2\"/>"
                ),
            );
            let (x_text, y_text) = (x + 16.0, y + 10.0);
            push(out, format_args!("<text class=\"tick start\" x=\"{x_text:.1}\" y=\"{y_text}\">{name}</text>"));
            x += width;
        }
    }

    fn whisker(&self, out: &mut String, x: f64, value: Value) {
        if let Some((low, high)) = value.range.filter(|(low, high)| high > low) {
            let (low, high) = (self.y(low), self.y(high));
            push(
                out,
                format_args!("<line class=\"range\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>"),
            );
        }
    }

    fn tip(&self, out: &mut String, series: &str, at: usize, value: Value) {
        let category = self.categories.get(at).map_or("", String::as_str);
        let range = value.range.map_or_else(String::new, |(low, high)| format!(" ({}..{})", figure(low), figure(high)));
        let text = format!("{series}, {category}: {} {}{range}", figure(value.value), self.unit);
        push(out, format_args!("<title>{}</title>", escape(&text)));
    }

    fn step(&self) -> f64 {
        (WIDTH - LEFT - RIGHT) / self.categories.len().max(1) as f64
    }

    fn x(&self, at: usize) -> f64 {
        LEFT + self.step() * (at as f64 + 0.5)
    }

    fn y(&self, value: f64) -> f64 {
        let ground = HEIGHT - BOTTOM;
        ground - (ground - TOP) * (value / self.top()).clamp(0.0, 1.0)
    }

    /// The value at the upper edge.
    fn top(&self) -> f64 {
        self.ticks().last().copied().unwrap_or(1.0)
    }

    /// From 0 to at least the largest value, in round steps.
    fn ticks(&self) -> Vec<f64> {
        let values = self.series.iter().flat_map(|series| series.values.iter().flatten());
        let largest = values.map(|value| value.range.map_or(value.value, |(_, high)| high.max(value.value)));
        round_ticks(largest.filter(|value| value.is_finite()).fold(0.0, f64::max))
    }
}

fn round_ticks(largest: f64) -> Vec<f64> {
    if largest <= 0.0 {
        return vec![0.0, 1.0];
    }
    let rough = largest * 1.08 / 4.0;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * magnitude).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let count = (largest * 1.08 / step).ceil() as u32;
    (0..=count).map(|index| f64::from(index) * step).collect()
}

/// A tick without digits that say nothing.
fn label(tick: f64) -> String {
    let text = format!("{tick:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into a String cannot fail");
}

/// Text for HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ticks_are_few_and_reach_over_every_value(largest in 1e-6..1e9f64) {
            let ticks = round_ticks(largest);
            prop_assert!((3..=6).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(ticks[0] == 0.0 && ticks[ticks.len() - 1] >= largest);
        }
    }

    #[test]
    fn a_missing_value_is_no_bar() {
        let value = |value| Some(Value { value, range: None });
        let chart = Chart {
            title: "t".into(),
            unit: "ms",
            axis: "",
            categories: vec!["a".into(), "b".into()],
            series: vec![Series {
                name: "x".into(),
                look: Look { colour: 0, faint: false },
                values: vec![value(1.0), None],
            }],
        };
        let in_legend = 1;
        assert_eq!(chart.bars().matches("<rect").count(), in_legend + 1);
    }
}
