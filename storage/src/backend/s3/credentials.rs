//! Who we are to the store: static keys, else the environment, else a file of credentials, else the machine's role.

use std::path::PathBuf;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
use vivace_runtime::config::{S3Config, Secret};

use super::Environment;

/// Where the keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Keys that do not change.
    Static { access: String, secret: Secret, token: Option<Secret>, from: &'static str },
    /// Fetched and renewed by the library: a web identity, a container's or the machine's role.
    Fetched(Vec<(Key, String)>),
}

/// Variables that name a source of renewed credentials.
const FETCHED: [(&str, Key); 8] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", Key::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", Key::RoleArn),
    ("AWS_ROLE_SESSION_NAME", Key::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", Key::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Key::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Key::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Key::ContainerAuthorizationTokenFile),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", Key::MetadataEndpoint),
];

impl Credentials {
    /// The first source that has keys. Files are read by `read`, which says `None` for a file that is not there.
    ///
    /// # Errors
    /// The key that lacks its counterpart, and why.
    pub(super) fn find(
        config: &S3Config,
        environment: &Environment,
        read: impl Fn(&PathBuf) -> Option<String>,
    ) -> Result<Self, (&'static str, String)> {
        match (config.access_key.is_empty(), config.secret_key.is_empty()) {
            (false, false) => {
                return Ok(Self::Static {
                    access: config.access_key.clone(),
                    secret: config.secret_key.clone(),
                    token: Some(config.session_token.clone()).filter(|token| !token.is_empty()),
                    from: "the configuration",
                });
            }
            (false, true) => return Err(("secret_key", "is empty, but `access_key` is set".to_owned())),
            (true, false) => return Err(("access_key", "is empty, but `secret_key` is set".to_owned())),
            (true, true) => {}
        }
        let pairs = [
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            ("AWS_ACCESS_KEY", "AWS_SECRET_KEY"),
            ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
            ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"),
        ];
        for (access, secret) in pairs {
            if let (Some(access_key), Some(secret)) = (environment.get(access), environment.get(secret)) {
                let session = access.starts_with("AWS").then(|| environment.get("AWS_SESSION_TOKEN")).flatten();
                return Ok(Self::Static {
                    access: access_key.to_owned(),
                    secret: Secret::new(secret),
                    token: session.map(Secret::new),
                    from: "the environment",
                });
            }
        }
        let named = environment.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let file = named.or_else(|| Some(PathBuf::from(environment.get("HOME")?).join(".aws/credentials")));
        let profile = environment.get("AWS_PROFILE").unwrap_or("default");
        if let Some(found) = file.and_then(|file| read(&file)).and_then(|text| in_profile(&text, profile)) {
            return Ok(found);
        }
        let known = FETCHED.iter().filter_map(|(name, key)| Some((*key, environment.get(name)?.to_owned())));
        Ok(Self::Fetched(known.collect()))
    }

    pub(super) fn apply(&self, builder: AmazonS3Builder) -> AmazonS3Builder {
        match self {
            Self::Static { access, secret, token, .. } => {
                let builder = builder.with_access_key_id(access).with_secret_access_key(secret.expose());
                match token {
                    Some(token) => builder.with_token(token.expose()),
                    None => builder,
                }
            }
            Self::Fetched(settings) => {
                settings.iter().fold(builder, |builder, (key, value)| builder.with_config(*key, value))
            }
        }
    }

    /// For messages.
    pub(super) fn source(&self) -> &'static str {
        match self {
            Self::Static { from, .. } => from,
            Self::Fetched(settings) if settings.iter().any(|(key, _)| *key == Key::WebIdentityTokenFile) => {
                "the web identity of AWS_WEB_IDENTITY_TOKEN_FILE"
            }
            Self::Fetched(settings)
                if settings.iter().any(|(key, _)| {
                    matches!(key, Key::ContainerCredentialsRelativeUri | Key::ContainerCredentialsFullUri)
                }) =>
            {
                "the container's role"
            }
            Self::Fetched(_) => "the machine's role (its metadata service)",
        }
    }
}

/// The keys of one profile of a file of credentials: sections in brackets, `name = value` below them.
fn in_profile(text: &str, profile: &str) -> Option<Credentials> {
    let (mut inside, mut access, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').trim() == profile;
        } else if inside && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => access = value,
                "aws_secret_access_key" => secret = value.map(Secret::new),
                "aws_session_token" => token = value.map(Secret::new),
                _ => {}
            }
        }
    }
    Some(Credentials::Static { access: access?, secret: secret?, token, from: "the file of credentials" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &S3Config, variables: &[(&str, &str)], file: Option<&str>) -> Credentials {
        let environment = Environment::new(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Credentials::find(config, &environment, |path| {
            assert!(path.ends_with(".aws/credentials"));
            file.map(str::to_owned)
        })
        .unwrap()
    }

    #[test]
    fn the_first_source_with_keys_counts() {
        let plain = S3Config::default();
        let keyed = S3Config { access_key: "a".into(), secret_key: Secret::new("s"), ..S3Config::default() };
        let environment = [("AWS_ACCESS_KEY_ID", "ea"), ("AWS_SECRET_ACCESS_KEY", "es"), ("AWS_SESSION_TOKEN", "et")];
        let access = |found: Credentials| match found {
            Credentials::Static { access, secret, token, .. } => {
                (access, secret.expose().to_owned(), token.map(|token| token.expose().to_owned()))
            }
            Credentials::Fetched(_) => panic!("fetched"),
        };
        let of = |a: &str, s: &str, t: Option<&str>| (a.to_owned(), s.to_owned(), t.map(str::to_owned));
        assert_eq!(access(find(&keyed, &environment, None)), of("a", "s", None));
        assert_eq!(access(find(&plain, &environment, None)), of("ea", "es", Some("et")));
        let minio = [("MINIO_ROOT_USER", "ma"), ("MINIO_ROOT_PASSWORD", "ms")];
        assert_eq!(access(find(&plain, &minio, None)), of("ma", "ms", None));
        let file = "# note\n[default]\naws_access_key_id = fa\naws_secret_access_key=fs\n[other]\naws_access_key_id=oa\n\
                    aws_secret_access_key=os\naws_session_token = ot\n";
        assert_eq!(access(find(&plain, &[("HOME", "/h")], Some(file))), of("fa", "fs", None));
        let other = [("HOME", "/h"), ("AWS_PROFILE", "other")];
        assert_eq!(access(find(&plain, &other, Some(file))), of("oa", "os", Some("ot")));
        let web = [("HOME", "/h"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "r")];
        let Credentials::Fetched(settings) = find(&plain, &web, None) else { panic!("static") };
        assert_eq!(settings.len(), 2);
        assert_eq!(find(&plain, &[("HOME", "/h")], None), Credentials::Fetched(Vec::new()));
    }

    #[test]
    fn half_a_pair_is_an_error_and_not_another_source() {
        let half = S3Config { access_key: "a".into(), ..S3Config::default() };
        let (key, _) = Credentials::find(&half, &Environment::default(), |_| None).unwrap_err();
        assert_eq!(key, "secret_key");
    }
}
