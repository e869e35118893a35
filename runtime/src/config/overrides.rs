//! Limits of tenants and where they come from.

use super::{AzureConfig, GcsConfig, GoDuration, Limits, LocalConfig, PromDuration, S3Config};

crate::config_struct! {
    /// Limits of tenants and where they come from: an entry for exactly this tenant, the entry `"*"`, `defaults`.
    pub struct OverridesConfig {
        /// Limits of tenants without an entry of their own.
        pub defaults: Limits = Limits::default(),
        /// Path or URL of the file with the tenants' entries.
        pub per_tenant_override_config: String = String::new(),
        /// Time between two looks at that file.
        pub per_tenant_override_period: PromDuration = PromDuration::secs(10),
        /// Limits that users set themselves through the API.
        pub user_configurable_overrides: UserOverridesConfig = UserOverridesConfig::default(),
        /// Accept the flat keys of older versions.
        pub enable_legacy_overrides: bool = false,
    }
}

crate::config_struct! {
    /// Limits that users set themselves through the API.
    pub struct UserOverridesConfig {
        /// Serve the API and use what is stored.
        pub enabled: bool = false,
        /// Time between two looks at the store.
        pub poll_interval: GoDuration = GoDuration::minutes(1),
        /// Where they are stored.
        pub client: UserOverridesClientConfig = UserOverridesClientConfig::default(),
        /// The API.
        pub api: UserOverridesApiConfig = UserOverridesApiConfig::default(),
    }
}

crate::config_struct! {
    /// Where users' limits are stored.
    pub struct UserOverridesClientConfig {
        /// `local`, `s3`, `gcs` or `azure`.
        pub backend: String = String::new(),
        /// Refuse a bucket without versions of objects: without them, two writers overwrite each other.
        pub confirm_versioning: bool = true,
        /// A directory.
        pub local: LocalConfig = LocalConfig::default(),
        /// Google Cloud Storage.
        pub gcs: GcsConfig = GcsConfig::default(),
        /// S3.
        pub s3: S3Config = S3Config::default(),
        /// Azure Blob Storage.
        pub azure: AzureConfig = AzureConfig::default(),
    }
}

crate::config_struct! {
    /// The API of users' limits.
    pub struct UserOverridesApiConfig {
        /// Refuse a change that contradicts the per-tenant file.
        pub check_for_conflicting_runtime_overrides: bool = false,
    }
}
