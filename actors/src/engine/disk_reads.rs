//! How much this process has read from disks: the only progress to be seen of a load that maps a file.
//!
//! llama.cpp maps a model with all its pages at once, so a slow disk keeps it inside one system call for as long as the
//! whole file takes. The kernel counts meanwhile.

/// A number that grows while the process reads; `None` where the system does not tell.
pub(crate) fn so_far() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok().and_then(|text| read_bytes(&text));
    let stat = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| major_faults(&text));
    // A file system may keep one of the books only.
    io.into_iter().chain(stat).reduce(u64::wrapping_add)
}

fn read_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

/// The process's name stands in brackets and may hold anything.
fn major_faults(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_books_are_read() {
        let io = "rchar: 1948\nwchar: 0\nsyscr: 7\nsyscw: 0\nread_bytes: 40960\nwrite_bytes: 0\n";
        assert_eq!(read_bytes(io), Some(40_960));
        let stat = "42 (a ) name) R 1 42 1 0 -1 4194304 93 0 17 5 0 0 0 0 20 0 1 0 9 0 0\n";
        assert_eq!(major_faults(stat), Some(17));
        assert_eq!((read_bytes(""), major_faults("")), (None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_read_something() {
        assert!(so_far().is_some());
    }
}
