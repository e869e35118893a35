//! Command-line flags in Go's style: one or two dashes, `-name value` or `-name=value`, booleans by name alone.

use figment::value::Value as Layer;
use vivace_runtime::config::{Described, Shape};

use super::{Config, check::Checked, flag_table::FLAGS, problem::nearest, yaml};

/// Flags of the process, which set no key: name, whether it is a boolean, default, meaning.
const PROCESS: &[(&str, bool, &str, &str)] = &[
    ("config.file", false, "", "Path of the configuration file. Repeated: the last one counts."),
    ("config.expand-env", true, "false", "Expand ${VAR} in the configuration file."),
    ("config.verify", true, "false", "Load the configuration, print warnings, exit 1 if there are any."),
    ("version", true, "false", "Print the version and exit."),
    ("health", true, "false", "Ask /ready of a running process and exit 0 or 1."),
    ("health.url", false, "http://localhost:3200/ready", "What -health asks."),
    ("mutex-profile-fraction", false, "0", "Accepted, no effect."),
    ("block-profile-threshold", false, "0", "Accepted, no effect."),
    ("help", true, "false", "Print this list and exit."),
    ("h", true, "false", "Print this list and exit."),
];

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Action {
    /// Run the target.
    #[default]
    Run,
    /// `-config.verify`.
    Verify,
    /// `check-config`: the same with a report for people.
    CheckConfig,
    /// `-version`.
    Version,
    /// `-help`.
    Help,
    /// `-health`, with what to ask.
    Health(String),
    /// Another subcommand with its arguments, which are not looked at here.
    Subcommand(String, Vec<String>),
}

/// A command line.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    /// What to do.
    pub action: Action,
    /// `-config.file`.
    pub file: Option<String>,
    /// `-config.expand-env`.
    pub expand_env: bool,
    /// Values of keys in the order of the command line: flag, key, value.
    pub values: Vec<FlagValue>,
}

/// One flag that sets a key.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagValue {
    /// Name without dashes.
    pub flag: String,
    /// Key with its path.
    pub key: &'static str,
    /// Its value.
    value: Layer,
}

impl FlagValue {
    pub(super) fn layer(&self) -> &Layer {
        &self.value
    }
}

/// What is wrong with a command line. The process exits with 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A flag that does not exist.
    #[error("flag provided but not defined: -{flag}{hint}")]
    Unknown {
        /// The flag.
        flag: String,
        /// The nearest that exists, in words.
        hint: String,
    },
    /// A flag at the end that needs a value.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A value that is not of the flag's type.
    #[error("invalid value \"{value}\" for flag -{flag}: {reason}")]
    Value {
        /// The flag.
        flag: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something like `-=x` or `---x`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// A word where a flag is expected.
    #[error("unexpected argument {0:?} (a boolean flag takes its value with `=`, as in -config.expand-env=true)")]
    Unexpected(String),
}

/// Subcommands; their own arguments are not looked at here.
pub(super) const SUBCOMMANDS: [&str; 8] =
    ["check-config", "devbroker", "health", "listeners", "doctor", "blocks", "query", "version"];

/// Reads a command line, without the program's name.
///
/// # Errors
///
/// A flag that does not exist or a value that does not fit.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<CommandLine, Error> {
    let mut line = CommandLine::default();
    let mut arguments = arguments.into_iter().peekable();
    if let Some(name) = arguments.next_if(|first| SUBCOMMANDS.contains(&first.as_str())) {
        match name.as_str() {
            "check-config" => line.action = Action::CheckConfig,
            "version" => line.action = Action::Version,
            _ => {
                line.action = Action::Subcommand(name, arguments.collect());
                return Ok(line);
            }
        }
    }
    let mut health_url = "http://localhost:3200/ready".to_owned();
    while let Some(argument) = arguments.next() {
        let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            // `check-config tempo.yaml` is what people type.
            if line.action == Action::CheckConfig && line.file.is_none() {
                line.file = Some(argument);
                continue;
            }
            return Err(Error::Unexpected(argument));
        };
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(Error::Syntax(argument));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let shape = FLAGS.iter().find(|(flag, _)| *flag == name).map(|(_, key)| (*key, shape_of(key)));
        let boolean = match &shape {
            Some((_, shape)) => matches!(shape, Some(Shape::Bool)),
            None => match PROCESS.iter().find(|(flag, ..)| *flag == name) {
                Some((_, boolean, ..)) => *boolean,
                None => return Err(unknown(name)),
            },
        };
        let value = match inline {
            Some(value) => value,
            None if boolean => "true".to_owned(),
            None => arguments.next().ok_or_else(|| Error::NoValue(name.to_owned()))?,
        };
        if let Some((key, shape)) = shape {
            let value = read(name, &value, shape.as_ref())?;
            line.values.push(FlagValue { flag: name.to_owned(), key, value });
            continue;
        }
        let on = !boolean || go_bool(&value).ok_or_else(|| invalid(name, &value, "parse error"))?;
        match name {
            "config.file" => line.file = Some(value).filter(|file| !file.is_empty()),
            "config.expand-env" => line.expand_env = on,
            "config.verify" if on && line.action == Action::Run => line.action = Action::Verify,
            "version" if on => line.action = Action::Version,
            "health" if on => line.action = Action::Health(String::new()),
            "health.url" => health_url = value,
            "help" | "h" if on => line.action = Action::Help,
            "mutex-profile-fraction" | "block-profile-threshold" if value.parse::<i64>().is_err() => {
                return Err(invalid(name, &value, "parse error"));
            }
            _ => {}
        }
    }
    if let Action::Health(url) = &mut line.action {
        *url = health_url;
    }
    Ok(line)
}

