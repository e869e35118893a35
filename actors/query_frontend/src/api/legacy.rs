//! Searches of the time before TraceQL, said in TraceQL: `tags`, `minDuration`, `maxDuration`.
//!
//! Each tag is a filter of its own, because another span of the trace may have it. Names of services and spans match any part
//! of the text; other attributes match a text exactly.

use std::fmt::Write;

use crate::params::{BadParam, Params};
use crate::respond::Refusal;

/// The query that a request without `q` means.
pub(crate) fn query(params: &Params) -> Result<String, Refusal> {
    let mut filters = Vec::new();
    for (key, value) in tags(params.get("tags").unwrap_or(""))? {
        filters.push(format!("{{ {} }}", condition(&key, &value)));
    }
    let (min, max) = (params.go_duration("minDuration")?, params.go_duration("maxDuration")?);
    if let (Some(min), Some(max)) = (min, max)
        && max <= min
    {
        return Err(Refusal::bad("invalid maxDuration: must be greater than minDuration"));
    }
    let bounds = [
        min.map(|d| format!("traceDuration >= {}ns", d.as_nanos())),
        max.map(|d| format!("traceDuration <= {}ns", d.as_nanos())),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    if !bounds.is_empty() {
        filters.push(format!("{{ {} }}", bounds.join(" && ")));
    }
    Ok(if filters.is_empty() { "{ }".to_owned() } else { filters.join(" && ") })
}

/// One tag as a condition: the names with a meaning of their own first, then an attribute of span or resource.
fn condition(key: &str, value: &str) -> String {
    match key {
        "service.name" => format!("resource.service.name =~ {}", part(value)),
        "name" => format!("name =~ {}", part(value)),
        "root.name" => format!("rootName =~ {}", part(value)),
        "root.service.name" => format!("rootServiceName =~ {}", part(value)),
        "status.code" if matches!(value, "ok" | "error" | "unset") => format!("status = {value}"),
        "error" if value == "true" => "status = error".to_owned(),
        "http.status_code" if value.parse::<i64>().is_ok() => format!("span.http.status_code = {value}"),
        // Either may have it; `.key` would not look behind a span's own.
        _ => {
            let (key, value) = (quote(key), quote(value));
            format!("span.{key} = {value} || resource.{key} = {value}")
        }
    }
}

/// A pattern for texts that contain this one.
fn part(text: &str) -> String {
    quote(&format!(".*{}.*", regex::escape(text)))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or(()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `k=v k2="v 2"`.
fn tags(text: &str) -> Result<Vec<(String, String)>, BadParam> {
    let mut tags: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = rest[..end].to_owned();
        if key.contains('"') {
            return Err(BadParam(format!("invalid tags: unexpected '\"' in the name of tag {key}")));
        }
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            if let Some(quoted) = after.strip_prefix('"') {
                let mut chars = quoted.char_indices();
                let mut closed = None;
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' => {
                            closed = Some(at + 1);
                            break;
                        }
                        '\\' => value.extend(chars.next().map(|(_, c)| c)),
                        c => value.push(c),
                    }
                }
                let Some(closed) = closed else {
                    return Err(BadParam(format!("invalid tags: the value of tag {key} has no closing quote")));
                };
                rest = &quoted[closed..];
            } else {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                after[..end].clone_into(&mut value);
                rest = &after[end..];
            }
        }
        if key.is_empty() {
            return Err(BadParam("invalid tags: a tag has no name".into()));
        }
        if tags.iter().any(|(k, _)| *k == key) {
            return Err(BadParam(format!("invalid tags: tag {key} has been set twice")));
        }
        tags.push((key, value));
        rest = rest.trim_start();
    }
    Ok(tags)
}

/// Tags as a request over HTTP has them.
pub(crate) fn written_tags<'a>(tags: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    tags.into_iter().map(|(key, value)| format!("{key}=\"{}\"", quoted(value))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use vivace_traceql::Query;

    use super::*;

    fn text(query_string: &str) -> Result<String, String> {
        query(&Params::parse(query_string)).map_err(|refusal| refusal.text)
    }

    #[test]
    fn older_searches_become_traceql() {
        assert_eq!(text("").unwrap(), "{ }");
        assert_eq!(
            text("tags=service.name%3Dshop%20name%3D%22GET%20%2F%22&minDuration=10ms").unwrap(),
            "{ resource.service.name =~ \".*shop.*\" } && { name =~ \".*GET /.*\" } && \
             { traceDuration >= 10000000ns }"
        );
        assert_eq!(text("tags=a%3D1").unwrap(), "{ span.\"a\" = \"1\" || resource.\"a\" = \"1\" }");
        assert_eq!(text("tags=http.status_code%3D500").unwrap(), "{ span.http.status_code = 500 }");
        assert_eq!(text("tags=status.code%3Derror").unwrap(), "{ status = error }");
    }

    #[test]
    fn errors_read_as_tempo_says_them() {
        assert_eq!(text("tags=a%3D1%20a%3D2").unwrap_err(), "invalid tags: tag a has been set twice");
        assert_eq!(
            text("minDuration=5s&maxDuration=1s").unwrap_err(),
            "invalid maxDuration: must be greater than minDuration"
        );
        assert_eq!(text("minDuration=10").unwrap_err(), "invalid minDuration: time: missing unit in duration \"10\"");
    }

    #[test]
    fn every_made_query_parses() {
        for tags in ["a=b", "x.y=\"a\\\\b \\\"c\"", "status.code=error", "k", "name=a.b*(", "error=true"] {
            let encoded: String = tags.bytes().map(|b| format!("%{b:02X}")).collect();
            let query = text(&format!("tags={encoded}&minDuration=1ms&maxDuration=1h")).unwrap();
            Query::parse(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
        }
    }

    #[test]
    fn tags_written_are_tags_read() {
        let due = [("a".to_owned(), "x \"y\" \\ z".to_owned()), ("b".to_owned(), String::new())];
        let text = written_tags(due.iter().map(|(key, value)| (key, value)));
        assert_eq!(tags(&text).unwrap(), due);
    }

    #[test]
    fn a_quote_in_a_name_is_refused_in_place_of_a_tag_that_nobody_meant() {
        for wrong in ["%22a=b", "weird%22key=1"] {
            let refusal = text(&format!("tags={wrong}")).unwrap_err();
            assert!(refusal.starts_with("invalid tags: unexpected '\"'"), "{refusal}");
        }
    }
}
