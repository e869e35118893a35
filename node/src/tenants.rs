//! Follows the file with the tenants' limits: read at the start, then looked at again every
//! `overrides.per_tenant_override_period`. A file that cannot be used later leaves the last good content in force.

use std::sync::Arc;
use std::time::Duration;

use vivace_runtime::metrics::Registry;
use vivace_runtime::{Failure, Process};

use crate::config::{Config, TenantLimits};
use crate::limits::Overrides;

fn read(config: &Config) -> Result<TenantLimits, Failure> {
    let path = &config.overrides.per_tenant_override_config;
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("overrides.per_tenant_override_config: read {path}: {error}")))?;
    Ok(TenantLimits::parse(&text, &config.overrides.defaults, config.overrides.enable_legacy_overrides)?)
}

/// Reads the file, if one is configured, and keeps reading it until the process stops.
pub(crate) fn follow(
    config: &Config,
    overrides: &Arc<Overrides>,
    process: &Process,
    registry: &Registry,
) -> Result<(), Failure> {
    if config.overrides.per_tenant_override_config.is_empty() {
        return Ok(());
    }
    overrides.replace(&read(config)?);
    let good = registry.gauge(
        "tempo_runtime_config_last_reload_successful",
        "1 while the file with the tenants' limits could be used when it was last read.",
    );
    good.set(1.0);
    let period: Duration = config.overrides.per_tenant_override_period.into();
    let (config, overrides, stopping) = (config.clone(), Arc::clone(overrides), process.stopping.clone());
    tokio::spawn(stopping.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(period.max(Duration::from_secs(1))).await;
            let source = config.clone();
            match tokio::task::spawn_blocking(move || read(&source)).await {
                Ok(Ok(limits)) => {
                    good.set(1.0);
                    overrides.replace(&limits);
                }
                Ok(Err(cause)) => {
                    good.set(0.0);
                    tracing::error!(%cause, "reload the tenants' limits; the last ones stay in force");
                }
                // The runtime is ending.
                Err(_) => return,
            }
        }
    }));
    Ok(())
}
