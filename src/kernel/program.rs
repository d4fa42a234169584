//! Runs programs: gives them their input, takes what they print, and lets none of them run without end.
//!
//! One that hangs, say because another holds a lock of the kernel's, must hold up neither the reconciler for good nor the
//! end of the daemon.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// After so many milliseconds it is looked again whether the time is over.
const LOOK: u8 = 100;

thread_local! {
    /// What this thread does meanwhile.
    static MEANWHILE: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// What is read at once: all that a pipe holds where nobody says otherwise (pipe(7)).
const READ_BYTES: usize = 64 * 1024;

/// The first wait for the end of a program that has closed its outputs; the next ones are twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(50);

/// Whether this process is to end. Once it is, it stays so.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Why there is nothing of what a program came to.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started, or it could not be talked to.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was killed, as it had not ended after this time.
    #[error("was killed, as it had not ended after {} s", .0.as_secs_f32())]
    TooLong(Duration),
    /// It was killed, or not started, as this process is to end.
    #[error("was killed, as ipvsd ends")]
    Ending,
}

/// Kills all programs that run, soon, and has no other one run: this process is to end.
pub fn end_all() {
    ENDING.store(true, Ordering::Relaxed);
}

/// Has this thread do something every tenth of a second while it waits for a program, which it does for as long as `limit`
/// says and not for ever.
pub fn meanwhile(act: impl Fn() + 'static) {
    MEANWHILE.set(Some(Box::new(act)));
}

/// Runs a program to its end with this input, which may be as much as it prints, but for no longer than `limit`.
///
/// # Errors
/// It cannot be started, or was killed with all that it had started in its turn. What it printed is lost then.
pub fn output(program: &str, arguments: &[&str], input: &[u8], limit: Duration) -> Result<Output, ProgramError> {
    let started = Instant::now();
    let acted = Cell::new(started);
    let may_run = || {
        if acted.get().elapsed() >= Duration::from_millis(LOOK.into()) {
            acted.set(Instant::now());
            MEANWHILE.with_borrow(|act| act.iter().for_each(|act| act()));
        }
        match started.elapsed() {
            _ if ENDING.load(Ordering::Relaxed) => Err(ProgramError::Ending),
            elapsed if elapsed >= limit => Err(ProgramError::TooLong(limit)),
            _ => Ok(()),
        }
    };
    may_run()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, as it may be a script that starts the program proper.
    let mut child = command.process_group(0).spawn()?;
    let ended = attend(&mut child, input, may_run);
    if ended.is_err() {
        kill(child);
    }
    ended
}

/// Talks to a program until it has ended, as long as it may run.
fn attend(
    child: &mut Child,
    mut input: &[u8],
    may_run: impl Fn() -> Result<(), ProgramError>,
) -> Result<Output, ProgramError> {
    let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut printed = (Vec::new(), Vec::new());
    let pipes = [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
    pipes.into_iter().flatten().try_for_each(never_block)?;
    loop {
        write(&mut stdin, &mut input);
        read(&mut stdout, &mut printed.0)?;
        read(&mut stderr, &mut printed.1)?;
        let to_write = stdin.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
        let to_read = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        let to_read = to_read.into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::POLLIN));
        let mut open: Vec<_> = to_write.into_iter().chain(to_read).collect();
        if open.is_empty() {
            break;
        }
        may_run()?;
        match poll(&mut open, PollTimeout::from(LOOK)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Output { status, stdout: printed.0, stderr: printed.1 });
        }
        may_run()?;
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(LOOK.into()));
    }
}

fn never_block(pipe: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)?)
}

/// Writes what there is room for; closes the pipe behind the last of it.
fn write(pipe: &mut Option<impl Write>, input: &mut &[u8]) {
    while let Some(open) = pipe
        && !input.is_empty()
    {
        match open.write(input) {
            Ok(written) => *input = input.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // One that ends early says why on stderr.
            Err(_) => *input = &[],
        }
    }
    *pipe = None;
}

/// Reads what is there; closes the pipe at its end.
fn read(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    while let Some(open) = pipe {
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => into.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Kills a program with its group. One that the kernel does not let go of yet is not waited for here.
fn kill(mut child: Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended by itself meanwhile; it is still there until it is waited for.
        let _has_ended = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    // Should there be no thread, it is waited for by nobody, and stays a zombie until this process ends.
    let _waits = thread::Builder::new().name("ended program".into()).spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, input: &[u8], limit: Duration) -> Result<Output, ProgramError> {
        output("sh", &["-c", script], input, limit)
    }

    #[test]
    fn a_program_that_prints_while_it_reads_is_read_and_written_to_at_once() {
        let input: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let output = sh("tee /dev/stderr; exit 3", &input, LONG).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout == input && output.stderr == input);
    }

    #[test]
    fn a_thread_does_something_while_it_waits_for_its_own_programs() {
        thread_local!(static DONE: Cell<u32> = const { Cell::new(0) });
        meanwhile(|| DONE.set(DONE.get() + 1));
        sh("exec sleep 1000", &[], Duration::from_millis(450)).unwrap_err();
        let first = DONE.get();
        assert!((1..=9).contains(&first), "{first} times in half a second");
        sh("exec >&- 2>&-; sleep 0.45", &[], LONG).unwrap();
        let second = DONE.get();
        assert!(second > first, "it has closed its outputs, and is waited for all the same");
        thread::spawn(|| sh("sleep 0.45", &[], LONG).unwrap()).join().unwrap();
        assert_eq!(DONE.get(), second, "what another thread runs is not waited for here");
    }

    #[test]
    fn a_program_may_leave_its_input_and_close_its_outputs() {
        let input = vec![0; 1_000_000];
        assert!(sh("exec <&-; echo done", &input, LONG).unwrap().status.success());
        assert_eq!(sh("exec >&- 2>&-; cat >/dev/null; exit 4", &input, LONG).unwrap().status.code(), Some(4));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_all_that_it_started_and_leaves_no_zombie() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("processes");
        let limit = Duration::from_millis(300);
        for script in [
            "exec sleep 1000",
            // It neither reads nor says anything, but what it started still does.
            "sleep 1000 & echo $! >>FILE; wait",
            "exec >&- 2>&- <&-; sleep 1000 & echo $! >>FILE; wait",
        ] {
            let script = format!("echo $$ >>FILE; {script}").replace("FILE", file.to_str().unwrap());
            let started = Instant::now();
            let error = sh(&script, &vec![0; 1_000_000], limit).unwrap_err();
            assert_eq!(error.to_string(), "was killed, as it had not ended after 0.3 s");
            assert!(started.elapsed() < LONG / 10, "{script}: {:?}", started.elapsed());
        }
        let processes = fs::read_to_string(file).unwrap();
        assert_eq!(processes.lines().count(), 5);
        let is_there = |process: &str| {
            // What is not ours to wait for is init's, which may take its time.
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            status.contains("\nState:") && !status.contains("State:\tZ")
        };
        let ends = Instant::now() + Duration::from_secs(10);
        while processes.lines().any(is_there) {
            assert!(Instant::now() < ends, "one of these still runs: {processes:?}");
            thread::sleep(Duration::from_millis(10));
        }
        let shell = processes.lines().next().unwrap();
        while fs::exists(format!("/proc/{shell}")).unwrap() {
            assert!(Instant::now() < ends, "nobody waits for {shell}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
