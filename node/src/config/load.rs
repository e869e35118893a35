//! From a command line to a configuration: defaults, file, environment, flags, what the target forces.

use std::{collections::BTreeMap, path::PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::Serialized,
    value::{Dict, Map},
};
use vivace_runtime::config::Described;

use super::{
    CommandLine, Config, Environment, ExpandError, Invalid, Problem, Target, TargetError, Warning,
    check::Checked,
    effects, environment, expand, legacy, render, target, warnings,
    yaml::{self, Position, Value},
};

/// A configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values in effect.
    pub config: Box<Config>,
    /// What to run.
    pub target: Target,
    /// Valid keys without effect: one sentence each. They do not fail `-config.verify`.
    pub notices: Vec<String>,
    /// What Tempo warns of. Any one fails `-config.verify`.
    pub warnings: Vec<Warning>,
    /// Where each value that is no default came from, by key.
    pub sources: BTreeMap<String, Source>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file, with the place in it.
    File(Position),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
    /// The target forces it.
    Target,
}

impl std::fmt::Display for Source {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(at) => write!(out, "file, line {}", at.line),
            Self::Environment(name) => write!(out, "environment variable {name}"),
            Self::Flag(name) => write!(out, "flag -{name}"),
            Self::Target => out.write_str("forced by the target"),
        }
    }
}

/// Why there is no configuration. The process exits with 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed parsing config: failed to read configFile {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `${…}` in the file cannot be expanded.
    #[error("failed parsing config: failed to expand env vars from configFile {file}: {source}")]
    Expand {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: ExpandError,
    },
    /// The file or the environment does not fit; everything that is wrong.
    #[error("failed parsing config: failed to parse {origin}:{}", listed(problems))]
    Parse {
        /// The file, or the environment.
        origin: String,
        /// Everything that is wrong, in the order of the text.
        problems: Vec<Problem>,
    },
    /// The layers do not fit together.
    #[error("failed parsing config: {0}")]
    Layers(#[source] Box<figment::Error>),
    /// No such target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A value that no process can run with.
    #[error(transparent)]
    Invalid(Box<Invalid>),
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// One layer, already checked.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

const RECEIVERS: &str = "distributor.receivers.";

/// Loads the configuration that a command line asks for.
///
/// # Errors
///
/// The file cannot be read, expanded or understood, a value is impossible, or the target does not exist.
pub fn load(line: &CommandLine, environment: &Environment) -> Result<Loaded, Error> {
    let text = match &line.file {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?),
        None => None,
    };
    load_text(line, environment, text.as_deref())
}

/// Loads with the text of a file that was already read.
pub(super) fn load_text(line: &CommandLine, environment: &Environment, text: Option<&str>) -> Result<Loaded, Error> {
    let mut sources = BTreeMap::new();
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    let mut legacy_overrides = false;

    if let Some(text) = text {
        let name = line.file.clone().unwrap_or_else(|| "configuration".into());
        let file = read_file(line, environment, &name, text)?;
        legacy_overrides = file.legacy_overrides;
        sources.extend(file.positions.into_iter().map(|(key, at)| (key, Source::File(at))));
        figment = figment.merge(Layer { name, dict: file.dict });
    }

    let (dict, set, problems) = environment.layer();
    if !problems.is_empty() {
        return Err(Error::Parse { origin: "the environment".into(), problems });
    }
    sources.extend(set.into_iter().map(|(key, name)| (key, Source::Environment(name))));
    figment = figment.merge(Layer { name: "environment".into(), dict });

    let mut dict = Dict::new();
    for value in &line.values {
        environment::insert(&mut dict, &value.key.split('.').collect::<Vec<_>>(), value.layer().clone());
        sources.insert(value.key.to_owned(), Source::Flag(value.flag.clone()));
    }
    figment = figment.merge(Layer { name: "flags".into(), dict });

    let mut config: Box<Config> = extract(&figment).map_err(Error::Layers)?;
    let target: Target = config.target.parse()?;
    config.validate_process().map_err(|invalid| Error::Invalid(Box::new(invalid)))?;

    // Receivers have no defaults to differ from: what counts of them is what was written.
    let written = sources.keys().filter(|key| key.starts_with(RECEIVERS)).cloned();
    let changed: Vec<String> =
        render::changed(&config).into_iter().filter(|key| !key.starts_with(RECEIVERS)).chain(written).collect();
    let mut notices = effects::notices(&changed);
    let forced = target::force(target, &mut config);
    for key in forced {
        if changed.iter().any(|changed| changed == key) {
            notices.push(format!("{key} has no effect with target all, which keeps its rings in memory"));
        }
        sources.insert(key.to_owned(), Source::Target);
    }
    let warnings = warnings::warnings(&config, target, legacy_overrides);
    Ok(Loaded { config, target, notices, warnings, sources })
}

/// What the layers say together. Figment compiles each type many times over, four megabytes of code for a configuration that is
/// read once; so it gives a plain value, and that becomes the type.
pub(super) fn extract<T: serde::de::DeserializeOwned>(figment: &Figment) -> Result<T, Box<figment::Error>> {
    let value: serde_json::Value = figment.extract().map_err(Box::new)?;
    serde_json::from_value(value).map_err(|error| Box::new(serde::de::Error::custom(error)))
}

struct File {
    dict: Dict,
    positions: BTreeMap<String, Position>,
    legacy_overrides: bool,
}

fn read_file(line: &CommandLine, environment: &Environment, name: &str, text: &str) -> Result<File, Error> {
    let expanded;
    let text = if line.expand_env {
        expanded = expand(text, &|variable| environment.get(variable))
            .map_err(|source| Error::Expand { file: name.to_owned(), source })?;
        &expanded
    } else {
        text
    };
    let failed = |problems| Error::Parse { origin: format!("configFile {name}"), problems };
    let mut root = yaml::parse(text)
        .map_err(|error| failed(vec![Problem { at: error.at, path: String::new(), message: error.message }]))?;
    let legacy_overrides = legacy::unflatten_main(&mut root);
    let mut checked = Checked::default();
    let dict = match root.value {
        Value::Null => Dict::new(),
        _ => checked.section(&root, &Config::shape(), ""),
    };
    if legacy_overrides && !legacy_allowed(line, &dict) {
        checked.problems.push(Problem {
            at: root.get("overrides").map(|node| node.at),
            path: "overrides".into(),
            message:
                "the flat form of older versions is not accepted; write the keys below `overrides.defaults`, or set \
                      enable_legacy_overrides: true (-config.enable-legacy-overrides)"
                    .into(),
        });
    }
    if !checked.problems.is_empty() {
        checked.problems.sort_by_key(|problem| problem.at);
        return Err(failed(checked.problems));
    }
    Ok(File { dict, positions: checked.positions, legacy_overrides })
}

fn legacy_allowed(line: &CommandLine, dict: &Dict) -> bool {
    let in_file = dict
        .get("overrides")
        .and_then(|overrides| overrides.as_dict())
        .and_then(|overrides| overrides.get("enable_legacy_overrides"))
        .and_then(|enabled| enabled.to_bool());
    let flag = line.values.iter().rev().find(|value| value.key == "overrides.enable_legacy_overrides");
    flag.map_or_else(|| in_file == Some(true), |flag| flag.layer().to_bool() == Some(true))
}
