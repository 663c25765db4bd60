//! Priority classes, and the rank by which the engine orders what runs.

use std::ops::RangeInclusive;

/// The classes of requests: a lower number runs first, and 0 is what a request has that says nothing. Classes are
/// strict: while one of a better class waits, none of a worse class is started.
pub const PRIORITIES: RangeInclusive<i32> = -1000..=1000;

/// Bits of a rank below the class: arrivals of nearly nine years.
const ARRIVAL_BITS: u32 = 48;

/// The order among requests that run: class first, then arrival. Lower goes first.
///
/// `arrived_us` counts from the start of the system. A priority outside of [`PRIORITIES`] counts as the nearest one in it.
pub fn rank(priority: i32, arrived_us: u64) -> u64 {
    let class = priority.clamp(*PRIORITIES.start(), *PRIORITIES.end()) - PRIORITIES.start();
    u64::from(class.unsigned_abs()) << ARRIVAL_BITS | arrived_us.min((1 << ARRIVAL_BITS) - 1)
}

/// The class in a rank: lower is better.
pub fn class_of(rank: u64) -> u64 {
    rank >> ARRIVAL_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_arrival_outweighs_a_class() {
        assert!(rank(-1, u64::MAX) < rank(0, 0));
        assert!(rank(0, 1) < rank(0, 2));
        assert!(class_of(rank(-1000, 5)) < class_of(rank(1000, 0)));
        assert_eq!(class_of(rank(7, 1)), class_of(rank(7, u64::MAX)));
    }
}
