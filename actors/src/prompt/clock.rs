//! `strftime_now(format)` for templates that tell the model the date. UTC, English names.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The time in the format of C's `strftime`. Unknown directives stay as they are; `%-d` and its like drop the padding.
pub(super) fn format(now: SystemTime, format: &str) -> String {
    let time = Civil::at(now);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('-') => {
                let padded = chars.next().map(|directive| time.directive(directive)).unwrap_or_default();
                let trimmed = padded.trim_start_matches(['0', ' ']);
                out.push_str(if trimmed.is_empty() && !padded.is_empty() { "0" } else { trimmed });
            }
            Some(directive) => out.push_str(&time.directive(directive)),
            None => out.push('%'),
        }
    }
    out
}

/// A point in time in the Gregorian calendar, UTC.
struct Civil {
    year: i64,
    month: usize,
    day: u64,
    day_of_year: u64,
    weekday: usize,
    second_of_day: u64,
}

impl Civil {
    /// Times before 1970 count as 1970.
    fn at(now: SystemTime) -> Self {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let days = seconds / 86_400;
        let (mut year, mut day_of_year) = (1970, days);
        while day_of_year >= days_in(year) {
            day_of_year -= days_in(year);
            year += 1;
        }
        let (mut month, mut day) = (0, day_of_year);
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        let weekday = ((days + 4) % 7) as usize;
        Self { year, month, day: day + 1, day_of_year: day_of_year + 1, weekday, second_of_day: seconds % 86_400 }
    }

    fn directive(&self, directive: char) -> String {
        let (hour, minute, second) = (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match directive {
            'Y' => write!(out, "{}", self.year),
            'y' => write!(out, "{:02}", self.year % 100),
            'm' => write!(out, "{:02}", self.month + 1),
            'B' => write!(out, "{}", MONTHS[self.month]),
            'b' | 'h' => write!(out, "{}", &MONTHS[self.month][..3]),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'j' => write!(out, "{:03}", self.day_of_year),
            'A' => write!(out, "{}", WEEKDAYS[self.weekday]),
            'a' => write!(out, "{}", &WEEKDAYS[self.weekday][..3]),
            'w' => write!(out, "{}", self.weekday),
            'H' => write!(out, "{hour:02}"),
            'I' => write!(out, "{:02}", (hour + 11) % 12 + 1),
            'p' => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            'M' => write!(out, "{minute:02}"),
            'S' => write!(out, "{second:02}"),
            'F' => write!(out, "{}-{:02}-{:02}", self.year, self.month + 1, self.day),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'Z' => write!(out, "UTC"),
            'z' => write!(out, "+0000"),
            '%' => write!(out, "%"),
            other => write!(out, "%{other}"),
        };
        out
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: i64, month: usize) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}
