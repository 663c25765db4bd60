//! What a server holds of the machine.

use std::fmt;
use std::fs;
use std::time::Duration;

/// Of one process and its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footprint {
    handles: usize,
    threads: u64,
    /// Dead ones that nobody has waited for included.
    children: usize,
    pub(super) resident_kib: u64,
}

impl Footprint {
    pub(super) fn of(pid: u32) -> Self {
        Self {
            handles: fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count(),
            threads: status(pid, "Threads:"),
            children: children(pid),
            resident_kib: status(pid, "VmRSS:"),
        }
    }

    /// Waits until the process holds no more than this but memory. Idle connections and threads go in their own time.
    pub(super) async fn returns(&self, pid: u32) -> Self {
        loop {
            let now = Self::of(pid);
            if now.handles <= self.handles && now.threads <= self.threads && now.children == self.children {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handles, threads, children, resident_kib } = self;
        write!(f, "{handles} handles, {threads} threads, {children} child processes, {resident_kib} KiB resident")
    }
}

fn status(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("Linux has it");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn children(pid: u32) -> usize {
    let stats = fs::read_dir("/proc").expect("Linux").filter_map(|entry| {
        // What is no process, or ended a moment ago, has no such file.
        fs::read_to_string(entry.ok()?.path().join("stat")).ok()
    });
    let parent = |stat: &str| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok();
    stats.filter(|stat| parent(stat) == Some(pid)).count()
}
