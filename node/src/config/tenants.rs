//! The per-tenant file: entries below `overrides`, by tenant or `"*"`.
//!
//! Entries do not inherit from the defaults: what one leaves out is zero, see [`Limits::zero`].

use std::collections::BTreeMap;

use figment::{Figment, providers::Serialized};
use vivace_runtime::config::{Described, Limits};

use super::{
    Problem,
    check::Checked,
    legacy,
    load::extract,
    yaml::{self, Value},
};

/// Limits by tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantLimits {
    entries: BTreeMap<String, Limits>,
    defaults: Limits,
}

/// Why a per-tenant file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not fit; everything that is wrong.
    #[error("failed to parse the per-tenant overrides:{}", .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Parse(Vec<Problem>),
    /// It holds flat keys of older versions.
    #[error(
        "the per-tenant overrides are in the flat form of older versions, which is accepted only with \
         overrides.enable_legacy_overrides (-config.enable-legacy-overrides)"
    )]
    Legacy,
    /// Values that do not fit together.
    #[error("overrides of tenant {tenant} cannot be used: {reason}")]
    Limits {
        /// The tenant.
        tenant: String,
        /// Why.
        reason: String,
    },
}

impl TenantLimits {
    /// No entries: every tenant has the defaults.
    pub fn of_defaults(defaults: Limits) -> Self {
        Self { entries: BTreeMap::new(), defaults }
    }

    /// Reads the text of a per-tenant file.
    ///
    /// # Errors
    ///
    /// The text is not YAML, a key does not exist, a value does not fit, or the form is an old one that is not allowed.
    pub fn parse(text: &str, defaults: &Limits, legacy_allowed: bool) -> Result<Self, Error> {
        let root = yaml::parse(text).map_err(|error| {
            Error::Parse(vec![Problem { at: error.at, path: String::new(), message: error.message }])
        })?;
        let mut checked = Checked::default();
        let mut entries = BTreeMap::new();
        let problem = |at, path: &str, message: &str| {
            vec![Problem { at: Some(at), path: path.to_owned(), message: message.to_owned() }]
        };
        let mut tenants = Vec::new();
        match root.value {
            Value::Null => {}
            Value::Map(sections) => {
                for section in sections {
                    match (section.key.as_str(), section.node.value) {
                        ("overrides", Value::Map(entries)) => tenants = entries,
                        ("overrides", Value::Null) => {}
                        ("overrides", _) => {
                            return Err(Error::Parse(problem(section.at, "overrides", "expected entries by tenant")));
                        }
                        (other, _) => {
                            return Err(Error::Parse(problem(
                                section.at,
                                other,
                                "unknown key; the only key here is `overrides`",
                            )));
                        }
                    }
                }
            }
            Value::Scalar { .. } | Value::List(_) => {
                return Err(Error::Parse(problem(root.at, "", "expected the key `overrides`")));
            }
        }
        let shape = Limits::shape();
        for mut tenant in tenants {
            if legacy::unflatten(&mut tenant.node) && !legacy_allowed {
                return Err(Error::Legacy);
            }
            let path = format!("overrides.{}", tenant.key);
            let dict = match tenant.node.value {
                Value::Null => figment::value::Dict::new(),
                _ => checked.section(&tenant.node, &shape, &path),
            };
            let layers = Figment::from(Serialized::defaults(Limits::zero()))
                .merge(Serialized::defaults(figment::value::Value::from(dict)));
            let limits: Limits = extract(&layers)
                .map_err(|error| Error::Limits { tenant: tenant.key.clone(), reason: error.to_string() })?;
            let limits = limits.with_fallbacks(defaults);
            validate(&limits).map_err(|reason| Error::Limits { tenant: tenant.key.clone(), reason })?;
            entries.insert(tenant.key, limits);
        }
        if checked.problems.is_empty() {
            Ok(Self { entries, defaults: defaults.clone() })
        } else {
            Err(Error::Parse(checked.problems))
        }
    }

    /// Limits of a tenant: its own entry, the entry `"*"`, the defaults.
    pub fn get(&self, tenant: &str) -> &Limits {
        self.entries.get(tenant).or_else(|| self.entries.get("*")).unwrap_or(&self.defaults)
    }

