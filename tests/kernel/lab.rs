//! Where a kernel test runs: on this kernel if it has IPVS, else in the lab kernel; always in a network namespace of
//! its own, so that it finds empty IPVS tables and leaves nothing behind.

use ipvsd::demo::namespace::Namespace;
use ipvsd::kernel::modules;
use libtest_mimic::{Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Tells a person why nothing was tested, and what to do.
const NO_KERNEL: &str = "kernel tests did not run: this kernel has no IPVS (or we are not root) \
                         and the lab kernel is not installed; run `./dev test`";

/// Says which part of the tests a lab runs, as in `1/2`.
const PART: &str = "IPVSD_TEST_PART";

/// Nothing takes a quarter of it: a test that does hangs, and must not cost the others' results.
const LONGEST_TEST: Duration = Duration::from_secs(300);

/// Which kernel can run the tests.
pub enum Place {
    /// The one we are on.
    Here,
    /// The one that `tests/lab/boot` starts.
    Lab,
    /// None.
    Nowhere,
}

impl Place {
    /// Asks the kernel first, and the file system for the lab kernel second.
    pub fn find() -> Self {
        let in_lab = is_set("IPVSD_IN_LAB");
        if in_lab || (modules::has_ipvs() && may_make_namespaces()) {
            Self::Here
        } else if is_installed("linux.uml") {
            Self::Lab
        } else {
            Self::Nowhere
        }
    }
}

/// Whether tests that need no IPVS can run on this kernel.
#[allow(dead_code, reason = "for those tests")]
pub fn can_run_here() -> bool {
    may_make_namespaces()
}

/// Runs this program with these arguments in the lab kernel, and ends as it does. All the tests are shared out between
/// two labs, as one has one processor: what the second prints comes after the first has ended.
///
/// # Panics
/// If a lab cannot be started.
pub fn run_this_program_there(is_whole: bool) -> ExitCode {
    if !is_whole {
        return exit_code(&boot("1/1").output().expect(BOOT));
    }
    let second = boot("2/2").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(BOOT);
    let first = boot("1/2").output().expect(BOOT);
    let second = second.wait_with_output().expect(BOOT);
    io::stdout().write_all(&second.stdout).and_then(|()| io::stderr().write_all(&second.stderr)).expect("open outputs");
    exit_code(if first.status.success() { &second } else { &first })
}

/// Where a lab's command starts.
const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/boot");

/// This program again, to run a part of the tests in a lab.
fn boot(part: &str) -> Command {
    let this = env::current_exe().expect("/proc is mounted on every Linux");
    let mut command = Command::new(BOOT);
    command.arg(this).args(env::args_os().skip(1)).env(PART, part);
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command
}

fn exit_code(output: &Output) -> ExitCode {
    ExitCode::from(output.status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))
}

/// Those of the tests that are for this lab.
///
/// # Panics
/// If the environment's part is none.
pub fn part_of(trials: Vec<Trial>) -> Vec<Trial> {
    let Ok(part) = env::var(PART) else { return trials };
    let numbers = part.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    let (part, parts): (usize, usize) = numbers.unwrap_or_else(|| panic!("{PART}={part}: want 1/2 or the like"));
    trials.into_iter().skip(part - 1).step_by(parts).collect()
}

/// The same tests as visibly ignored ones or, under `IPVSD_REQUIRE_KERNEL=1`, as failures.
pub fn unable_to_run(trials: Vec<Trial>) -> Vec<Trial> {
    let required = is_set("IPVSD_REQUIRE_KERNEL");
    eprintln!("\n{NO_KERNEL}");
    trials
        .into_iter()
        .map(|trial| Trial::test(trial.name(), || Err(Failed::from(NO_KERNEL))).with_ignored_flag(!required))
        .collect()
}

/// A test that passes if `body` returns without a panic, run in a namespace of its own.
pub fn trial(name: &str, body: impl Fn() + Send + Sync + 'static) -> Trial {
    let test = name.to_owned();
    Trial::test(name, move || {
        let attempt = || {
            let _ends = end_if_it_hangs(test.clone());
            in_namespace(&body);
        };
        let failure = catch_unwind(AssertUnwindSafe(attempt)).err();
        if let Some(failure) = failure {
            if !may_try_again() {
                resume_unwind(failure);
            }
            eprintln!("test {test} FAILED as said above, and is tried once more");
            attempt();
        }
        Ok(())
    })
}

/// A test for the lab alone, as it does to the machine around it what is not to be done to anybody's. It starts a lab of
/// its own elsewhere.
pub fn lab_trial(name: &str, body: impl Fn() + Send + Sync + 'static) -> Trial {
    if is_set("IPVSD_IN_LAB") {
        return trial(name, body);
    }
    let test = name.to_owned();
    let in_lab = move || {
        let this = env::current_exe().expect("/proc is mounted on every Linux");
        let status = Command::new(BOOT).arg(this).args(["--exact", &test]).status().expect(BOOT);
        if status.success() { Ok(()) } else { Err(Failed::from(format!("in the lab: {status}"))) }
    };
    Trial::test(name, in_lab).with_ignored_flag(!is_installed("linux.uml") && !is_set("IPVSD_REQUIRE_KERNEL"))
}

/// Whether a failed test may run once more: under `IPVSD_TEST_AGAIN=1`, and three tests at most. Packets of many
/// namespaces on a busy machine can be late; a fault of ours that is seen in many tests must not pass for that.
fn may_try_again() -> bool {
    static FAILURES: AtomicUsize = AtomicUsize::new(0);
    is_set("IPVSD_TEST_AGAIN") && FAILURES.fetch_add(1, Ordering::Relaxed) < 3
}

/// Ends the program, naming the test, if what is returned still lives after [`LONGEST_TEST`].
fn end_if_it_hangs(test: String) -> mpsc::Sender<()> {
    let (is_running, ended) = mpsc::channel();
    thread::spawn(move || {
        if ended.recv_timeout(LONGEST_TEST) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("test {test} hangs: it runs for {LONGEST_TEST:?} already");
            std::process::exit(1);
        }
    });
    is_running
}

/// Runs `body` on a thread that has a new network namespace, with `lo` up and `/sys` telling of it. Sockets it opens,
/// threads it starts and programs it runs belong to that namespace; the namespace goes when they have gone.
///
/// `/proc/net` shows the namespace of the process's first thread: read `/proc/thread-self/net`.
pub fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        private_files()?;
        Ok(body())
    };
    Namespace::new().and_then(|namespace| namespace.run(inside)).expect("the right to make namespaces")
}

/// Gives this thread a `/sys` that shows the devices of its network namespace: those of the namespace that mounted it. And
/// what daemons write to below `/run`, where the lab has more than that: one that outlives its test listens there.
fn private_files() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    // Else the mount below would reach the machine's own mount namespace.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    let written = if is_set("IPVSD_IN_LAB") { "/run/ipvsd" } else { "/run" };
    fs::create_dir_all(written)?;
    mount(Some("tmpfs"), written, Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(())
}

/// Runs a program in this thread's namespace and returns what it printed on stdout.
///
/// # Panics
/// If it cannot be started or fails; the message has its arguments and what it printed on stderr.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}\n{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Root in a container may lack the right to.
fn may_make_namespaces() -> bool {
    Namespace::new().is_ok_and(|namespace| namespace.run(private_files).is_ok())
}

fn is_installed(program: &str) -> bool {
    let directories = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&directories).any(|directory| directory.join(program).exists())
}

/// Whether a variable of the environment is 1.
pub fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value == "1")
}
