//! What an answer says about what was not read: the coverage header, and the status in the body.

use serde_json::Value;

/// In words what is missing, none when everything was read.
///
/// The header is `read=3/4; skipped="what: why"; …`.
pub(super) fn missing(header: Option<&str>, body: &Value) -> Option<String> {
    let mut reasons = Vec::new();
    let header = header.unwrap_or("");
    let mut read_all = true;
    if let Some((read, total)) = header.strip_prefix("read=").and_then(|rest| rest.split(';').next()?.split_once('/')) {
        read_all = read == total;
        if !read_all {
            reasons.push(format!("{read} of {total} sources were read"));
        }
    }
    let mut rest = header;
    while let Some(at) = rest.find("skipped=\"") {
        let text = &rest[at + 9..];
        let end = closing_quote(text);
        reasons.push(super::table::plain(&text[..end].replace("\\\"", "\"")));
        read_all = false;
        rest = &text[end..];
    }
    let partial = body["status"].as_str() == Some("PARTIAL");
    // The body's message of an incomplete read says the same as the header.
    if partial && (read_all || reasons.is_empty()) {
        reasons.push(super::table::plain(body["message"].as_str().unwrap_or("the answer is partial")));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return at,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_answer_misses_nothing() {
        assert_eq!(missing(Some("read=4/4"), &serde_json::json!({})), None);
        assert_eq!(missing(None, &serde_json::json!({"status": "COMPLETE"})), None);
    }

    #[test]
    fn what_was_skipped_is_told_with_the_reason() {
        let header = r#"read=3/5; skipped="live-store: \"x\" refused"; skipped="block 1: gone""#;
        let told = missing(Some(header), &Value::Null).unwrap();
        assert_eq!(told, "3 of 5 sources were read; live-store: \"x\" refused; block 1: gone");
    }

    #[test]
    fn a_limit_of_the_answer_is_told_by_the_body() {
        let body = serde_json::json!({"status": "PARTIAL", "message": "too many series"});
        assert_eq!(missing(Some("read=4/4"), &body).unwrap(), "too many series");
    }
}
