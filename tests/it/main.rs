//! Tests against the real binary.

mod command_line;
