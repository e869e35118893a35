//! The environment as a layer: `VIVACE_SERVER__HTTP_LISTEN_PORT=3201` sets `server.http_listen_port`.
//!
//! Values are read as YAML. A name that fits no key is an error when it has a `__`; without one it is ignored, because
//! orchestrators set variables such as `VIVACE_SERVICE_HOST` on their own.

use std::collections::BTreeMap;

use figment::value::{Dict, Value as Layer};
use vivace_runtime::config::{Section, Shape};

use super::{
    Config,
    check::Checked,
    problem::{Problem, nearest},
    yaml,
};

/// Environment variables. Taken once, in `main`; nothing below looks at the process' own.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// What variables that set keys begin with.
const PREFIX: &str = "VIVACE_";

impl Environment {
    /// The environment of this process. Variables that are not Unicode are left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// For object stores, which may find their credentials there.
    pub(crate) fn of_stores(&self) -> vivace_storage::StoreEnvironment {
        vivace_storage::StoreEnvironment::new(self.0.clone())
    }

    /// The layer, with the variable that set each key; or what is wrong with it.
    pub(super) fn layer(&self) -> (Dict, BTreeMap<String, String>, Vec<Problem>) {
        let mut layer = Dict::new();
        let mut set = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, text) in &self.0 {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
            let key = path.join(".");
            let problem = |message: String| Problem { at: None, path: format!("environment variable {name}"), message };
            let shape = match resolve(&path) {
                Ok(shape) => shape,
                // One word alone is ours only if it is a key and not a section.
                Err(_) if path.len() == 1 => continue,
                Err(Some(near)) => {
                    problems.push(problem(format!("there is no key `{key}`; did you mean `{near}`?")));
                    continue;
                }
                Err(None) => {
                    problems.push(problem(format!("there is no key `{key}`")));
                    continue;
                }
            };
            if path.len() == 1 && matches!(shape, Shape::Section(_)) {
                continue;
            }
            let node = match opened(shape.clone()) {
                // Texts are taken as they are: a password may look like anything.
                Shape::Text | Shape::Secret | Shape::Csv | Shape::TextOrList | Shape::Choice(_) => {
                    yaml::Node::scalar(text, true)
                }
                _ => match yaml::parse(text) {
                    Ok(node) => node,
                    Err(error) => {
                        problems.push(problem(error.message));
                        continue;
                    }
                },
            };
            let mut checked = Checked::default();
            let value = checked.value(&node, &shape, "");
            problems.extend(checked.problems.into_iter().map(|inner| problem(inner.message)));
            if let Some(value) = value {
                insert(&mut layer, &path, value);
                set.insert(key, name.clone());
            }
        }
        (layer, set, problems)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// What a path leads to, or the nearest path there is.
fn resolve(path: &[String]) -> Result<Shape, Option<String>> {
    let mut shape = <Config as vivace_runtime::config::Described>::shape();
    for (depth, name) in path.iter().enumerate() {
        let keys = match opened(shape) {
            // Components are found by their type alone: a variable's name has no place for the slash of `type/name`.
            Shape::Section(Section { keys, .. }) | Shape::Components(keys) => keys,
            Shape::Map(item) => {
                shape = *item;
                continue;
            }
            _ => return Err(None),
        };
        shape = match keys.iter().find(|key| key.name == name) {
            Some(key) => key.shape(),
            None => {
                return Err(nearest(name, keys.iter().map(|key| key.name)).map(|near| {
                    let mut known = path[..depth].to_vec();
                    known.push(near.to_owned());
                    known.join(".")
                }));
            }
        };
    }
    Ok(shape)
}

/// What stands behind a section that may be absent.
fn opened(shape: Shape) -> Shape {
    match shape {
        Shape::Presence(inner) | Shape::Optional(inner) => opened(*inner),
        shape => shape,
    }
}

/// Puts a value below a path.
pub(super) fn insert(dict: &mut Dict, path: &[impl AsRef<str>], value: Layer) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        dict.insert(first.as_ref().to_owned(), value);
        return;
    }
    let below = dict.entry(first.as_ref().to_owned()).or_insert_with(|| Layer::from(Dict::new()));
    if let Layer::Dict(_, below) = below {
        insert(below, rest, value);
    }
}
