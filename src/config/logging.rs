//! What is logged: kube-proxy's verbosity, checked, and as the filter of our own log.

use super::checks::Checks;
use super::kube_proxy::gates::FeatureGates;
use super::kube_proxy::logging::{LoggingConfiguration, OutputRouting, VmoduleItem};
use std::iter;
use tracing::level_filters::LevelFilter;

/// What klog can count to.
const MOST: u32 = i32::MAX.unsigned_abs();

/// ipvsd's modules, which a `vmodule` pattern may name.
const MODULES: [&str; 15] = [
    "cli",
    "config",
    "daemon",
    "demo",
    "desired",
    "diff",
    "health",
    "inspect",
    "kernel",
    "metrics",
    "model",
    "reconcile",
    "server",
    "source",
    "state",
];

/// What is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The form of lines.
    pub format: LogFormat,
    /// kube-proxy's measure: 0 the least.
    pub verbosity: u32,
    /// The verbosity of ipvsd's modules that have one of their own. The first one of a module counts.
    pub modules: Vec<(&'static str, u32)>,
}

/// The form of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object of JSON a line.
    Json,
}

impl Logging {
    /// The filter for `--log`. 0 to 3 is `info`, since kube-proxy says at 2 and 3 what ipvsd says at `info`; 4 and 5
    /// are `debug`, and `trace` above.
    pub fn filter(&self) -> String {
        let mut filter = match self.verbosity {
            0..=3 => "info".to_owned(),
            4..=5 => "info,ipvsd=debug".to_owned(),
            _ => "debug,ipvsd=trace".to_owned(),
        };
        for (module, verbosity) in &self.modules {
            let level = match verbosity {
                0..=3 => "info",
                4..=5 => "debug",
                _ => "trace",
            };
            filter += &format!(",ipvsd::{module}={level}");
        }
        filter
    }

    pub(super) fn of(config: &LoggingConfiguration, gates: &FeatureGates, checks: &mut Checks) -> Self {
        checks.positive("logging.flushFrequency", config.flush_frequency.duration);
        verbosity("logging.verbosity", config.verbosity, checks);
        for (name, options) in [("text", &config.options.text), ("json", &config.options.json)] {
            check_options(name, options, gates, checks);
        }
        let format = format(&config.format, gates, checks);
        if format == LogFormat::Json && !config.vmodule.is_empty() {
            checks.refuse("logging.vmodule", &config.format, "must not be the format where vmodule is set");
        }
        let modules =
            config.vmodule.iter().enumerate().flat_map(|(index, item)| modules(index, item, checks)).collect();
        Self { format, verbosity: config.verbosity, modules: first_of_each(modules) }
    }
}

/// Whether a text is a filter of the log: a level, or `module=level` pairs, with commas between them. A word that is no
/// level would be taken for the name of a module that says everything while the rest says nothing, so it is refused, as are
/// modules that ipvsd does not have.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check_filter(text: &str) -> Result<(), String> {
    let levels = "off, error, warn, info, debug and trace";
    for word in text.split(',').map(str::trim) {
        let (module, level) = word.split_once('=').unwrap_or(("", word));
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!("{level:?} is no level; there are {levels}"));
        }
        let ours = module.strip_prefix("ipvsd::").map(|module| module.split("::").next().unwrap_or_default());
        if let Some(name) = ours.filter(|name| !MODULES.contains(name)) {
            return Err(format!("ipvsd has no module {name:?}; it has {}", MODULES.join(", ")));
        }
    }
    Ok(())
}

fn format(text: &str, gates: &FeatureGates, checks: &mut Checks) -> LogFormat {
    match text {
        "text" => LogFormat::Text,
        "json" => {
            if !gates.enabled("LoggingBetaOptions") {
                checks.refuse("logging.format", text, "needs the feature gate LoggingBetaOptions");
            }
            LogFormat::Json
        }
        _ => {
            checks.refuse("logging.format", text, "must be text or json");
            LogFormat::Text
        }
    }
}

fn check_options(name: &str, options: &OutputRouting, gates: &FeatureGates, checks: &mut Checks) {
    let (split, buffer) = (options.split_stream, &options.info_buffer_size);
    let set = [("splitStream", split, split.to_string()), ("infoBufferSize", !buffer.is_zero(), buffer.to_string())];
    for (field, _, value) in set.into_iter().filter(|(_, set, _)| *set && !gates.enabled("LoggingAlphaOptions")) {
        let field = format!("logging.options.{name}.{field}");
        checks.refuse(&field, value, "needs the feature gate LoggingAlphaOptions");
    }
}

fn verbosity(field: &str, value: u32, checks: &mut Checks) {
    if value > MOST {
        checks.refuse(field, value, format!("must be at most {MOST}"));
    }
}

/// The modules whose names match the pattern of an item.
fn modules(index: usize, item: &VmoduleItem, checks: &mut Checks) -> Vec<(&'static str, u32)> {
    let field = format!("logging.vmodule[{index}]");
    if item.file_pattern.is_empty() || item.file_pattern.contains(['=', ',']) {
        checks.refuse(&field, &item.file_pattern, "must be a pattern without `=` and comma");
    }
    verbosity(&field, item.verbosity, checks);
    let named = MODULES.iter().filter(|module| matches(&item.file_pattern, module));
    let named: Vec<_> = named.map(|module| (*module, item.verbosity)).collect();
    if named.is_empty() {
        let pattern = &item.file_pattern;
        checks.note(format!("{field}: {pattern} names no module of ipvsd ({}) and has no effect", MODULES.join(", ")));
    }
    named
}

