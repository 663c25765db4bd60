//! The OpenAI endpoints: requests to plans, outcomes to answers and chunks. No I/O.

pub(crate) mod answer;
pub(crate) mod chat;
pub(crate) mod chunks;
pub(crate) mod completion;
pub(crate) mod logprobs;
pub(crate) mod shapes;
