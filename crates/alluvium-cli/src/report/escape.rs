//! Text and data on their way into a page: nothing in a result may become markup or script.

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Text between tags or in a quoted attribute.
pub(crate) fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// JSON inside a `script` element, where `</script` and `<!--` would end or change it: only strings can
/// hold these characters, and in strings JSON lets them be written by their number.
pub(crate) fn json(data: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(data)
        .map_err(|error| Failure::new(format!("cannot write the charts' data as JSON: {error}")))?;
    Ok(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(
            text("<b class='x'>\"A&B\"</b>"),
            "&lt;b class=&#39;x&#39;&gt;&quot;A&amp;B&quot;&lt;/b&gt;"
        );
        assert_eq!(text("2 × 50 µs"), "2 × 50 µs");
    }

    #[test]
    fn json_cannot_leave_its_script_and_means_the_same() {
        let hostile = "</script><!--<script>&\u{2028}\\\"";
        let written = json(&[hostile]).unwrap();
        assert!(!written.contains(['<', '>', '&']), "{written}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), [hostile]);
    }
}
