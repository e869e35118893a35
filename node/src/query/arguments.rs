//! The command line of `vivace query`, in the style of the process's own: one dash or two, `-name value` or `-name=value`,
//! booleans by name alone. A flag that means nothing to a command is refused rather than ignored.

use std::fmt::Write;

use super::times::{Times, TimesError};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Trace(String),
    Search(String),
    Tags,
    Values(String),
    Metrics(String),
    /// A query, or the id of a trace.
    Explain(String),
}

/// How the answer is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Output {
    #[default]
    Table,
    /// The answer of the API, unchanged.
    Json,
}

/// A whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) command: Command,
    pub(super) url: String,
    pub(super) grpc: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) times: Times,
    pub(super) limit: Option<u32>,
    /// Where a trace goes on behind the page before.
    pub(super) page: Option<String>,
    pub(super) step: Option<String>,
    pub(super) instant: bool,
    pub(super) scope: Option<String>,
    pub(super) filter: Option<String>,
    pub(super) output: Output,
}

/// Why a command line is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgumentError {
    #[error("nothing is asked: say one of trace, search, tags, values, metrics, explain")]
    NoCommand,
    #[error("there is no `query {0}`; there are trace, search, tags, values, metrics, explain")]
    NoSuchCommand(String),
    #[error("`query {command}` needs {what}")]
    NoWord { command: &'static str, what: &'static str },
    #[error("unexpected argument {0:?} (a query with blanks stands in quotes)")]
    Unexpected(String),
    #[error("{0:?} is no trace id: 1 to 32 hexadecimal digits")]
    NoTraceId(String),
    #[error("there is no flag -{0}")]
    NoSuchFlag(String),
    #[error("-{flag} means nothing to `query {command}`; it belongs to {commands}")]
    NotHere { flag: &'static str, command: &'static str, commands: &'static str },
    #[error("-{0} needs a value")]
    NoValue(&'static str),
    #[error("-{flag}={value:?}: {reason}")]
    Value { flag: &'static str, value: String, reason: String },
    #[error(transparent)]
    Times(#[from] TimesError),
}

struct Flag {
    name: &'static str,
    /// Shown behind the name; empty for a boolean.
    value: &'static str,
    /// The commands that it belongs to, empty for all.
    commands: &'static str,
    meaning: &'static str,
}

const fn flag(name: &'static str, value: &'static str, commands: &'static str, meaning: &'static str) -> Flag {
    Flag { name, value, commands, meaning }
}

const FLAGS: [Flag; 13] = [
    flag("url", "URL", "", "Where the HTTP API is (default http://localhost:3200)."),
    flag(
        "grpc",
        "HOST:PORT",
        "search, tags, values, metrics",
        "Ask the streaming gRPC API there, with a progress bar.",
    ),
    flag("tenant", "ID", "", "Whose data, where multitenancy is enabled; several as a|b."),
    flag("start", "TIME", "", "Unix seconds, RFC 3339, now, or now-1h."),
    flag("end", "TIME", "", "As -start; now if left out."),
    flag("since", "DURATION", "", "The time before -end, such as 30m or 1d12h."),
    flag(
        "limit",
        "N",
        "trace, search, tags, values, metrics, explain",
        "At most so many traces, tags, values or series; of a trace the first spans by their start.",
    ),
    flag("page", "PLACE", "trace", "The spans behind those shown before, as that answer says."),
    flag(
        "step",
        "DURATION",
        "metrics, explain",
        "Distance of the points, such as 30s; chosen by the range if left out.",
    ),
    flag("instant", "", "metrics, explain", "One value for the whole range instead of points."),
    flag("scope", "SCOPE", "tags", "span, resource, event, link, instrumentation or intrinsic."),
    flag("filter", "QUERY", "tags, values", "Only of spans that this query selects."),
    flag("output", "table|json", "", "table for people (default), json as the API answers."),
];

/// Whether help is asked for, wherever on the line.
pub(super) fn asks_for_help(arguments: &[String]) -> bool {
    let mut flags = arguments.iter().take_while(|argument| *argument != "--");
    arguments.first().is_some_and(|first| first == "help")
        || flags.any(|argument| matches!(argument.as_str(), "-h" | "-help" | "--help"))
}

/// Reads the arguments behind `query`.
pub(super) fn parse(arguments: &[String]) -> Result<Arguments, ArgumentError> {
    let mut words: Vec<&str> = Vec::new();
    let mut values: Vec<(&'static Flag, String)> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            words.extend(rest.by_ref().map(String::as_str));
            break;
        }
        let body = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).filter(|body| !body.is_empty());
        let Some(body) = body else {
            words.push(argument);
            continue;
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let known = FLAGS.iter().find(|flag| flag.name == name);
        let known = known.ok_or_else(|| ArgumentError::NoSuchFlag(name.to_owned()))?;
        let value = match inline {
            Some(value) => value,
            None if known.value.is_empty() => "true".to_owned(),
            None => rest.next().cloned().ok_or(ArgumentError::NoValue(known.name))?,
        };
        values.push((known, value));
    }
    let (command, name) = command(&words)?;
    for (flag, _) in &values {
        if !flag.commands.is_empty() && !flag.commands.split(", ").any(|command| command == name) {
            return Err(ArgumentError::NotHere { flag: flag.name, command: name, commands: flag.commands });
        }
    }
    let mut parsed = Arguments {
        command,
        url: "http://localhost:3200".to_owned(),
        grpc: None,
        tenant: None,
        times: Times::default(),
        limit: None,
        page: None,
        step: None,
        instant: false,
        scope: None,
        filter: None,
        output: Output::default(),
    };
    for (flag, value) in values {
        set(&mut parsed, flag.name, value)?;
    }
    if parsed.instant && parsed.step.is_some() {
        let reason = "an instant query has one point and no step; leave out one of the two".to_owned();
        return Err(ArgumentError::Value { flag: "step", value: parsed.step.unwrap_or_default(), reason });
    }
    Ok(parsed)
}

fn set(parsed: &mut Arguments, flag: &'static str, value: String) -> Result<(), ArgumentError> {
    let wrong = |reason: &str| ArgumentError::Value { flag, value: value.clone(), reason: reason.to_owned() };
    if value.is_empty() {
        return Err(wrong("it is empty"));
    }
    match flag {
        "url" => parsed.url = value,
        "grpc" => parsed.grpc = Some(value),
        "tenant" => parsed.tenant = Some(value),
        "start" => parsed.times.set_start(&value)?,
        "end" => parsed.times.set_end(&value)?,
        "since" => parsed.times.set_since(&value)?,
        "limit" => {
            let limit = value.parse().ok().filter(|limit| *limit > 0);
            parsed.limit = Some(limit.ok_or_else(|| wrong("a whole number above 0 is needed"))?);
        }
        "page" => parsed.page = Some(value),
        "step" => parsed.step = Some(value),
        "instant" => {
            parsed.instant = match value.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(wrong("true or false")),
            }
        }
        "scope" => parsed.scope = Some(value),
        "filter" => parsed.filter = Some(value),
        _ => {
            parsed.output = match value.as_str() {
                "table" => Output::Table,
                "json" => Output::Json,
                _ => return Err(wrong("table or json")),
            }
        }
    }
    Ok(())
}

fn command(words: &[&str]) -> Result<(Command, &'static str), ArgumentError> {
    let mut words = words.iter().copied();
    let name = words.next().ok_or(ArgumentError::NoCommand)?;
    let mut word = |command: &'static str, what: &'static str| {
        words.next().map(str::to_owned).ok_or(ArgumentError::NoWord { command, what })
    };
    let known = match name {
        "trace" => {
            let id = word("trace", "a trace id")?;
            if !is_trace_id(&id) {
                return Err(ArgumentError::NoTraceId(id));
            }
            (Command::Trace(id), "trace")
        }
        "search" => (Command::Search(word("search", "a query, such as '{ status = error }'")?), "search"),
        "tags" => (Command::Tags, "tags"),
        "values" => (Command::Values(word("values", "a tag, such as resource.service.name")?), "values"),
        "metrics" => (Command::Metrics(word("metrics", "a query, such as '{ } | rate()'")?), "metrics"),
        "explain" => (Command::Explain(word("explain", "a query or a trace id")?), "explain"),
        other => return Err(ArgumentError::NoSuchCommand(other.to_owned())),
    };
    match words.next() {
        Some(more) => Err(ArgumentError::Unexpected(more.to_owned())),
        None => Ok(known),
    }
}

pub(super) fn is_trace_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What `vivace query -help` prints.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "Usage: vivace query trace ID | search QUERY | tags | values TAG | metrics QUERY | explain QUERY|ID  [flags]\n\n\
         Flags, with one dash or two:\n",
    );
    for flag in FLAGS {
        let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
        let only = if flag.commands.is_empty() { String::new() } else { format!(" For {}.", flag.commands) };
        writeln!(text, "  -{}{value}\n        {}{only}", flag.name, flag.meaning).unwrap_or(());
    }
    text.push_str(
        "\nExit codes: 0 answered, 1 the query failed, 2 wrong command line, 3 no such trace, 4 answered, but incompletely.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Result<Arguments, String> {
        let owned: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        parse(&owned).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_stand_before_or_behind_the_query_with_one_dash_or_two() {
        let expected = line(&["search", "{ .a = 1 }", "-limit", "5", "--output=json", "--tenant=a|b"]).unwrap();
        assert_eq!(expected.command, Command::Search("{ .a = 1 }".into()));
        assert_eq!((expected.limit, expected.output), (Some(5), Output::Json));
        assert_eq!(expected.tenant.as_deref(), Some("a|b"));
        assert_eq!(
            line(&["--limit=5", "-output", "json", "search", "-tenant", "a|b", "{ .a = 1 }"]).unwrap(),
            expected
        );
        assert_eq!(
            line(&["--tenant=a|b", "--limit=5", "--output=json", "--", "search", "{ .a = 1 }"]).unwrap(),
            expected
        );
    }

    #[test]
    fn every_command_is_read() {
        assert_eq!(line(&["trace", "AbC"]).unwrap().command, Command::Trace("AbC".into()));
        assert_eq!(line(&["tags", "-scope=span"]).unwrap().scope.as_deref(), Some("span"));
        assert_eq!(line(&["values", "name", "-filter", "{ }"]).unwrap().filter.as_deref(), Some("{ }"));
        let metrics = line(&["metrics", "{ } | rate()", "-instant"]).unwrap();
        assert!(metrics.instant && metrics.grpc.is_none() && metrics.url == "http://localhost:3200");
        assert_eq!(line(&["explain", "{ }"]).unwrap().command, Command::Explain("{ }".into()));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let cases: [(&[&str], &str); 12] = [
            (&[], "nothing is asked: say one of trace, search, tags, values, metrics, explain"),
            (&["find"], "there is no `query find`; there are trace, search, tags, values, metrics, explain"),
            (&["search"], "`query search` needs a query, such as '{ status = error }'"),
            (&["trace", "xyz"], "\"xyz\" is no trace id: 1 to 32 hexadecimal digits"),
            (&["search", "{", "}"], "unexpected argument \"}\" (a query with blanks stands in quotes)"),
            (&["tags", "-colour=red"], "there is no flag -colour"),
            (&["tags", "-step=5s"], "-step means nothing to `query tags`; it belongs to metrics, explain"),
            (&["search", "{ }", "-page=3"], "-page means nothing to `query search`; it belongs to trace"),
            (&["tags", "-limit"], "-limit needs a value"),
            (&["tags", "-limit=0"], "-limit=\"0\": a whole number above 0 is needed"),
            (&["tags", "-output=xml"], "-output=\"xml\": table or json"),
            (
                &["metrics", "{ } | rate()", "-instant", "-step=5s"],
                "-step=\"5s\": an instant query has one point and no step; leave out one of the two",
            ),
        ];
        for (arguments, message) in cases {
            assert_eq!(line(arguments).unwrap_err(), message, "{arguments:?}");
        }
    }

    #[test]
    fn help_is_asked_for_anywhere_but_behind_two_dashes() {
        let asks = |line: &[&str]| asks_for_help(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        for line in [&["help"][..], &["-h"], &["search", "-h"], &["search", "{ }", "--help"], &["tags", "-help"]] {
            assert!(asks(line), "{line:?}");
        }
        for line in [&[][..], &["search", "help"], &["search", "--", "-h"], &["tags", "-limit=5"]] {
            assert!(!asks(line), "{line:?}");
        }
    }

    #[test]
    fn help_names_every_flag_and_exit_code() {
        let help = help();
        for flag in FLAGS {
            assert!(help.contains(&format!("\n  -{}", flag.name)), "{}", flag.name);
        }
        assert!((0..=4).all(|code| help.contains(&format!("{code} "))));
    }
}
