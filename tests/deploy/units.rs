//! The systemd files: systemd's own checkers read them.

use crate::support::deployment::{command_lines, files, path, read};
use ipvsd::source::manifests::Manifests;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

#[test]
fn systemd_understands_the_unit_with_and_without_the_drop_in() {
    let Some(()) = checker() else { return };
    for with_drop_in in [false, true] {
        let (_directory, unit) = installed(with_drop_in);
        let verified = run(Command::new("systemd-analyze").arg("verify").arg(&unit));
        assert_eq!(verified, "", "with the drop-in: {with_drop_in}");
    }
}

/// systemd's own measure, from 0 (no risk) to 10; 1.5 and 1.8 when this was written. What is left: it is in the host's
/// network with CAP_NET_ADMIN, which is its work (and CAP_NET_RAW).
#[test]
fn systemd_finds_the_unit_little_exposed() {
    let Some(()) = checker() else { return };
    for (with_drop_in, tenths) in [(false, 15), (true, 18)] {
        let (_directory, unit) = installed(with_drop_in);
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager"]).arg(format!("--threshold={tenths}")).arg(unit);
        run(&mut security);
    }
}

#[test]
fn the_fragments_make_a_user_and_folders_that_only_it_can_read() {
    let Some(()) = checker() else { return };
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let at = format!("--root={}", root.path().display());
    run(Command::new("systemd-sysusers").arg(&at).arg(path("systemd/sysusers.d/ipvsd.conf")));
    run(Command::new("systemd-tmpfiles").args(["--create", &at]).arg(path("systemd/tmpfiles.d/ipvsd.conf")));
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.starts_with("ipvsd:x:") && users.lines().count() == 1, "{users}");
    for folder in ["etc/ipvsd", "etc/ipvsd/manifests"] {
        let permissions = fs::metadata(root.path().join(folder)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, 0o750, "{folder}");
    }
}

#[test]
fn every_file_says_where_it_goes_and_units_name_files_that_go_there() {
    for file in files("systemd").into_iter().filter(|file| !file.ends_with("ipvsd.service")) {
        let first = read(&file).lines().next().unwrap().to_owned();
        let below = file.strip_prefix("systemd").unwrap();
        let place = match below.strip_prefix("etc") {
            Ok(file) => Path::new("/etc").join(file),
            Err(_) if below.starts_with("ipvsd.service.d") => Path::new("/etc/systemd/system").join(below),
            Err(_) => Path::new("/etc").join(below),
        };
        assert!(first.starts_with(&format!("# To {}", place.display())), "{}: {first}", file.display());
    }
    for line in command_lines().into_iter().filter(|line| line.file.starts_with("systemd")) {
        let named = line.words.iter().filter(|word| word.starts_with("/etc/"));
        for file in named {
            assert!(path("systemd").join(file.trim_start_matches('/')).exists(), "{line:?}");
        }
    }
}

#[test]
fn the_example_manifest_has_nothing_to_complain_about() {
    let update = Manifests::new(path("systemd/etc/ipvsd/manifests"), "node-1").load().unwrap();
    assert_eq!(update.problems, []);
    assert_eq!(update.changes.len(), 2, "a Service and its endpoints");
}

/// Whether systemd is here to check. Its absence is a failure where everything has to be tested.
fn checker() -> Option<()> {
    if Command::new("systemd-analyze").arg("--version").output().is_ok() {
        return Some(());
    }
    assert!(env::var_os("IPVSD_REQUIRE_KERNEL").is_none(), "systemd is not installed; tests/lab/setup does it");
    eprintln!("NOT CHECKED: systemd is not installed, run tests/lab/setup");
    None
}

/// The unit as it would be in /etc/systemd/system, with a program that is there.
fn installed(with_drop_in: bool) -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let names = ["ipvsd.service", "ipvsd.service.d/kubernetes.conf"];
    fs::create_dir(directory.path().join("ipvsd.service.d")).unwrap();
    for name in &names[..1 + usize::from(with_drop_in)] {
        let text = read(Path::new("systemd").join(name)).replace("/usr/local/bin/ipvsd", "/bin/true");
        fs::write(directory.path().join(name), text).unwrap();
    }
    let unit = directory.path().join(names[0]);
    (directory, unit)
}

/// What it complains about, after it ended well.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&stdout));
    said
}
