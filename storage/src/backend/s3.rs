//! A bucket behind the S3 protocol, with the keys of `storage.trace.s3`.
//!
//! ```text
//! S3Config ─▶ Address (host, region, style) ─┐
//! Environment ─▶ Credentials (first source) ─┼─▶ object_store's AmazonS3 over our own HTTP client (TLS, time limits, hedging)
//! ```

mod address;
mod connector;
mod credentials;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use object_store::{
    Attribute, Attributes, BackoffConfig, RetryConfig, TagSet,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
};
use tokio::runtime::Handle;
use vivace_runtime::{
    config::{S3Config, TlsClientConfig},
    tls::{ClientTls, TlsError},
};

use address::Address;
use connector::{Connector, Hedge};
use credentials::Credentials;

/// The smallest part that S3 takes, the last of an upload left out.
const MIN_PART: u64 = 5 << 20;
/// Two parts are in memory at a time.
const MAX_PART: u64 = 512 << 20;
/// All attempts of one request together.
const RETRY_TIMEOUT: Duration = Duration::from_secs(180);

/// Environment variables, for stores that take credentials from there. Taken once by the process's entry point.
#[derive(Debug, Clone, Default)]
pub struct Environment(Arc<BTreeMap<String, String>>);

impl Environment {
    /// From names and values; empty values count as not set.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(Arc::new(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Why no bucket can be made of the configuration. Expected; nothing was asked of any server.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A key has no usable value.
    #[error("{section}.{key} {why}")]
    Key {
        /// The section, `storage.trace.s3`.
        section: String,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The keys `tls_*` cannot be used.
    #[error("TLS of the object store")]
    Tls(#[source] TlsError),
    /// The library does not take the settings.
    #[error("{section} cannot be used")]
    Store {
        /// The section, `storage.trace.s3`.
        section: String,
        /// The library's words.
        #[source]
        source: object_store::Error,
    },
}

/// What every object is written with.
#[derive(Debug, Clone, Default)]
pub(super) struct Dress {
    pub(super) attributes: Attributes,
    pub(super) tags: TagSet,
}

/// A store and how to use it.
pub(super) struct Opened {
    pub(super) store: AmazonS3,
    /// As `store`, but a request that fails is not tried again: for the look at the start.
    pub(super) impatient: AmazonS3,
    pub(super) dress: Dress,
    pub(super) part_bytes: usize,
    /// Where it is and who we are there, for messages.
    pub(super) description: String,
}

/// Makes the store. `section` is the path of `config`. Requests run on `runtime`.
pub(super) fn open(
    section: &str,
    config: &S3Config,
    environment: &Environment,
    runtime: Handle,
) -> Result<Opened, OpenError> {
    let wrong = |(key, why): (&'static str, String)| OpenError::Key { section: section.to_owned(), key, why };
    let address = Address::of(config, environment).map_err(wrong)?;
    let credentials =
        Credentials::find(config, environment, |path| std::fs::read_to_string(path).ok()).map_err(wrong)?;
    let part_bytes = match config.part_size {
        0 => MIN_PART,
        given if (MIN_PART..=MAX_PART).contains(&given) => given,
        given => return Err(wrong(("part_size", format!("is {given}, allowed are 0 and {MIN_PART} to {MAX_PART}")))),
    };
    let attempts = usize::try_from(config.retry_max_attempts.max(1)).unwrap_or(usize::MAX);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: config.retry_backoff_initial.into(),
            max_backoff: config.retry_backoff_max.into(),
            base: 2.0,
        },
        max_retries: attempts - 1,
        retry_timeout: RETRY_TIMEOUT,
    };
    let tls = if config.insecure { None } else { Some(tls(section, config)?) };
    let after: Duration = config.hedge_requests_at.into();
    let up_to = usize::try_from(config.hedge_requests_up_to).unwrap_or(usize::MAX);
    let hedge = (!after.is_zero() && up_to > 1).then_some(Hedge { after, up_to });
    let connector = Connector { tls, hedge, runtime };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_endpoint(&address.endpoint)
        .with_region(&address.region)
        .with_virtual_hosted_style_request(address.in_host)
        .with_allow_http(config.insecure)
        // Not every server that speaks S3 has it, and objects are deleted one by one here anyway.
        .with_disable_bulk_delete(true)
        .with_http_connector(connector);
    builder = encrypted(builder, config).map_err(wrong)?;
    builder = credentials.apply(builder);
    let made = |builder: AmazonS3Builder| {
        builder.build().map_err(|source| OpenError::Store { section: section.to_owned(), source })
    };
    let once = RetryConfig { max_retries: 0, ..retry.clone() };
    let impatient = made(builder.clone().with_retry(once))?;
    let store = made(builder.with_retry(retry))?;
    let description = format!(
        "bucket {:?} at {}, region {}, credentials from {}",
        config.bucket,
        address.endpoint,
        address.region,
        credentials.source()
    );
    let part_bytes = usize::try_from(part_bytes).expect("at most MAX_PART");
    Ok(Opened { store, impatient, dress: dress(config), part_bytes, description })
}

/// What to look at when the store does not answer as it should. Listings give the server's answer as text alone.
pub(super) fn remedy(error: &object_store::Error) -> &'static str {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["NoSuchBucket", "404 Not Found"]) {
        "create the bucket, or correct `bucket`, `endpoint` or `forcepathstyle`"
    } else if says(&["AuthorizationHeaderMalformed", "PermanentRedirect"]) {
        "the bucket is in another region: correct `region` or `endpoint`"
    } else if says(&["401 Unauthorized", "403 Forbidden"]) {
        "check the credentials and what they may do: listing, reading, writing and deleting are needed"
    } else {
        "check `endpoint`, `region` and `insecure`, that the server can be reached from here, and that the credentials can be had"
    }
}

