//! What a server holds of the machine.

use std::fmt;
use std::fs;
use std::time::Duration;

/// Of a server and its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footprint {
    pub(super) server: Process,
    /// Dead ones that nobody has waited for included; those hold nothing.
    pub(super) children: Vec<Process>,
}

/// Of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    handles: usize,
    threads: u64,
    pub(super) resident_kib: u64,
}

impl Footprint {
    pub(super) fn of(pid: u32) -> Self {
        let children = children(pid).into_iter().map(|child| Process::of(child).unwrap_or(Process::DEAD)).collect();
        Self { server: Process::of(pid).expect("it runs"), children }
    }

    /// Waits until server and children hold no more than this but memory. Idle connections and threads go in their own time.
    pub(super) async fn returns(&self, pid: u32) -> Self {
        loop {
            let now = Self::of(pid);
            let same = now.children.len() == self.children.len();
            if same && now.processes().zip(self.processes()).all(|(now, before)| now.holds_no_more(before)) {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.server).chain(&self.children)
    }
}

impl Process {
    const DEAD: Self = Self { handles: 0, threads: 0, resident_kib: 0 };

    /// `None`: it has ended.
    fn of(pid: u32) -> Option<Self> {
        Some(Self {
            handles: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
            threads: status(pid, "Threads:")?,
            resident_kib: status(pid, "VmRSS:")?,
        })
    }

    fn holds_no_more(&self, before: &Self) -> bool {
        self.handles <= before.handles && self.threads <= before.threads
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {}", self.server)?;
        self.children.iter().try_for_each(|child| write!(f, "; child {child}"))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handles, threads, resident_kib } = self;
        write!(f, "{handles} handles, {threads} threads, {resident_kib} KiB resident")
    }
}

fn status(pid: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn children(pid: u32) -> Vec<u32> {
    let stats = fs::read_dir("/proc").expect("Linux").filter_map(|entry| {
        // What is no process, or ended a moment ago, has no such file.
        let path = entry.ok()?.path();
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()?;
        (parent == pid).then(|| path.file_name()?.to_str()?.parse().ok()).flatten()
    });
    let mut children: Vec<u32> = stats.collect();
    children.sort_unstable();
    children
}
