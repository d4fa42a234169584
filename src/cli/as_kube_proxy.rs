//! The program under the name `kube-proxy`: no subcommands, kube-proxy's flags, its defaults and its exit code.

use super::log::Log;
use super::options::Name;
use super::{exit_code, no_command_line, run};
use clap::Parser;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::{env, mem};

/// kube-proxy ends with 1 whatever went wrong.
const TROUBLE: u8 = 1;

/// A node's service proxy on kernel IPVS, in kube-proxy's place.
///
/// The flags are kube-proxy's, with a few of ipvsd's own. With --config nearly all of kube-proxy's have no effect, which
/// is its rule; the log names those that were given.
#[derive(Debug, Parser)]
#[command(name = "kube-proxy", max_term_width = 100)]
struct KubeProxyLine {
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    run: run::Arguments,
    /// Empty ones, which templates leave behind
    #[arg(hide = true)]
    arguments: Vec<String>,
}

/// Whether the program was started as `kube-proxy`.
pub fn is_our_name() -> bool {
    env::args_os()
        .next()
        .is_some_and(|program| Path::new(&program).file_name().is_some_and(|name| name == "kube-proxy"))
}

/// Runs as kube-proxy with the process's arguments.
pub fn main() -> ExitCode {
    match parse(env::args_os().collect()) {
        Ok(line) => exit_code(run::run(&line.run, Name::KubeProxy, &line.log), TROUBLE),
        Err(error) => no_command_line(&error, TROUBLE),
    }
}

fn parse(mut words: Vec<OsString>) -> Result<KubeProxyLine, clap::Error> {
    words.iter_mut().skip(1).take_while(|word| *word != "--").for_each(with_dashes);
    let line = KubeProxyLine::try_parse_from(words)?;
    match line.arguments.iter().find(|argument| !argument.is_empty()) {
        Some(extra) => {
            let message = format!("kube-proxy takes no arguments, got {extra:?}\n");
            Err(clap::Error::raw(clap::error::ErrorKind::UnknownArgument, message))
        }
        None => Ok(line),
    }
}

/// kube-proxy takes `--proxy_mode` for `--proxy-mode`.
fn with_dashes(word: &mut OsString) {
    let Some(text) = word.to_str().filter(|text| text.starts_with("--")) else { return };
    let (flag, value) = text.find('=').map_or((text, ""), |equals| text.split_at(equals));
    let renamed = format!("{}{value}", flag.replace('_', "-"));
    _ = mem::replace(word, renamed.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<KubeProxyLine, String> {
        let words = ["/usr/local/bin/kube-proxy"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
        parse(words).map_err(|error| error.to_string())
    }

    #[test]
    fn names_may_have_underscores_and_values_keep_theirs() {
        for line in ["--proxy_mode=a_b", "--proxy-mode a_b", "--proxy_mode a_b"] {
            let line = parsed(line).unwrap();
            assert_eq!(line.run.kube_proxy_flags().proxy_mode.as_deref(), Some("a_b"));
        }
    }

    #[test]
    fn only_empty_arguments_are_taken() {
        assert!(parsed("--config=/c ").is_ok(), "a template leaves an empty one behind");
        for line in ["run", "--config=/c run", "--cleanup false"] {
            assert!(parsed(line).unwrap_err().contains("kube-proxy takes no arguments, got"), "{line}");
        }
        assert!(parsed("--no-such-flag").unwrap_err().contains("unexpected argument '--no-such-flag'"));
    }

    #[test]
    fn kubeadms_command_line_is_taken() {
        let line = parsed("--config=/var/lib/kube-proxy/config.conf --hostname-override=node-1").unwrap();
        let flags = line.run.kube_proxy_flags();
        assert_eq!(flags.config.as_deref(), Some(Path::new("/var/lib/kube-proxy/config.conf")));
        assert_eq!(flags.hostname_override.as_deref(), Some("node-1"));
    }
}
