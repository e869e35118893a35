//! Configuration: units, reusable blocks, and the description of keys from which checking, reference and pages are made.
//!
//! A component's `config.rs` declares its keys once, with [`config_struct!`](crate::config_struct): name, type, default
//! and documentation. From this come the struct, its `Default`, its serde form and its [`Shape`]. Files are checked
//! against the shape before they are decoded, so that every problem of a file is reported at once and with its position.
//!
//! Reading order: [`Shape`] and [`Described`], the units ([`GoDuration`], [`PromDuration`], [`ByteSize`], [`Secret`],
//! [`Csv`]), the blocks ([`KvStoreConfig`], [`RingConfig`], [`GrpcClientConfig`], [`TlsClientConfig`], [`WalConfig`]),
//! [`ServerConfig`], [`OverridesConfig`] and [`Limits`].

mod backoff;
mod block_columns;
mod byte_size;
mod compaction;
mod csv;
mod duration;
mod filter_policy;
mod grpc_client;
mod kvstore;
mod limits;
mod object_store;
mod overrides;
mod presence;
mod prom_duration;
mod ring;
mod secret;
mod server;
mod shape;
mod tls;
mod wal;

pub use backoff::BackoffConfig;
pub use block_columns::{ColumnOption, ColumnScope, ColumnType, DedicatedColumn, Error as DedicatedColumnError};
pub use byte_size::ByteSize;
pub use compaction::CompactionConfig;
pub use csv::Csv;
pub use duration::GoDuration;
pub use filter_policy::{DimensionMapping, FilterPolicy, PolicyAttribute, PolicyMatch};
pub use grpc_client::GrpcClientConfig;
pub use kvstore::{ConsulConfig, EtcdConfig, KvStoreConfig, MultiConfig};
pub use limits::{
    CompactionLimits, CostAttributionLimits, ForwarderLimits, GeneratorLimits, GlobalLimits, HostInfoLimits,
    IngestionLimits, Limits, ProcessorLimits, ReadLimits, ServiceGraphsLimits, SpanMetricsLimits, StorageLimits,
};
pub use object_store::{AzureConfig, GcsConfig, LocalConfig, S3Config, SseConfig};
pub use overrides::{OverridesConfig, UserOverridesApiConfig, UserOverridesClientConfig, UserOverridesConfig};
pub use presence::Presence;
pub use prom_duration::PromDuration;
pub use ring::{DistributorRingConfig, RingConfig, WorkerRingConfig};
pub use secret::Secret;
pub use server::{
    ClusterLabel, ClusterValidationConfig, HttpClusterValidation, InternalServerConfig, ServerConfig,
    TransportValidation,
};
pub use shape::{Any, Described, Key, Section, Shape};
pub use tls::{ServerTlsConfig, TlsClientConfig};
pub use wal::WalConfig;

/// Declares one section of the configuration: a struct with public fields, its defaults and its documentation.
///
/// Every line is `/// what the key means`, then `key: Type = default`. The result derives serde with unknown keys
/// refused and implements [`Default`] and [`Described`]. The calling crate needs `serde` as a dependency.
///
/// ```
/// vivace_runtime::config_struct! {
///     /// A section.
///     pub struct Config {
///         /// How many.
///         pub count: u64 = 3,
///     }
/// }
/// assert_eq!(Config::default().count, 3);
/// ```
#[macro_export]
macro_rules! config_struct {
    ($(#[doc = $struct_doc:literal])* pub struct $name:ident {
        $( $(#[doc = $doc:literal])* pub $field:ident : $ty:ty = $default:expr ),* $(,)?
    }) => {
        $(#[doc = $struct_doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[allow(unreachable_pub, reason = "a section may be declared inside a test")]
        pub struct $name { $( $(#[doc = $doc])* pub $field: $ty, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::config::Described for $name {
            fn shape() -> $crate::config::Shape {
                $crate::config::Shape::Section($crate::config::Section {
                    name: stringify!($name),
                    keys: vec![$(
                        $crate::config::Key::new(
                            stringify!($field),
                            concat!($($doc, "\n",)* ""),
                            <$ty as $crate::config::Described>::shape,
                        ),
                    )*],
                })
            }
        }
    };
}

/// Declares a choice: an enum whose variants have fixed spellings in YAML. The first variant is the default.
#[macro_export]
macro_rules! config_choice {
    ($(#[doc = $enum_doc:literal])* pub enum $name:ident {
        $(#[doc = $first_doc:literal])* $first:ident = $first_text:literal
        $(, $(#[doc = $doc:literal])* $variant:ident = $text:literal)* $(,)?
    }) => {
        $(#[doc = $enum_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[allow(unreachable_pub, reason = "a choice may be declared inside a test")]
        pub enum $name {
            $(#[doc = $first_doc])*
            #[default]
            #[serde(rename = $first_text)]
            $first,
            $( $(#[doc = $doc])* #[serde(rename = $text)] $variant, )*
        }

        impl $name {
            /// The spelling in YAML.
            #[allow(unreachable_pub, reason = "a choice may be declared inside a test")]
            pub fn as_str(self) -> &'static str {
                match self { Self::$first => $first_text, $( Self::$variant => $text, )* }
            }
        }

        impl $crate::config::Described for $name {
            fn shape() -> $crate::config::Shape {
                $crate::config::Shape::Choice(&[$first_text $(, $text)*])
            }
        }
    };
}
