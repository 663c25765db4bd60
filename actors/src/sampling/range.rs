//! The range of a number that a client may choose.

use std::fmt;

use super::ParamError;

/// Which values a field takes. Displays as its documentation says it: "0 to 2", "over 0 up to 1".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The field, by the name clients know.
    pub param: &'static str,
    /// Its lower bound.
    pub low: Low,
    /// The greatest value.
    pub high: f32,
}

/// A lower bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Low {
    /// The least value.
    From(f32),
    /// Values must be greater.
    Over(f32),
}

impl Range {
    /// `low` to `high`, both included.
    pub const fn from(param: &'static str, low: f32, high: f32) -> Self {
        Self { param, low: Low::From(low), high }
    }

    /// Over `low` up to `high`.
    pub const fn over(param: &'static str, low: f32, high: f32) -> Self {
        Self { param, low: Low::Over(low), high }
    }

    /// Whether the value is a number in the range.
    pub fn contains(&self, value: f32) -> bool {
        let above = match self.low {
            Low::From(low) => value >= low,
            Low::Over(low) => value > low,
        };
        above && value <= self.high
    }

    /// Checks a value.
    ///
    /// # Errors
    /// The value is not in the range or not a number.
    pub fn check(&self, value: f32) -> Result<(), ParamError> {
        if self.contains(value) {
            return Ok(());
        }
        Err(ParamError { param: self.param, message: format!("{} must be {self}, not {value}", self.param) })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.low {
            Low::From(low) => write!(f, "{low} to {}", self.high),
            Low::Over(low) => write!(f, "over {low} up to {}", self.high),
        }
    }
}