fn invalid(flag: &str, value: &str, reason: &str) -> Error {
    Error::Value { flag: flag.to_owned(), value: value.to_owned(), reason: reason.to_owned() }
}

fn unknown(name: &str) -> Error {
    let known = FLAGS.iter().map(|(flag, _)| *flag).chain(PROCESS.iter().map(|(flag, ..)| *flag));
    let hint = match (name, nearest(name, known.filter(|flag| flag.len() > 1))) {
        ("log.format", _) => " (use server.log_format in the file)".to_owned(),
        (_, Some(near)) => format!(" (did you mean -{near}?)"),
        (_, None) => String::new(),
    };
    Error::Unknown { flag: name.to_owned(), hint }
}

/// Truth values of Go's flags.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn read(flag: &str, text: &str, shape: Option<&Shape>) -> Result<Layer, Error> {
    let Some(shape) = shape else {
        return Err(invalid(flag, text, "the key of this flag does not exist"));
    };
    let node = match shape {
        Shape::Bool => {
            return go_bool(text).map(Layer::from).ok_or_else(|| invalid(flag, text, "parse error"));
        }
        // A bare number is no duration on the command line.
        Shape::Duration => yaml::Node::scalar(text, false),
        Shape::List(_) if !text.starts_with('[') => {
            let items = text.split(',').filter(|item| !item.is_empty()).map(|item| yaml::Node::scalar(item, true));
            yaml::Node { at: yaml::Position::default(), value: yaml::Value::List(items.collect()) }
        }
        Shape::List(_) | Shape::Map(_) => yaml::parse(text).map_err(|error| invalid(flag, text, &error.message))?,
        _ => yaml::Node::scalar(text, true),
    };
    let mut checked = Checked::default();
    let value = checked.value(&node, shape, "");
    if let Some(problem) = checked.problems.first() {
        return Err(invalid(flag, text, &problem.message));
    }
    value.ok_or_else(|| invalid(flag, text, "parse error"))
}

/// What a key holds.
pub(super) fn shape_of(path: &str) -> Option<Shape> {
    let mut shape = Config::shape();
    for name in path.split('.') {
        let Shape::Section(section) = shape else { return None };
        shape = section.keys.iter().find(|key| key.name == name)?.shape();
    }
    Some(shape)
}

