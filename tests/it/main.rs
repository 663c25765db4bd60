//! The one integration binary: the real server, its own actor tree for each test, on port 0.
#![cfg(test)]

mod command_line;
mod tidy;