fn tls(section: &str, config: &S3Config) -> Result<ClientTls, OpenError> {
    let tls = TlsClientConfig {
        tls_cert_path: config.tls_cert_path.clone(),
        tls_key_path: config.tls_key_path.clone(),
        tls_ca_path: config.tls_ca_path.clone(),
        tls_server_name: config.tls_server_name.clone(),
        tls_insecure_skip_verify: config.tls_insecure_skip_verify,
        tls_cipher_suites: config.tls_cipher_suites.clone(),
        tls_min_version: config.tls_min_version.clone(),
    };
    ClientTls::open_http1(section, &tls).map_err(OpenError::Tls)
}

fn encrypted(builder: AmazonS3Builder, config: &S3Config) -> Result<AmazonS3Builder, (&'static str, String)> {
    let sse = &config.sse;
    match sse.r#type.as_str() {
        "" => Ok(builder),
        "SSE-S3" => {
            // The key's type has no public name.
            let key: AmazonS3ConfigKey = "aws_server_side_encryption".parse().expect("a key of the library");
            Ok(builder.with_config(key, "AES256"))
        }
        "SSE-KMS" if !sse.kms_encryption_context.is_empty() => Err((
            "sse.kms_encryption_context",
            "is set, but an encryption context can't be sent; leave it out".to_owned(),
        )),
        "SSE-KMS" => Ok(builder.with_sse_kms_encryption(&sse.kms_key_id)),
        "SSE-C" if sse.encryption_key.expose().len() == 32 => {
            use base64::Engine;
            let key = base64::engine::general_purpose::STANDARD.encode(sse.encryption_key.expose());
            Ok(builder.with_ssec_encryption(key))
        }
        "SSE-C" => Err(("sse.encryption_key", "must have 32 bytes with SSE-C".to_owned())),
        other => Err(("sse.type", format!("is {other:?}, allowed are SSE-KMS, SSE-S3 and SSE-C"))),
    }
}

fn dress(config: &S3Config) -> Dress {
    let mut dress = Dress::default();
    if !config.storage_class.is_empty() {
        dress.attributes.insert(Attribute::StorageClass, config.storage_class.clone().into());
    }
    for (name, value) in &config.metadata {
        dress.attributes.insert(Attribute::Metadata(name.clone().into()), value.clone().into());
    }
    for (name, value) in &config.tags {
        dress.tags.push(name, value);
    }
    dress
}

#[cfg(test)]
mod tests {
    use vivace_runtime::config::{Secret, SseConfig};

    use super::*;

    fn config() -> S3Config {
        S3Config {
            bucket: "b".into(),
            endpoint: "127.0.0.1:1".into(),
            insecure: true,
            access_key: "a".into(),
            secret_key: Secret::new("s"),
            ..S3Config::default()
        }
    }

    fn refused(config: &S3Config) -> String {
        match open("storage.trace.s3", config, &Environment::default(), Handle::current()) {
            Ok(opened) => panic!("{}", opened.description),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn keys_that_cannot_be_used_are_named() {
        let mut small = config();
        small.part_size = 1000;
        assert!(refused(&small).starts_with("storage.trace.s3.part_size is 1000"));
        let mut sse = config();
        sse.sse = SseConfig { r#type: "SSE-C".into(), encryption_key: Secret::new("short"), ..SseConfig::default() };
        assert_eq!(refused(&sse), "storage.trace.s3.sse.encryption_key must have 32 bytes with SSE-C");
        sse.sse = SseConfig { r#type: "rot13".into(), ..SseConfig::default() };
        assert!(refused(&sse).contains("sse.type is \"rot13\""));
        let mut half = config();
        half.secret_key = Secret::default();
        assert!(refused(&half).contains("secret_key is empty"));
    }

    #[test]
    fn what_the_server_says_decides_what_to_look_at() {
        let of = |said: &str| remedy(&object_store::Error::Generic { store: "S3", source: said.into() });
        assert!(of("404 Not Found: <Code>NoSuchBucket</Code>").starts_with("create the bucket"));
        assert!(of("301: <Code>PermanentRedirect</Code>").contains("another region"));
        assert!(of("403 Forbidden: <Code>SignatureDoesNotMatch</Code>").starts_with("check the credentials"));
        assert!(of("connect to h:1: Connection refused").contains("can be reached from here"));
    }

    #[tokio::test]
    async fn secrets_are_in_no_description() {
        let opened = open("storage.trace.s3", &config(), &Environment::default(), Handle::current()).unwrap();
        assert_eq!(
            opened.description,
            r#"bucket "b" at http://127.0.0.1:1, region us-east-1, credentials from the configuration"#
        );
        assert_eq!(opened.part_bytes, 5 << 20);
    }
}
