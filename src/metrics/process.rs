//! What this process uses, read from `/proc/self` (proc(5)) when somebody asks.

use super::register::{Named, gauge, real};
use prometheus::{Counter, Error, Gauge, Registry};
use std::fs;
use std::path::Path;

/// Ticks in a second: `USER_HZ`, in which Linux gives times to programs on every architecture we build for.
const TICKS: f64 = 100.0;

/// The metrics whose names begin with `process_`.
#[derive(Debug)]
pub struct Process {
    cpu: Counter,
    open_files: Gauge,
    open_files_limit: Gauge,
    resident: Gauge,
    virtual_size: Gauge,
    virtual_size_limit: Gauge,
    started: Gauge,
}

impl Process {
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let (name, help) = CPU;
        let cpu = Counter::new(name, help)?;
        registry.register(Box::new(cpu.clone()))?;
        Ok(Self {
            cpu,
            open_files: gauge(registry, OPEN_FILES)?,
            open_files_limit: gauge(registry, OPEN_FILES_LIMIT)?,
            resident: gauge(registry, RESIDENT)?,
            virtual_size: gauge(registry, VIRTUAL_SIZE)?,
            virtual_size_limit: gauge(registry, VIRTUAL_SIZE_LIMIT)?,
            started: gauge(registry, STARTED)?,
        })
    }

    /// Reads everything anew, below `proc`. What cannot be read stays as it was.
    pub fn read(&self, proc: &Path) {
        let own = proc.join("self");
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let stat = text(&own.join("stat"));
        if let (Some(user), Some(system)) = (stat_field(&stat, 14), stat_field(&stat, 15)) {
            self.cpu.inc_by(((user + system) / TICKS - self.cpu.get()).max(0.0));
        }
        let limits = text(&own.join("limits"));
        let status = text(&own.join("status"));
        let open_files = fs::read_dir(own.join("fd")).ok();
        if self.started.get() == 0.0 {
            // Only once: it does not change, and on a large machine the kernel takes long to write this file.
            self.started.set(started(&stat, &text(&proc.join("stat"))).unwrap_or_default());
        }
        for (metric, value) in [
            (&self.open_files, open_files.map(|files| real(files.count()))),
            (&self.open_files_limit, limit(&limits, "Max open files")),
            (&self.virtual_size_limit, limit(&limits, "Max address space")),
            (&self.resident, kilobytes(&status, "VmRSS:")),
            (&self.virtual_size, kilobytes(&status, "VmSize:")),
        ] {
            if let Some(value) = value {
                metric.set(value);
            }
        }
    }
}

/// A field of `/proc/self/stat`, numbered from 1 as in proc(5). The second is the program's name in parentheses, and may
/// hold anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// When the process started, by its own and the machine's `stat`.
fn started(stat: &str, machine: &str) -> Option<f64> {
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok())?;
    Some(booted + stat_field(stat, 22)? / TICKS)
}

/// The soft limit in a line of `/proc/self/limits`; no limit is the largest number there is, as in Go's client.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())?;
    if soft == "unlimited" { Some(18_446_744_073_709_551_615.0) } else { soft.parse().ok() }
}

/// A line of `/proc/self/status`, in bytes.
fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let value: f64 =
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())?;
    Some(value * 1024.0)
}

const CPU: Named = ("process_cpu_seconds_total", "Processor time used, of the program and of the kernel, in seconds");
const OPEN_FILES: Named = ("process_open_fds", "Open file descriptors");
const OPEN_FILES_LIMIT: Named = ("process_max_fds", "How many file descriptors may be open");
const RESIDENT: Named = ("process_resident_memory_bytes", "Resident memory in bytes");
const VIRTUAL_SIZE: Named = ("process_virtual_memory_bytes", "Virtual memory in bytes");
const VIRTUAL_SIZE_LIMIT: Named = ("process_virtual_memory_max_bytes", "How much virtual memory may be used, in bytes");
const STARTED: Named = ("process_start_time_seconds", "When the process started, since 1970, in seconds");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_hold_anything() {
        let stat = "12 (a) b 3 (c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 3 0 4242 1000 50";
        assert_eq!(stat_field(stat, 14), Some(150.0));
        assert_eq!(stat_field(stat, 15), Some(25.0));
        assert_eq!(stat_field(stat, 22), Some(4242.0));
        assert_eq!(started(stat, "cpu 1 2 3\nbtime 1795600800\n"), Some(1_795_600_842.42));
        assert_eq!(started(stat, "cpu 1 2 3\n"), None);
        for (stat, number) in [("", 14), ("12 (a", 14), (stat, 99), (stat, 1), (stat, 3)] {
            assert_eq!(stat_field(stat, number), None, "{stat:?} {number}");
        }
    }

    #[test]
    fn limits_may_be_absent() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 1048576              files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(18_446_744_073_709_551_615.0));
        assert_eq!(limit(limits, "Max stack size"), None);
        assert_eq!(limit("Max open files", "Max open files"), None);
    }

    #[test]
    fn this_process_is_read_and_goes_on_using_more() {
        let process = Process::register(&Registry::new()).unwrap();
        process.read(Path::new("/proc"));
        let before = process.cpu.get();
        process.read(Path::new("/proc"));
        assert!(process.cpu.get() >= before);
        assert!(process.open_files.get() >= 3.0, "the standard ones at least");
        assert!(process.open_files_limit.get() >= process.open_files.get());
        assert!(process.virtual_size.get() > process.resident.get() && process.resident.get() > 1e6);
        assert!(process.started.get() > 1.7e9, "after 2023");
    }

    #[test]
    fn without_proc_there_is_nothing_to_tell() {
        let process = Process::register(&Registry::new()).unwrap();
        process.read(Path::new("/nonexistent"));
        assert_eq!((process.cpu.get(), process.resident.get()), (0.0, 0.0));
    }
}
