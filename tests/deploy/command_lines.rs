//! What the deployment starts can be started so: its flags are the program's, and its configurations are good.

use crate::support::deployment::{CommandLine, command_lines, configurations};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Has the program take everything in and write what is in effect instead of running.
fn effective(line: &CommandLine, configuration: Option<&str>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let (config, written) = (directory.path().join("config.yaml"), directory.path().join("written.yaml"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    fs::write(&config, configuration.unwrap_or_default()).unwrap();
    let mut words = line.words.iter();
    let name = Path::new(words.next().unwrap()).file_name().unwrap();
    let mut arguments: Vec<String> = Vec::new();
    while let Some(word) = words.next() {
        if word == "--config" {
            _ = words.next();
            arguments.push(format!("--config={}", text(&config)));
        } else if word.starts_with("--config=") {
            arguments.push(format!("--config={}", text(&config)));
        } else {
            arguments.push(word.clone());
        }
    }
    arguments.push(format!("--write-config-to={}", text(&written)));
    let output = Command::new(env!("CARGO_BIN_EXE_ipvsd")).arg0(name).args(&arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}:\n{errors}", line.file.display());
    fs::read_to_string(&written).unwrap()
}

#[test]
fn every_command_line_has_the_programs_flags_and_every_configuration_is_good_for_it() {
    let (lines, configurations) = (command_lines(), configurations());
    assert!(lines.len() >= 5 && !configurations.is_empty(), "{} and {}", lines.len(), configurations.len());
    for line in &lines {
        let takes_a_file = line.words.iter().any(|word| word.starts_with("--config"));
        if !takes_a_file {
            assert!(effective(line, None).contains("mode: ipvs"), "{line:?}");
            continue;
        }
        for (file, text) in &configurations {
            let effective = effective(line, Some(text));
            assert!(effective.contains("mode: ipvs"), "{}: {effective}", file.display());
        }
    }
}
