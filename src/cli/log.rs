//! The log: where its filter is said, and how it can be changed while the program runs.

use crate::config::logging::{LogFormat, Logging, check_filter};
use crate::server::{LogFilter, SetVerbosity};
use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use nix::sys::stat::fstat;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::{env, thread};
use tracing::info;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How lines are written, and which.
#[derive(Debug, Args)]
pub struct Log {
    /// What to log, to stderr: a level (error, warn, info, debug, trace) or `module=level` pairs [default: what -v says]
    #[arg(long, global = true, value_name = "FILTER", env = "IPVSD_LOG")]
    log: Option<String>,
    /// How to log [default: journal where stderr is systemd's journal, else what --logging-format says]
    #[arg(long, global = true, value_name = "FORMAT", env = "IPVSD_LOG_FORMAT")]
    log_format: Option<Format>,
}

/// The form of what is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// An object of JSON a line
    Json,
    /// systemd's journal, with what lines tell as fields `IPVSD_...` of their own
    Journal,
}

impl Log {
    /// Starts to log as the flags say, or else as the configuration does. Returns what changes the filter.
    ///
    /// # Errors
    /// If the flag is no filter, or there is no journal where one is asked for.
    pub fn start(&self, configured: &Logging) -> anyhow::Result<LogFilter> {
        let text = self.log.clone().unwrap_or_else(|| configured.filter());
        let filter = parsed(&text).map_err(|why| anyhow!("--log {text}: {why}"))?;
        let (filter, handle) = reload::Layer::new(filter);
        let lines = lines(self.format(configured)).context("--log-format journal")?;
        // The filter is inside, since a layer takes what is told to the registry below it.
        tracing_subscriber::registry().with(lines).with(filter).try_init().map_err(|error| anyhow!("{error}"))?;
        Ok(LogFilter::new(text, move |text| {
            handle.reload(parsed(text)?).map_err(|error| error.to_string())?;
            info!(filter = text, "the log's filter was changed");
            Ok(())
        }))
    }

    fn format(&self, configured: &Logging) -> Format {
        let usual = || match configured.format {
            LogFormat::Json => Format::Json,
            LogFormat::Text if is_stderr_journal() => Format::Journal,
            LogFormat::Text => Format::Text,
        };
        self.log_format.unwrap_or_else(usual)
    }
}

/// Whether what is written to stderr gets to systemd's journal.
pub fn is_stderr_journal() -> bool {
    is_journal(env::var("JOURNAL_STREAM").ok().as_deref())
}

/// Whether stderr is the stream that systemd names by device and inode (systemd.exec(5)): a program that redirects its
/// output inherits the name too.
fn is_journal(stream: Option<&str>) -> bool {
    let named = stream.and_then(|stream| stream.split_once(':'));
    let Some((device, inode)) = named else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| device.parse() == Ok(stderr.st_dev) && inode.parse() == Ok(stderr.st_ino))
}

/// Writes lines. One that cannot be written (a full disk, a reader that went) is lost; to say so where it could not be
/// said would be a panic in the middle of balancing.
fn lines(format: Format) -> io::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let lines = || fmt::layer().with_writer(io::stderr).with_target(false).log_internal_errors(false);
    Ok(match format {
        Format::Text => lines().with_ansi(io::stderr().is_terminal()).boxed(),
        // Who reads these can leave the module out, and cannot find it out.
        Format::Json => lines().with_target(true).json().boxed(),
        Format::Journal => tracing_journald::layer()?
            .with_priority_mappings(priorities())
            .with_field_prefix(Some("IPVSD".into()))
            .with_syslog_identifier("ipvsd".into())
            .boxed(),
    })
}

/// The priorities of syslog that have the names of levels, where the library has each of the lower ones a step higher, so
/// that `journalctl -p info` is what `--log info` says.
fn priorities() -> PriorityMappings {
    PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() }
}

/// Writes to stderr what is no part of the log: why the program ends. If it cannot be written, the exit code has to do.
pub fn write_error(text: &str) {
    _ = io::stderr().write_all(error_lines(text, is_stderr_journal()).as_bytes());
}

/// For systemd's journal each line begins with the priority of an error (sd-daemon(3)), as it is information otherwise.
fn error_lines(text: &str, for_journal: bool) -> String {
    let prefix = if for_journal { "<3>" } else { "" };
    text.lines().map(|line| format!("{prefix}{line}\n")).collect()
}

/// Has a panic told as an error where stderr is systemd's journal, in the words that Rust has for it.
pub fn tell_panics_to_journal() {
    if is_stderr_journal() {
        panic::set_hook(Box::new(|panic| write_error(&panic_text(panic))));
    }
}

fn panic_text(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let text = format!("thread '{}' {panic}", thread.name().unwrap_or("without a name"));
    let backtrace = Backtrace::capture();
    // Where RUST_BACKTRACE asks for it.
    if backtrace.status() == BacktraceStatus::Captured { format!("{text}\n{backtrace}") } else { text }
}

fn parsed(text: &str) -> Result<EnvFilter, String> {
    check_filter(text)?;
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())
}

/// Changes the verbosity; modules that have one of their own in the configuration keep it.
pub fn verbosity(filter: &LogFilter, configured: Logging) -> SetVerbosity {
    let filter = filter.clone();
    Arc::new(move |level: i32| {
        let logging = Logging { verbosity: u32::try_from(level).unwrap_or(0), ..configured.clone() };
        // Our own filters are filters, and the subscriber lives as long as the process.
        _ = filter.put(&logging.filter());
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    #[test]
    fn the_journal_is_what_systemd_says_stderr_is() {
        let stderr = fstat(io::stderr()).unwrap();
        assert!(is_journal(Some(&format!("{}:{}", stderr.st_dev, stderr.st_ino))));
        for other in [None, Some(""), Some("9:1"), Some("x:y"), Some(&*format!("{}:{}0", stderr.st_dev, stderr.st_ino))]
        {
            assert!(!is_journal(other), "{other:?}");
        }
    }

    /// In a process of its own, which is this test again.
    #[test]
    fn a_panic_is_lines_of_errors_to_the_journal() {
        if env::var_os("IPVSD_PANIC").is_some() {
            tell_panics_to_journal();
            panic!("one\ntwo");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stderr");
        let stderr = File::create(&path).unwrap();
        let metadata = stderr.metadata().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "cli::log::tests::a_panic_is_lines_of_errors_to_the_journal"]).stderr(stderr);
        command.env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino())).env("RUST_BACKTRACE", "0");
        command.env("IPVSD_PANIC", "1");
        assert!(!command.output().unwrap().status.success());
        let said = fs::read_to_string(path).unwrap();
        let [place, one, two] = said.lines().collect::<Vec<_>>()[..] else { panic!("three lines, not {said}") };
        let thread =
            "<3>thread 'cli::log::tests::a_panic_is_lines_of_errors_to_the_journal' panicked at src/cli/log.rs:";
        assert!(place.starts_with(thread), "{place}");
        assert_eq!([one, two], ["<3>one", "<3>two"]);
    }
}