/// The list of flags as `-help` prints it.
pub fn help() -> String {
    let defaults = super::render::tree(&Config::default());
    let mut entries: Vec<(String, String)> = PROCESS
        .iter()
        .filter(|(flag, ..)| *flag != "h")
        .map(|(flag, boolean, default, meaning)| {
            let kind = if *boolean { "" } else { " string" };
            let default = if default.is_empty() || *boolean { String::new() } else { format!(" (default {default})") };
            (format!("  -{flag}{kind}"), format!("{meaning}{default}"))
        })
        .collect();
    for (flag, key) in FLAGS {
        let kind = match shape_of(key) {
            None | Some(Shape::Bool) => String::new(),
            Some(Shape::Map(_)) => " JSON".into(),
            Some(shape) => format!(" {}", shape.label()),
        };
        let default = match super::render::at(&defaults, key) {
            None | Some(serde_json::Value::Null | serde_json::Value::Bool(false)) => String::new(),
            Some(serde_json::Value::String(text)) if text.is_empty() => String::new(),
            Some(serde_json::Value::Array(items)) if items.is_empty() => String::new(),
            Some(serde_json::Value::Object(map)) if map.is_empty() => String::new(),
            Some(serde_json::Value::String(text)) => format!(" (default {text})"),
            Some(other) => format!(" (default {other})"),
        };
        entries.push((format!("  -{flag}{kind}"), format!("Sets {key}.{default}")));
    }
    entries.sort();
    let mut out = String::from(
        "Usage: vivace [flags]\n       vivace check-config [file] [flags]\n       vivace health | listeners | blocks | query | \
         devbroker | version …\n\nFlags, with one dash or two:\n",
    );
    for (flag, meaning) in entries {
        out.push_str(&flag);
        out.push_str("\n        ");
        out.push_str(&meaning);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn line(arguments: &[&str]) -> Result<CommandLine, Error> {
        parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    fn message(arguments: &[&str]) -> String {
        line(arguments).unwrap_err().to_string()
    }

    #[test]
    fn every_flag_sets_a_key_that_exists_and_stands_once() {
        let mut seen = BTreeSet::new();
        for (flag, key) in FLAGS {
            assert!(shape_of(key).is_some(), "-{flag} sets {key}, which does not exist");
            assert!(seen.insert(flag), "-{flag} stands twice");
        }
    }

    #[test]
    fn flags_take_one_dash_or_two_and_their_value_either_way() {
        for arguments in
            [vec!["-config.file", "a.yaml", "-target=querier"], vec!["--config.file=a.yaml", "--target", "querier"]]
        {
            let line = line(&arguments).unwrap();
            assert_eq!(line.file.as_deref(), Some("a.yaml"));
            assert_eq!((line.values[0].key, line.values[0].value.as_str()), ("target", Some("querier")));
        }
    }

    #[test]
    fn booleans_stand_alone_or_with_an_equals_sign() {
        assert!(line(&["-config.expand-env"]).unwrap().expand_env);
        assert!(!line(&["-config.expand-env=false"]).unwrap().expand_env);
        assert_eq!(line(&["-config.verify"]).unwrap().action, Action::Verify);
        assert!(message(&["-config.expand-env", "true"]).starts_with("unexpected argument \"true\""));
        assert_eq!(
            message(&["-multitenancy.enabled=maybe"]),
            "invalid value \"maybe\" for flag -multitenancy.enabled: parse error"
        );
    }

    #[test]
    fn wrong_flags_say_so_as_go_does() {
        assert_eq!(message(&["-nope.at.all"]), "flag provided but not defined: -nope.at.all");
        assert_eq!(
            message(&["-server.http-listen-prot=1"]),
            "flag provided but not defined: -server.http-listen-prot (did you mean -server.http-listen-port?)"
        );
        assert_eq!(
            message(&["-log.format=json"]),
            "flag provided but not defined: -log.format (use server.log_format in the file)"
        );
        assert_eq!(message(&["-target"]), "flag needs an argument: -target");
        assert_eq!(message(&["---x"]), "bad flag syntax: ---x");
        assert_eq!(
            message(&["-server.http-listen-port=70000"]),
            "invalid value \"70000\" for flag -server.http-listen-port: out of range, allowed is 0 to 65535"
        );
        assert!(message(&["-shutdown-delay=5"]).contains("`5` has no unit"));
    }

    #[test]
    fn maps_are_json_and_subcommands_keep_their_arguments() {
        let line_of = line(&["-block-builder.assigned-partitions={\"a-0\": [0, 1]}"]).unwrap();
        assert!(line_of.values[0].value.as_dict().unwrap().contains_key("a-0"));
        assert_eq!(
            line(&["blocks", "list", "-x"]).unwrap().action,
            Action::Subcommand("blocks".into(), vec!["list".into(), "-x".into()])
        );
        let check = line(&["check-config", "a.yaml", "-target=all"]).unwrap();
        assert_eq!((check.action, check.file.as_deref()), (Action::CheckConfig, Some("a.yaml")));
        let health = line(&["-health", "-health.url=http://[::1]:3200/ready"]).unwrap();
        assert_eq!(health.action, Action::Health("http://[::1]:3200/ready".into()));
    }

    #[test]
    fn help_lists_every_flag() {
        let help = help();
        for (flag, _) in FLAGS {
            assert!(help.contains(&format!("  -{flag}")), "{flag}");
        }
        assert!(help.contains("(default 3200)"));
        for name in SUBCOMMANDS.iter().filter(|name| **name != "doctor") {
            assert!(help.contains(name), "{name}");
        }
        assert!(!help.contains("doctor"), "there is none yet");
    }
}
