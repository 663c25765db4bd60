//! CPU time of processes, from `/proc`; elsewhere than on Linux there is none to be had.

use std::time::Duration;

/// Unit of the times in `/proc/PID/stat`; 100 on every architecture that Rust supports.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of this process so far, in steps of 10 ms.
pub(super) fn own() -> Option<Duration> {
    read("self")
}

/// CPU time of a process so far, in steps of 10 ms.
pub(super) fn of(pid: u32) -> Option<Duration> {
    read(&pid.to_string())
}

/// The process's children.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |of: u32| fields(&std::fs::read_to_string(format!("/proc/{of}/stat")).ok()?).nth(1)?.parse().ok();
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

fn read(pid: &str) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Duration> {
    let mut times = fields(stat).skip(11).map(|ticks| ticks.parse::<u64>().ok());
    let (user, system) = (times.next()??, times.next()??);
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// The fields behind the name, which may itself contain spaces and brackets. The first is the state.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 2 3 4 150 25 0 0 20 0 9 0 100";
        assert_eq!(parse(stat), Some(Duration::from_millis(1750)));
        assert_eq!(fields(stat).nth(1), Some("7"));
        assert_eq!(parse("nonsense"), None);
    }
}
