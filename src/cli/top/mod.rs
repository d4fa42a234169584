//! `ipvsd top`: what goes through the node's virtual servers now, on a terminal, or as lines.
//!
//! [`rows`] says what there is to show and in which order, [`screen`] what keys do, [`view`] how it looks. Here is what
//! touches the world: the kernel, the terminal and time.

mod rows;
mod screen;
mod view;

use crate::cli::names::{Known, Names};
use crate::kernel::ipvs::Identity;
use crate::kernel::linux::{Linux, Table};
use anyhow::{Context, bail};
use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rows::{Order, Rows};
use screen::{Next, Screen};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// Flags of `ipvsd top`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Seconds between two looks at the kernel, which brings its rates up to date every 2 s
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    interval: f64,
    /// What comes first
    #[arg(short, long, value_enum, default_value_t = Order::Connections)]
    sort: Order,
    /// Show only what has this text in its address, name or scheduler
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Print lines instead of a screen
    #[arg(short, long)]
    batch: bool,
    /// End after so many looks [default: with --batch 1, else never]
    #[arg(short = 'n', long, value_name = "COUNT")]
    iterations: Option<u64>,
}

/// What is known of a virtual server, where somebody knows it.
pub type NameOf<'a> = &'a dyn Fn(&Identity) -> Option<Known>;

/// How long lines wait for names, which come after the daemon's pass.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows until it is told to end.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut linux = Linux::open_as_found()?;
    let screen = Screen::new(arguments.sort, &arguments.filter);
    let interval = Duration::from_secs_f64(arguments.interval);
    let looks = arguments.iterations.unwrap_or(if arguments.batch { 1 } else { u64::MAX });
    if arguments.batch {
        print(&mut linux, &screen, looks, interval)?;
    } else if io::stdin().is_terminal() && io::stdout().is_terminal() {
        let signals = ends()?;
        // After signals are blocked, so that its thread has them blocked too.
        let names = Names::follow()?;
        let mut shown = Shown { terminal: ratatui::try_init()?, screen, signals, names };
        let ended = shown.follow(&mut linux, looks, interval);
        ratatui::try_restore()?;
        ended?;
    } else {
        bail!("this is not a terminal: --batch prints lines");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(linux: &mut Linux, screen: &Screen, looks: u64, interval: Duration) -> anyhow::Result<()> {
    let mut names = Names::follow()?;
    names.update(PATIENCE);
    for look in 0..looks {
        if look > 0 {
            thread::sleep(interval);
        }
        names.update(Duration::ZERO);
        let rows = Rows::of(&linux.table()?, screen.wanted(), &|identity| names.of(identity));
        let mut out = io::stdout().lock();
        out.write_all(view::lines(&rows, screen).as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

/// What ends the program from outside: the terminal is put right first. SIGHUP ends it by itself, as the terminal is gone.
fn ends() -> anyhow::Result<SignalFd> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("cannot wait for signals")
}

/// A screen on a terminal.
struct Shown {
    terminal: DefaultTerminal,
    screen: Screen,
    signals: SignalFd,
    names: Names,
}

impl Shown {
    /// The longest time that a name or a new size of the terminal waits.
    const PATIENCE: Duration = Duration::from_millis(250);

    fn follow(&mut self, linux: &mut Linux, looks: u64, interval: Duration) -> anyhow::Result<()> {
        let mut table = linux.table()?;
        for look in 0..looks {
            if look > 0 && !self.screen.is_paused() {
                table = linux.table()?;
            }
            if self.wait(&table, interval)? == Next::End {
                break;
            }
        }
        Ok(())
    }

    /// Shows one reading until the next is due, and does what keys ask.
    fn wait(&mut self, table: &Table, interval: Duration) -> anyhow::Result<Next> {
        let due = Instant::now() + interval;
        let mut rows = self.draw(table)?;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if self.is_over_within(left.min(Self::PATIENCE))? {
                return Ok(Next::End);
            }
            while event::poll(Duration::ZERO)? {
                let next = match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => self.screen.press(key, &rows),
                    _ => Next::Draw,
                };
                if next != Next::Draw {
                    return Ok(next);
                }
                rows = self.draw(table)?;
            }
            if left.is_zero() {
                return Ok(Next::Look);
            }
            if self.names.update(Duration::ZERO) {
                rows = self.draw(table)?;
            }
        }
    }

    /// Waits for keys. Whether a signal ends this, or the terminal is gone: crossterm must not be asked for keys then, as it
    /// reads without end where nothing ever comes (its src/event/source/unix/mio.rs), and hears no signal meanwhile.
    fn is_over_within(&self, patience: Duration) -> anyhow::Result<bool> {
        let stdin = io::stdin();
        let mut inputs =
            [PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut inputs, PollTimeout::try_from(patience)?) {
            // A new size of the terminal.
            Err(Errno::EINTR) => return Ok(false),
            polled => polled?,
        };
        let is_gone = |flags: PollFlags| flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        let [keys, signals] = inputs.map(|input| input.revents().unwrap_or_else(PollFlags::empty));
        Ok(is_gone(keys) || !signals.is_empty())
    }

    fn draw(&mut self, table: &Table) -> io::Result<Rows> {
        let rows = Rows::of(table, self.screen.wanted(), &|identity| self.names.of(identity));
        self.terminal.draw(|frame| view::draw(frame, &rows, &self.screen))?;
        Ok(rows)
    }
}

/// From a tenth of a second to a day.
fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "not a number of seconds from 0.1 to 86400".into())
}

#[cfg(test)]
mod picture;
#[cfg(test)]
mod tests;
