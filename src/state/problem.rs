//! Problems with the input, as values: which object, which field, what is wrong.

use super::ObjectName;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A document in a manifest.
    Manifest {
        /// The file's path as the user would write it.
        file: Arc<str>,
        /// Counted from 1 within the file; 0 stands for the whole file.
        document: usize,
    },
    /// The Kubernetes API.
    Api,
    /// No object at all: what is on this node beside ipvsd.
    Node,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest { file, document: 0 } => f.write_str(file),
            Self::Manifest { file, document } => write!(f, "{file}, document {document}"),
            Self::Api => f.write_str("the API"),
            Self::Node => f.write_str("this node"),
        }
    }
}

/// Kind and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectRef {
    /// A v1 Service.
    Service(ObjectName),
    /// A discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(ObjectName),
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::EndpointSlice(name) => write!(f, "EndpointSlice {name}"),
        }
    }
}

/// Something in the input that cannot be done as it stands. It costs its own object only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// File and document, the API, or this node.
    pub origin: Origin,
    /// The object, where the document got far enough to say which.
    pub object: Option<ObjectRef>,
    /// The path of the field, such as `spec.ports[0].port`; empty where no field is to blame.
    pub field: String,
    /// What is wrong and, where that is not plain, what ipvsd does about it.
    pub message: String,
}

impl fmt::Display for Problem {
    /// One line of bounded length without control characters: names, fields and messages come from files that anybody may
    /// have written, and go to logs and terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", OneLine(&self.origin))?;
        if let Some(object) = &self.object {
            write!(f, "{}: ", OneLine(object))?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", OneLine(&self.field))?;
        }
        OneLine(&self.message).fmt(f)
    }
}

/// A text from outside as one line without control characters, which are written as escapes (`\n`, `\u{1b}`), as are those
/// that end a line or turn its direction.
///
/// Of more than 1,000 characters the first 700 and the last 300 are shown, and between them how many are not: more than
/// any name that Kubernetes allows, what is wrong with it included.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<T>(pub T);

/// How many characters of a text that is too long are shown of its beginning and of its end.
const BEGINNING: usize = 700;
const END: usize = 300;

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let left_out = text.chars().count().saturating_sub(BEGINNING + END);
        if left_out == 0 {
            return escape(text.chars(), f);
        }
        escape(text.chars().take(BEGINNING), f)?;
        write!(f, "... ({left_out} more) ...")?;
        escape(text.chars().skip(BEGINNING + left_out), f)
    }
}

fn escape(mut text: impl Iterator<Item = char>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    text.try_for_each(|c| if is_control(c) { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
}

/// Besides Unicode's own control characters: its line and paragraph separators, and the marks of UAX #9 (bidirectional
/// text), with which a line can be made to read as another.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_its_object_is_called() {
        let problem = Problem {
            origin: Origin::Manifest { file: "a\nb.yaml".into(), document: 1 },
            object: Some(ObjectRef::Service(ObjectName::new("n\rs", "web\n2026 INFO all is well\u{1b}[2K"))),
            field: "metadata.annotations[x\u{202e}y]".into(),
            message: "\"caf\u{e9}\\n\"\u{9b}\0 is not a name".into(),
        };
        assert_eq!(
            problem.to_string(),
            "a\\nb.yaml, document 1: Service n\\rs/web\\n2026 INFO all is well\\u{1b}[2K: \
             metadata.annotations[x\\u{202e}y]: \"café\\n\"\\u{9b}\\u{0} is not a name"
        );
    }

    #[test]
    fn of_a_long_name_the_beginning_and_what_is_wrong_with_it_are_shown() {
        let name = "\u{e4}".repeat(100_000);
        let problem = Problem {
            origin: Origin::Api,
            object: Some(ObjectRef::Service(ObjectName::new("default", &name))),
            field: "metadata.name".into(),
            message: format!("{name:?} is not a name: {}", "b".repeat(250)),
        };
        let text = problem.to_string();
        assert!(text.starts_with("the API: Service default/\u{e4}"), "{text}");
        assert!(text.contains("\u{e4}... (99016 more) ...\u{e4}"), "{text}");
        assert!(text.ends_with(&format!("\u{e4}\" is not a name: {}", "b".repeat(250))), "{text}");
        assert!(text.chars().count() < 2_200, "{text}");
        let whole = "a".repeat(BEGINNING + END);
        assert_eq!(OneLine(&whole).to_string(), whole);
    }
}
