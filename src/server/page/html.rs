//! HTML in which nothing from elsewhere can be markup: markup is what this program's source has, all else is escaped.

use std::fmt::Display;

/// A document that grows.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Adds markup, which has to be in the source.
    pub fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text, within an element or between the quotation marks of an attribute.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        for letter in text.to_string().chars() {
            match letter {
                // What begins or ends markup.
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                letter => self.0.push(letter),
            }
        }
        self
    }

    /// Adds an element with a text in it, between its two tags.
    pub fn element(&mut self, [start, end]: [&'static str; 2], text: impl Display) -> &mut Self {
        self.markup(start).text(text).markup(end)
    }

    /// The document.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let mut html = Html::default();
        html.element(["<td title=\"", "\">"], "\"' onclick=x").element(["", "</td>"], "<script>a && b</script>");
        let wanted = "<td title=\"&quot;&#39; onclick=x\">&lt;script&gt;a &amp;&amp; b&lt;/script&gt;</td>";
        assert_eq!(html.finish(), wanted);
    }
}
