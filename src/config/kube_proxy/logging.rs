//! The `logging` section of the file, which kube-proxy has in common with the other components of Kubernetes.

use crate::config::duration::GoDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// `logging`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggingConfiguration {
    /// `text` or `json`. `text`.
    pub format: String,
    /// The longest time that a line is held back. 5s.
    pub flush_frequency: FlushFrequency,
    /// How much is logged: 0 the least.
    pub verbosity: u32,
    /// Verbosity for single source files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vmodule: Vec<VmoduleItem>,
    /// What only one of the formats has.
    pub options: FormatOptions,
}

/// A duration, or a whole number of nanoseconds, which is written back in the form that it was read in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlushFrequency {
    /// The duration.
    pub duration: GoDuration,
    /// Whether it is a number in the file.
    pub is_number: bool,
}

impl Default for FlushFrequency {
    fn default() -> Self {
        Self::from(GoDuration::ZERO)
    }
}

impl From<GoDuration> for FlushFrequency {
    fn from(duration: GoDuration) -> Self {
        Self { duration, is_number: false }
    }
}

/// The verbosity of the source files that match a pattern.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VmoduleItem {
    /// A file's name without folder and ending, or a glob for such names.
    pub file_pattern: String,
    /// How much it logs.
    pub verbosity: u32,
}

/// `logging.options`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FormatOptions {
    /// For the format `text`.
    pub text: OutputRouting,
    /// For the format `json`.
    pub json: OutputRouting,
}

/// Where lines of different weight go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputRouting {
    /// Whether errors go to stderr and all else to stdout.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub split_stream: bool,
    /// How much is held back with `split_stream`. 0.
    pub info_buffer_size: Quantity,
}

/// A quantity of Kubernetes: a number with a suffix such as `k`, `Ki` or `e3`. Only its form is checked, and it is
/// kept as it is written (kube-proxy shortens it: `1000` becomes `1k`), because nothing here is buffered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity(String);

/// Suffixes of a quantity; an exponent is the other way to end one.
const SUFFIXES: [&str; 17] = ["", "n", "u", "m", "k", "K", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity: write 512, 64Ki or 1M")]
pub struct InvalidQuantity(String);

impl Quantity {
    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        !self.0.split(['e', 'E']).next().unwrap_or_default().contains(|c: char| matches!(c, '1'..='9'))
    }
}

impl Display for Quantity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self("0".into())
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i8>().is_ok());
        match number.parse::<f64>() {
            Ok(_) if exponent || SUFFIXES.contains(&suffix) => Ok(Self(text.to_owned())),
            _ => Err(InvalidQuantity(text.to_owned())),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            other => Err(InvalidQuantity(other.to_string())),
        }
        .map_err(de::Error::custom)
    }
}

impl Serialize for FlushFrequency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_number {
            serializer.serialize_i64(self.duration.nanos())
        } else {
            self.duration.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for FlushFrequency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Some(nanoseconds) = value.as_i64() {
            return Ok(Self { duration: GoDuration::from_nanos(nanoseconds), is_number: true });
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.parse::<GoDuration>().map(Self::from).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_and_written(value: Value) -> Result<Value, String> {
        let read: FlushFrequency = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(read).unwrap())
    }

    #[test]
    fn a_flush_frequency_is_a_duration_or_nanoseconds() {
        for same in [json!("5s"), json!("1m30s"), json!(5_000_000_000_i64), json!(0), json!(-3)] {
            assert_eq!(read_and_written(same.clone()), Ok(same));
        }
        for bad in [json!("5"), json!("soon"), json!(1.5), json!(true)] {
            assert!(read_and_written(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_numbers_with_a_suffix() {
        for (good, zero) in [
            ("0", true),
            ("-0.0e3", true),
            ("512", false),
            ("1.5Mi", false),
            ("+2e3", false),
            ("1E", false),
            (".5k", false),
        ] {
            assert_eq!(good.parse::<Quantity>().map(|quantity| quantity.is_zero()), Ok(zero), "{good}");
        }
        for bad in ["", "Ki", "1.2.3", "1kb", "1e", "0x10", "1 k", "."] {
            assert_eq!(bad.parse::<Quantity>(), Err(InvalidQuantity(bad.into())));
        }
        assert_eq!(serde_json::from_value::<Quantity>(json!(1024)).unwrap(), "1024".parse().unwrap());
    }
}
