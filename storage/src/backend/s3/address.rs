//! Where a bucket is: host, region, and whether the bucket's name stands in the host name or in the path.

use vivace_runtime::config::S3Config;

use super::Environment;

/// What requests are addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Scheme and host; with `in_host` the bucket's name is part of it.
    pub(super) endpoint: String,
    pub(super) region: String,
    /// The bucket's name stands in the host name.
    pub(super) in_host: bool,
}

const AWS: &str = ".amazonaws.com";

/// The region in an AWS host name: `s3.<region>.amazonaws.com`, `s3.dualstack.<region>.amazonaws.com`, `s3-<region>.…`.
fn region_of(host: &str) -> Option<&str> {
    let front = host.strip_suffix(".cn").unwrap_or(host).strip_suffix(AWS)?;
    let rest = front.strip_prefix("s3.dualstack.").or_else(|| front.strip_prefix("s3."));
    rest.or_else(|| front.strip_prefix("s3-")).filter(|region| !region.is_empty() && !region.contains('.'))
}

impl Address {
    /// # Errors
    /// The key, and what is wrong with it.
    pub(super) fn of(config: &S3Config, environment: &Environment) -> Result<Self, (&'static str, String)> {
        if config.bucket.is_empty() {
            return Err(("bucket", "is empty: name the bucket that holds the blocks".to_owned()));
        }
        let given = config.endpoint.as_str();
        if given.contains("://") || given.contains('/') {
            let why =
                format!("is {given:?}: only host[:port] is meant, without scheme and path (`insecure` selects http)");
            return Err(("endpoint", why));
        }
        let asked = Some(config.region.as_str()).filter(|region| !region.is_empty());
        let known = asked.or_else(|| environment.get("AWS_REGION")).or_else(|| environment.get("AWS_DEFAULT_REGION"));
        let region = known.or_else(|| region_of(given)).unwrap_or("us-east-1").to_owned();
        let aws = given.ends_with(AWS) || given.ends_with(".amazonaws.com.cn");
        let host = match given {
            "" if known.is_none() => {
                return Err(("endpoint", "is empty, and so is `region`: name the host of the S3 server".to_owned()));
            }
            "" | "s3.amazonaws.com" if config.enable_dual_stack => format!("s3.dualstack.{region}.amazonaws.com"),
            "" | "s3.amazonaws.com" => format!("s3.{region}.amazonaws.com"),
            other if config.enable_dual_stack && aws && !other.contains("dualstack") => {
                other.replacen("s3.", "s3.dualstack.", 1)
            }
            other => other.to_owned(),
        };
        let dotted = config.bucket.contains('.') && !config.insecure;
        let in_host = match config.bucket_lookup_type {
            _ if config.forcepathstyle => false,
            // A name with dots fits no certificate's wildcard.
            0 => host.ends_with(AWS) && !dotted,
            1 => true,
            2 => false,
            other => return Err(("bucket_lookup_type", format!("is {other}, allowed are 0, 1 and 2"))),
        };
        let scheme = if config.insecure { "http" } else { "https" };
        let endpoint =
            if in_host { format!("{scheme}://{}.{host}", config.bucket) } else { format!("{scheme}://{host}") };
        match endpoint.parse::<http::Uri>() {
            Ok(_) => Ok(Self { endpoint, region, in_host }),
            Err(error) => Err(("endpoint", format!("is {given:?}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(endpoint: &str, change: impl Fn(&mut S3Config)) -> Result<Address, (&'static str, String)> {
        let mut config = S3Config { bucket: "b".into(), endpoint: endpoint.into(), ..S3Config::default() };
        change(&mut config);
        Address::of(&config, &Environment::default())
    }

    fn text(address: &Address) -> (&str, &str, bool) {
        (&address.endpoint, &address.region, address.in_host)
    }

    #[test]
    fn amazon_takes_the_bucket_in_the_host_and_others_in_the_path() {
        let none = |_: &mut S3Config| {};
        let found = address("s3.eu-west-1.amazonaws.com", none).unwrap();
        assert_eq!(text(&found), ("https://b.s3.eu-west-1.amazonaws.com", "eu-west-1", true));
        let found = address("minio:9000", |config| config.insecure = true).unwrap();
        assert_eq!(text(&found), ("http://minio:9000", "us-east-1", false));
        let found = address("[::1]:9000", |config| config.region = "here".into()).unwrap();
        assert_eq!(text(&found), ("https://[::1]:9000", "here", false));
        let found = address("minio:9000", |config| config.bucket_lookup_type = 1).unwrap();
        assert_eq!(text(&found), ("https://b.minio:9000", "us-east-1", true));
        let found = address("s3.amazonaws.com", |config| config.forcepathstyle = true).unwrap();
        assert_eq!(text(&found), ("https://s3.us-east-1.amazonaws.com", "us-east-1", false));
        let found = address("", |config| {
            config.region = "eu-1".into();
            config.enable_dual_stack = true;
        });
        assert_eq!(text(&found.unwrap()), ("https://b.s3.dualstack.eu-1.amazonaws.com", "eu-1", true));
        let dotted = address("s3.eu-1.amazonaws.com", |config| config.bucket = "a.b".into()).unwrap();
        assert!(!dotted.in_host);
    }

    #[test]
    fn what_cannot_be_addressed_names_its_key() {
        let key = |endpoint: &str, change: &dyn Fn(&mut S3Config)| address(endpoint, change).unwrap_err().0;
        assert_eq!(key("h", &|config| config.bucket.clear()), "bucket");
        assert_eq!(key("http://h", &|_| ()), "endpoint");
        assert_eq!(key("h/path", &|_| ()), "endpoint");
        assert_eq!(key("", &|_| ()), "endpoint");
        assert_eq!(key("a b", &|_| ()), "endpoint");
        assert_eq!(key("h", &|config| config.bucket_lookup_type = 3), "bucket_lookup_type");
    }
}
