//! Values of kube-proxy's flags: what is refused at once, before any file is read.

use crate::config::address;
use crate::config::kube_proxy::logging::VmoduleItem;
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// What `--version` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `--version=false`: nothing.
    No,
    /// The version.
    Plain,
    /// All that is known of how the program was built.
    Raw,
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match boolean(text) {
            Ok(true) => Ok(Self::Plain),
            Ok(false) => Ok(Self::No),
            Err(_) if text == "raw" => Ok(Self::Raw),
            // kube-proxy can be made to call itself another build of the same version.
            Err(_) => Err("must be true, false or raw"),
        }
    }
}

/// What Go takes for a boolean.
pub fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("must be true or false"),
    }
}

/// A path, or nothing.
pub fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(PathBuf::from(text))
}

/// `NAME=true`; nothing at all is no gate.
pub fn gate(text: &str) -> Result<(String, bool), String> {
    if text.is_empty() {
        return Ok((String::new(), false));
    }
    let (name, on) = text.split_once('=').ok_or_else(|| format!("{text:?} must be NAME=true or NAME=false"))?;
    let on = boolean(on.trim()).map_err(|message| format!("{name} {message}"))?;
    Ok((name.trim().to_owned(), on))
}

/// An IP address, as it is written, or nothing.
pub fn ip(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || address::ip(text).is_some() { Ok(text.to_owned()) } else { Err("must be an IP address") }
}

/// An IP address, with or without a port, as it is written, or nothing. Port 0 is refused later, as in kube-proxy.
pub fn socket(text: &str) -> Result<String, &'static str> {
    let with_port = |(host, port): (&str, &str)| address::ip(host).is_some() && port.parse::<u16>().is_ok();
    if ip(text).is_ok() || address::host_and_port(text).is_some_and(with_port) {
        Ok(text.to_owned())
    } else {
        Err("must be IP or IP:port")
    }
}

/// `PATTERN=NUMBER`; nothing at all is no item.
pub fn vmodule_item(text: &str) -> Result<VmoduleItem, String> {
    if text.is_empty() {
        return Ok(VmoduleItem::default());
    }
    let wrong = || format!("{text:?} must be PATTERN=NUMBER");
    let (pattern, verbosity) = text.split_once('=').filter(|(pattern, _)| !pattern.is_empty()).ok_or_else(wrong)?;
    Ok(VmoduleItem { file_pattern: pattern.to_owned(), verbosity: verbosity.parse().map_err(|_| wrong())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_go() {
        for (text, value) in [("1", Ok(true)), ("T", Ok(true)), ("False", Ok(false)), ("0", Ok(false))] {
            assert_eq!(boolean(text), value);
        }
        for text in ["", "yes", "tRUE", "2"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_may_be_bare_and_ports_are_numbers() {
        for good in ["", "1.2.3.4", "010.0.0.1:80", "fd00::1", "[fd00::1]:80", "1.2.3.4:0"] {
            assert_eq!(socket(good).as_deref(), Ok(good));
        }
        for bad in ["web", "web:80", "1.2.3.4:http", "[fd00::1]", "1.2.3.4:65536"] {
            assert!(socket(bad).is_err(), "{bad}");
        }
        assert!(ip("1.2.3.4:80").is_err());
    }

    #[test]
    fn pairs_are_read() {
        assert_eq!(gate(" Some = true "), Ok(("Some".into(), true)));
        assert_eq!(gate("Some"), Err("\"Some\" must be NAME=true or NAME=false".into()));
        assert_eq!(gate("Some=yes"), Err("Some must be true or false".into()));
        assert_eq!(vmodule_item("a*=3"), Ok(VmoduleItem { file_pattern: "a*".into(), verbosity: 3 }));
        for bad in ["a", "=3", "a=", "a=-1", "a=b=3"] {
            assert_eq!(vmodule_item(bad), Err(format!("{bad:?} must be PATTERN=NUMBER")));
        }
    }

    #[test]
    fn a_version_is_asked_for_in_three_ways() {
        for (text, version) in [("true", Version::Plain), ("false", Version::No), ("raw", Version::Raw)] {
            assert_eq!(text.parse(), Ok(version));
        }
        assert!("v1.36.0".parse::<Version>().is_err());
    }
}
