//! What the machine has: cores to compute with, memory that is free.

use std::collections::HashSet;
use std::fs;
use std::thread;

/// Physical cores that this process may use: never more than its affinity mask and CPU quota allow, at least 1.
pub(super) fn usable_cores() -> u32 {
    let allowed = thread::available_parallelism().map_or(1, usize::from);
    let cores = physical_cores().map_or(allowed, |cores| cores.min(allowed));
    u32::try_from(cores.max(1)).unwrap_or(1)
}

/// Physical cores of the machine, where Linux tells: sets of sibling threads.
fn physical_cores() -> Option<usize> {
    let cpus = fs::read_dir("/sys/devices/system/cpu").ok()?;
    let siblings = cpus.flatten().filter_map(|cpu| fs::read_to_string(cpu.path().join("topology/core_cpus_list")).ok());
    let cores = siblings.collect::<HashSet<_>>().len();
    (cores > 0).then_some(cores)
}

/// Bytes of main memory that a new allocation may use without swapping; `None` where nobody tells.
pub(super) fn available_memory() -> Option<u64> {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text))?;
    // The container's limit, if there is one; the file says "max" otherwise.
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(limit.map_or(free, |limit| free.min(limit)))
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       24684096 kB\nMemFree:        1 kB\nMemAvailable:   23948400 kB\n";
        assert_eq!(mem_available(text), Some(23_948_400 * 1024));
        assert_eq!(mem_available("MemTotal: 1 kB"), None);
    }

    #[test]
    fn at_least_one_core_is_usable() {
        assert!(usable_cores() >= 1);
    }
}
