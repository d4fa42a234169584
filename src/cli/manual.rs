//! `ipvsd man` and `ipvsd completions`: manual pages and completions for shells, made of the same definitions as the help.

use super::CommandLine;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct ManArguments {
    /// Write a page for each subcommand into this directory, which is made if it is missing, instead of ipvsd(8) to
    /// stdout
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell that will read them
    shell: Shell,
}

/// Prints the manual, or writes its pages.
pub fn man(arguments: &ManArguments) -> anyhow::Result<ExitCode> {
    match &arguments.directory {
        None => {
            let mut text = Vec::new();
            page(CommandLine::command()).render(&mut text)?;
            io::stdout().write_all(&text)?;
        }
        Some(directory) => write_pages(directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what a shell reads to complete our command lines.
pub fn completions(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "ipvsd", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = CommandLine::command().disable_help_subcommand(true);
    // Names subcommands as their pages are: ipvsd-list.
    command.build();
    for subcommand in command.get_subcommands() {
        page(subcommand.clone()).generate_to(directory)?;
    }
    page(command).generate_to(directory)?;
    Ok(())
}

/// In section 8, as commands of a system's administrator are.
fn page(command: Command) -> Man {
    Man::new(command).section("8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_subcommand_has_a_page_and_each_of_its_flags_is_on_it() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        let written: BTreeSet<_> = directory
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let subcommands: Vec<_> = CommandLine::command().get_subcommands().cloned().collect();
        assert_eq!(written.len(), subcommands.len() + 1);
        for subcommand in subcommands {
            let page = fs::read_to_string(directory.path().join(format!("ipvsd-{}.8", subcommand.get_name()))).unwrap();
            for flag in subcommand.get_arguments().filter(|flag| !flag.is_hide_set()).filter_map(|flag| flag.get_long())
            {
                let shown = format!("\\-\\-{}", flag.replace('-', "\\-"));
                assert!(page.contains(&shown), "{} has no {shown}", subcommand.get_name());
            }
        }
    }

    #[test]
    fn shells_complete_subcommands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "ipvsd", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("cleanup") && script.contains("drain-timeout"), "{shell}");
        }
    }
}
