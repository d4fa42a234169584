//! The command line: reads it, runs the subcommand, prints, and chooses the exit code.
//!
//! Exit codes, for every subcommand: 0 means done, or nothing differs; 1 means it ran and the answer is no (some
//! object could not be programmed, `diff` found differences, `explain` a fault or nobody for a packet, `check` something
//! bad); 2 means that it could not run (usage, rights, no IPVS in the kernel, an unreadable directory).

mod as_kube_proxy;
mod check;
mod cleanup;
mod diff;
mod explain;
mod kube_proxy;
mod list;
mod log;
mod log_level;
mod manual;
mod names;
mod options;
mod run;
mod top;

use crate::config::logging::Logging;
use crate::reconcile::Takeover;
use clap::{Parser, Subcommand};
use log::Log;
use options::Name;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// It ran, and the answer is no.
const NO: u8 = 1;
/// It could not run.
const TROUBLE: u8 = 2;

/// A node's service proxy on kernel IPVS.
///
/// ipvsd programs the kernel's IPVS load balancer from Kubernetes Services and EndpointSlices, here read from a
/// directory of manifests, and shows what the kernel holds.
#[derive(Debug, Parser)]
#[command(name = "ipvsd", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, or nothing differs. 1 it ran and the answer is no: an object could not be \
programmed, `diff` found differences, `explain` a fault or nobody for a packet, `check` something bad. 2 it could not run."
)]
struct CommandLine {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the kernel's virtual servers as the manifests say
    ///
    /// Follows changes of the directory. SIGTERM and SIGINT end it and leave the kernel as it is, so that it goes on
    /// balancing; the next start changes only what differs. A Service chooses its scheduler by the annotations
    /// ipvsd.io/scheduler and ipvsd.io/scheduler-flags, how long connections outlast their endpoints by
    /// ipvsd.io/drain-timeout; an EndpointSlice its weights by ipvsd.io/weights.
    Run(run::Arguments),
    /// Print what the kernel's IPVS holds, by ipvsadm's options in ipvsadm's layouts; needs no daemon
    ///
    /// Shows what others made too. With no option it is what `ipvsadm -L -n` prints; addresses and ports are always
    /// numeric, and no name is looked up but with --names, of which the daemon is asked. One of --connection, --save, --timeout, --daemon or a virtual server says
    /// what is printed; --stats, --rate, --thresholds, --persistent-conn and --tun-info say which columns a table of
    /// virtual servers has. A virtual server that is not there is exit code 1, options that contradict each other are
    /// 2.
    List(list::Arguments),
    /// Show what goes through virtual servers and destinations now, live; needs no daemon
    Top(top::Arguments),
    /// Print what the daemon that runs here would change in the kernel now, or with a source what `run` would; changes
    /// nothing
    Diff(diff::Arguments),
    /// Say how a Service was decided and what the kernel holds for it, or what becomes of a packet
    ///
    /// Of Services a running daemon is asked; packets and frontends can be explained without one.
    Explain(explain::Arguments),
    /// Say whether this node is fit: kernel, modules, settings, rights, conflicts; changes nothing
    ///
    /// With the flags of `run` also whether the node is as that configuration asks. It loads no module: where modprobe is
    /// run it is with -n, which only says what it would do.
    Check(check::Arguments),
    /// Show what the daemon that runs here logs, or have it log more or less from now on
    ///
    /// Until its next start, also one that a changed configuration asks for. Each module has its own level, and
    /// docs/operations.md names them. A filter that is none changes nothing.
    LogLevel(log_level::Arguments),
    /// Remove every virtual server and route that ipvsd made, and nothing else
    Cleanup,
    /// Balance real requests between backends in private network namespaces, and show how
    Demo,
    /// Print the manual: `ipvsd man | man -l -`
    Man(manual::ManArguments),
    /// Print what a shell needs to complete command lines: `. <(ipvsd completions bash)`
    Completions(manual::CompletionsArguments),
}

/// Runs the program that the process's name and arguments ask for.
pub fn main() -> ExitCode {
    log::tell_panics_to_journal();
    if as_kube_proxy::is_our_name() {
        return as_kube_proxy::main();
    }
    match CommandLine::try_parse() {
        Ok(CommandLine { log, command }) => exit_code(run_command(&command, &log), TROUBLE),
        Err(error) => no_command_line(&error, TROUBLE),
    }
}

/// Prints what clap says in place of a command line: help, or what is wrong with this one.
fn no_command_line(error: &clap::Error, trouble: u8) -> ExitCode {
    if error.use_stderr() && log::is_stderr_journal() {
        log::write_error(&error.render().to_string());
    } else {
        // With colours where there is a terminal. What cannot be printed is lost, the exit code is not.
        _ = error.print();
    }
    if error.use_stderr() { ExitCode::from(trouble) } else { ExitCode::SUCCESS }
}

fn run_command(command: &Command, log: &Log) -> anyhow::Result<ExitCode> {
    let logged = || log.start(&Logging::default()).map(drop);
    match command {
        Command::Run(arguments) => run::run(arguments, Name::Ipvsd, log),
        Command::List(arguments) => logged().and_then(|()| list::run(arguments)),
        Command::Top(arguments) => top::run(arguments),
        Command::Diff(arguments) => diff::run(arguments, log),
        Command::Explain(arguments) => logged().and_then(|()| explain::run(arguments)),
        Command::Check(arguments) => check::run(arguments, log),
        Command::LogLevel(arguments) => log_level::run(arguments),
        Command::Cleanup => logged().and_then(|()| cleanup::run(Takeover::Nothing)),
        Command::Demo => logged().and_then(|()| crate::demo::run()),
        Command::Man(arguments) => manual::man(arguments),
        Command::Completions(arguments) => manual::completions(arguments),
    }
}

/// The exit code of what was run, with what went wrong on stderr.
fn exit_code(ended: anyhow::Result<ExitCode>, trouble: u8) -> ExitCode {
    ended.unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        complain(format_args!("{error:#}"));
        ExitCode::from(trouble)
    })
}

/// Prints an answer. It stays the answer when the reader has seen enough of it: `ipvsd diff | grep -q route`.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Says what is wrong on stderr.
fn complain(what: impl Display) {
    log::write_error(&format!("ipvsd: {what}"));
}

/// Whoever reads our output has read enough: `ipvsd list | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|io| io.kind() == ErrorKind::BrokenPipe)
}