    /// Tenants with an entry of their own, `"*"` among them.
    pub fn tenants(&self) -> impl Iterator<Item = (&str, &Limits)> {
        self.entries.iter().map(|(tenant, limits)| (tenant.as_str(), limits))
    }
}

/// Rules between the values of one tenant.
fn validate(limits: &Limits) -> Result<(), String> {
    let generator = &limits.metrics_generator;
    if !matches!(generator.generate_native_histograms.as_str(), "" | "classic" | "native" | "both") {
        return Err(format!(
            "metrics_generator.generate_native_histograms is `{}`, allowed are classic, native, both",
            generator.generate_native_histograms
        ));
    }
    if !matches!(generator.span_name_sanitization.as_str(), "" | "dry_run" | "enabled") {
        return Err(format!(
            "metrics_generator.span_name_sanitization is `{}`, allowed are dry_run, enabled",
            generator.span_name_sanitization
        ));
    }
    if generator.native_histogram_bucket_factor <= 1.0 {
        return Err("metrics_generator.native_histogram_bucket_factor must be above 1".into());
    }
    let processor = &generator.processor;
    for buckets in [&processor.service_graphs.histogram_buckets, &processor.span_metrics.histogram_buckets] {
        if buckets.as_ref().is_some_and(|buckets| !buckets.is_sorted_by(|low, high| low < high)) {
            return Err("histogram_buckets must be ascending".into());
        }
    }
    if let Some(columns) = &limits.storage.parquet_dedicated_columns {
        vivace_runtime::config::DedicatedColumn::validate(columns).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
overrides:
  team-a:
    ingestion: {rate_limit_bytes: 1e6, burst_size_bytes: 2000000}
    read: {max_search_duration: 1d}
  '*':
    global: {max_bytes_per_trace: 7}
";

    #[test]
    fn entries_do_not_inherit_and_the_star_is_for_the_others() {
        let limits = TenantLimits::parse(FILE, &Limits::default(), false).unwrap();
        let own = limits.get("team-a");
        assert_eq!((own.ingestion.rate_limit_bytes, own.ingestion.burst_size_bytes), (1_000_000, 2_000_000));
        assert_eq!(own.global.max_bytes_per_trace, 0, "not inherited");
        assert_eq!(own.read.max_search_duration.as_secs(), 86_400);
        assert_eq!(own.ingestion.rate_strategy, "local", "taken from the defaults");
        assert_eq!(limits.get("other").global.max_bytes_per_trace, 7);
        assert_eq!(limits.get("other").ingestion.rate_limit_bytes, 0);
        let none = TenantLimits::parse("", &Limits::default(), false).unwrap();
        assert_eq!(none.get("x"), &Limits::default());
    }

    #[test]
    fn the_flat_form_needs_permission() {
        let text = "overrides:\n  a:\n    ingestion_rate_limit_bytes: 5\n    max_bytes_per_trace: 6\n";
        assert!(matches!(TenantLimits::parse(text, &Limits::default(), false), Err(Error::Legacy)));
        let limits = TenantLimits::parse(text, &Limits::default(), true).unwrap();
        assert_eq!(limits.get("a").ingestion.rate_limit_bytes, 5);
        assert_eq!(limits.get("a").global.max_bytes_per_trace, 6);
    }

    #[test]
    fn problems_have_places_and_suggestions() {
        let text = "overrides:\n  a:\n    ingestion:\n      rate_limit: 5\n      burst_size_bytes: x\n";
        let error = TenantLimits::parse(text, &Limits::default(), false).unwrap_err().to_string();
        assert!(error.contains("line 4 column 7: overrides.a.ingestion.rate_limit: unknown key"), "{error}");
        assert!(error.contains("line 5 column 25: overrides.a.ingestion.burst_size_bytes: expected int"), "{error}");
        let error = TenantLimits::parse("override: {}\n", &Limits::default(), false).unwrap_err().to_string();
        assert!(error.contains("the only key here is `overrides`"), "{error}");
    }

    #[test]
    fn values_of_an_entry_must_fit_together() {
        let text = "overrides:\n  a:\n    metrics_generator: {native_histogram_bucket_factor: 0.5}\n";
        let error = TenantLimits::parse(text, &Limits::default(), false).unwrap_err().to_string();
        assert!(error.contains("must be above 1"), "{error}");
    }
}