/// Whether a glob of `*` and `?` matches a name.
fn matches(pattern: &str, name: &str) -> bool {
    // Whether what was read of the pattern matches the first so many characters of the name.
    let mut reached = vec![false; name.chars().count() + 1];
    reached.iter_mut().take(1).for_each(|none| *none = true);
    for wanted in pattern.chars() {
        if wanted == '*' {
            let mut any = false;
            for here in &mut reached {
                any |= *here;
                *here = any;
            }
        } else {
            let next = name.chars().zip(&reached).map(|(c, here)| *here && (wanted == '?' || wanted == c));
            reached = iter::once(false).chain(next).collect();
        }
    }
    reached.last() == Some(&true)
}

fn first_of_each(modules: Vec<(&'static str, u32)>) -> Vec<(&'static str, u32)> {
    let mut kept: Vec<(&'static str, u32)> = Vec::new();
    for (module, verbosity) in modules {
        if !kept.iter().any(|(known, _)| *known == module) {
            kept.push((module, verbosity));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn resolved(config: &LoggingConfiguration) -> (Logging, Checks) {
        let mut checks = Checks::default();
        let logging = Logging::of(config, &FeatureGates::default(), &mut checks);
        (logging, checks)
    }

    fn vmodule(items: &[(&str, u32)]) -> LoggingConfiguration {
        let item =
            |(pattern, verbosity): &(&str, u32)| VmoduleItem { file_pattern: (*pattern).into(), verbosity: *verbosity };
        let flush_frequency = crate::config::duration::GoDuration::from_secs(5).into();
        let vmodule = items.iter().map(item).collect();
        LoggingConfiguration { format: "text".into(), flush_frequency, vmodule, ..LoggingConfiguration::default() }
    }

    #[test]
    fn verbosity_becomes_a_filter() {
        for (verbosity, filter) in [
            (0, "info"),
            (3, "info"),
            (4, "info,ipvsd=debug"),
            (5, "info,ipvsd=debug"),
            (6, "debug,ipvsd=trace"),
            (10, "debug,ipvsd=trace"),
        ] {
            assert_eq!(Logging { verbosity, ..Logging::default() }.filter(), filter);
        }
    }

    #[test]
    fn modules_have_the_verbosity_of_the_first_pattern_that_matches() {
        let (logging, checks) = resolved(&vmodule(&[("source", 4), ("re*", 6), ("*", 1), ("proxier", 9)]));
        assert_eq!(checks.invalid, []);
        let filter = logging.filter();
        assert!(filter.starts_with("info,ipvsd::source=debug,ipvsd::reconcile=trace,ipvsd::cli=info,"), "{filter}");
        assert_eq!(filter.matches("source").count(), 1);
        assert_eq!(checks.notices.len(), 1, "the proxier is kube-proxy's");
    }

    #[test]
    fn what_is_no_filter_is_told_from_one() {
        for good in ["info", "WARN", "off", "3", "info,ipvsd=debug", "warn, ipvsd::source::kube=trace,hyper=debug"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for (bad, message) in [
            ("", "\"\" is no level"),
            ("debgu", "\"debgu\" is no level; there are off, error, warn, info, debug and trace"),
            ("info,", "\"\" is no level"),
            ("ipvsd=", "\"\" is no level"),
            ("info,ipvsd=loud", "\"loud\" is no level"),
            ("ipvsd::watch=debug", "ipvsd has no module \"watch\"; it has cli, config, daemon"),
            ("6", "\"6\" is no level"),
        ] {
            let told = check_filter(bad).unwrap_err();
            assert!(told.starts_with(message), "{bad}: {told}");
        }
        for verbosity in [0, 4, 6] {
            let (logging, _) = resolved(&vmodule(&[("source", 4), ("re*", 6)]));
            assert_eq!(check_filter(&Logging { verbosity, ..logging }.filter()), Ok(()));
        }
    }

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, matched) in [
            ("kernel", "kernel", true),
            ("kern", "kernel", false),
            ("*", "kernel", true),
            ("k*l", "kernel", true),
            ("k*e", "kernel", false),
            ("????el", "kernel", true),
            ("?", "kernel", false),
            ("**k**", "kernel", true),
            ("", "kernel", false),
        ] {
            assert_eq!(matches(pattern, name), matched, "{pattern}");
        }
        assert!(matches(&"*".repeat(100_000), "kernel"));
    }

    #[test]
    fn the_modules_are_those_there_are() {
        let entries = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut found: Vec<_> = names.map(|name| name.trim_end_matches(".rs").to_owned()).collect();
        found.retain(|name| !["lib", "main"].contains(&name.as_str()));
        found.sort_unstable();
        assert_eq!(found, MODULES);
    }

    #[test]
    fn some_options_need_a_gate() {
        let mut config = vmodule(&[]);
        config.format = "json".into();
        config.options.text.split_stream = true;
        let (_, checks) = resolved(&config);
        assert_eq!(checks.invalid.len(), 1);
        let wanted = BTreeMap::from([("LoggingBetaOptions".into(), false), ("LoggingAlphaOptions".into(), true)]);
        let mut checks = Checks::default();
        Logging::of(&config, &FeatureGates::new(&wanted).unwrap(), &mut checks);
        assert_eq!(checks.invalid[0].to_string(), "logging.format: json needs the feature gate LoggingBetaOptions");
        assert_eq!(checks.invalid.len(), 1);
    }
}
