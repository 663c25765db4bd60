//! The scenarios, one file each: which requests are sent, and what is made of what their clients saw.

pub(super) mod capacity;
pub(super) mod contention;
pub(super) mod long_prompt;
pub(super) mod mixed;
pub(super) mod repeat;
pub(super) mod seed;
pub(super) mod shared_prefix;
pub(super) mod survival;
pub(super) mod throughput;
