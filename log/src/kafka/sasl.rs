//! Credentials: for rskafka's connections and for our own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rskafka::client::{Credentials, OauthBearerCredentials, SaslConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vivace_runtime::config::Secret;

use crate::config::KafkaConfig;

/// A token file is small; what is larger is not one.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// How this process shows who it is.
#[derive(Clone)]
pub(crate) enum Sasl {
    Plain(Credentials),
    ScramSha256(Credentials),
    ScramSha512(Credentials),
    OauthBearer(Arc<TokenSource>),
}

/// Where an OAuth token comes from. Read again for every authentication.
pub(crate) enum TokenSource {
    Fixed { token: Secret, zid: String, extensions: BTreeMap<String, String> },
    File(PathBuf),
    Socket { path: PathBuf, timeout: Duration },
}

/// What a token file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) zid: String,
    pub(crate) extensions: BTreeMap<String, String>,
}

impl Sasl {
    /// `None`: no authentication. The error is a key and what is wrong with it.
    pub(crate) fn new(config: &KafkaConfig) -> Result<Option<Self>, (&'static str, String)> {
        let user = &config.sasl_username;
        let credentials = || Credentials::new(user.clone(), config.sasl_password.expose().to_owned());
        let needs_user = |sasl| match user.is_empty() {
            true => Err(("sasl_username", format!("is required with {}", config.sasl_mechanism))),
            false => Ok(Some(sasl)),
        };
        match config.sasl_mechanism.as_str() {
            "PLAIN" if user.is_empty() => Ok(None),
            "PLAIN" => Ok(Some(Self::Plain(credentials()))),
            "SCRAM-SHA-256" => needs_user(Self::ScramSha256(credentials())),
            "SCRAM-SHA-512" => needs_user(Self::ScramSha512(credentials())),
            "OAUTHBEARER" => TokenSource::new(config).map(|source| Some(Self::OauthBearer(Arc::new(source)))),
            "AWS_MSK_IAM" => Err((
                "sasl_mechanism",
                "AWS_MSK_IAM is not available; use SCRAM-SHA-512 or OAUTHBEARER, which MSK offers as well".to_owned(),
            )),
            other => Err(("sasl_mechanism", format!("`{other}` is not known"))),
        }
    }

    /// The mechanism's registered name.
    pub(crate) fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::ScramSha256(_) => "SCRAM-SHA-256",
            Self::ScramSha512(_) => "SCRAM-SHA-512",
            Self::OauthBearer(_) => "OAUTHBEARER",
        }
    }

    /// For rskafka, which asks the callback for every connection; identity and extensions are those of now.
    pub(crate) async fn to_client(&self) -> Result<SaslConfig, String> {
        Ok(match self {
            Self::Plain(credentials) => SaslConfig::Plain(credentials.clone()),
            Self::ScramSha256(credentials) => SaslConfig::ScramSha256(credentials.clone()),
            Self::ScramSha512(credentials) => SaslConfig::ScramSha512(credentials.clone()),
            Self::OauthBearer(source) => {
                let now = source.token().await?;
                let source = Arc::clone(source);
                let callback = move || {
                    let source = Arc::clone(&source);
                    async move { source.token().await.map(|token| token.token).map_err(Into::into) }.boxed()
                };
                SaslConfig::Oauthbearer(OauthBearerCredentials {
                    callback: Arc::new(callback),
                    authz_id: Some(now.zid).filter(|zid| !zid.is_empty()),
                    bearer_kvs: now.extensions.into_iter().collect(),
                })
            }
        })
    }
}

impl TokenSource {
    fn new(config: &KafkaConfig) -> Result<Self, (&'static str, String)> {
        let (token, file) = (&config.sasl_oauthbearer_token, config.sasl_oauthbearer_file_path.as_str());
        let socket = config.sasl_oauthbearer_http_socket_path.as_str();
        let given = [!token.is_empty(), !file.is_empty(), !socket.is_empty()];
        match given.iter().filter(|given| **given).count() {
            0 => Err((
                "sasl_oauthbearer_token",
                "is required with OAUTHBEARER; or set sasl_oauthbearer_file_path or sasl_oauthbearer_http_socket_path".to_owned(),
            )),
            1 if !file.is_empty() => Ok(Self::File(file.into())),
            1 if !socket.is_empty() => {
                let timeout = config.sasl_oauthbearer_http_socket_timeout.get();
                Ok(Self::Socket { path: socket.into(), timeout })
            }
            1 => Ok(Self::Fixed {
                token: token.clone(),
                zid: config.sasl_oauthbearer_zid.clone(),
                extensions: config.sasl_oauthbearer_extensions.clone(),
            }),
            _ => Err((
                "sasl_oauthbearer_file_path",
                "token, file and socket exclude each other: set one of sasl_oauthbearer_token, sasl_oauthbearer_file_path, \
                 sasl_oauthbearer_http_socket_path"
                    .to_owned(),
            )),
        }
    }

    /// The token as it is now.
    pub(crate) async fn token(&self) -> Result<Token, String> {
        let (place, body) = match self {
            Self::Fixed { token, zid, extensions } => {
                let token = token.expose().to_owned();
                return Ok(Token { token, zid: zid.clone(), extensions: extensions.clone() });
            }
            Self::File(path) => {
                (path.display(), read_file(path).await.map_err(|error| format!("read {}: {error}", path.display()))?)
            }
            Self::Socket { path, timeout } => {
                let asked = tokio::time::timeout(*timeout, ask_socket(path)).await;
                let answered = asked.map_err(|passed| format!("ask {}: {passed} after {timeout:?}", path.display()))?;
                (path.display(), answered.map_err(|error| format!("ask {}: {error}", path.display()))?)
            }
        };
        let token: Token = serde_json::from_slice(&body)
            .map_err(|error| format!("{place} does not hold a JSON object with token, zid and extensions: {error}"))?;
        if token.token.is_empty() {
            return Err(format!("{place} holds no token"));
        }
        Ok(token)
    }
}

async fn read_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    tokio::fs::File::open(path).await?.take(TOKEN_BYTES_MAX).read_to_end(&mut body).await?;
    Ok(body)
}

/// One request in HTTP/1.0, so that the answer ends with the connection and is never in chunks.
async fn ask_socket(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut stream = tokio::net::UnixStream::connect(path).await?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(TOKEN_BYTES_MAX).read_to_end(&mut answer).await?;
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let (Some(head_end), Some(status)) = (head_end, answer.split(|byte| *byte == b' ').nth(1)) else {
        return Err(std::io::Error::other("the answer is not HTTP"));
    };
    if status != b"200" {
        return Err(std::io::Error::other(format!("the answer has status {}", String::from_utf8_lossy(status))));
    }
    Ok(answer.split_off(head_end + 4))
}

#[cfg(test)]
mod tests {
    use vivace_runtime::config::GoDuration;

    use super::*;

    fn config(mechanism: &str) -> KafkaConfig {
        KafkaConfig { topic: "t".into(), sasl_mechanism: mechanism.into(), ..KafkaConfig::default() }
    }

    #[test]
    fn plain_without_a_user_is_no_authentication_and_scram_needs_one() {
        assert!(Sasl::new(&config("PLAIN")).unwrap().is_none());
        let told = Sasl::new(&config("SCRAM-SHA-512")).err().unwrap();
        assert_eq!(told, ("sasl_username", "is required with SCRAM-SHA-512".to_owned()));
        let user =
            KafkaConfig { sasl_username: "u".into(), sasl_password: Secret::new("p"), ..config("SCRAM-SHA-256") };
        assert_eq!(Sasl::new(&user).unwrap().unwrap().mechanism(), "SCRAM-SHA-256");
    }

    #[test]
    fn a_token_comes_from_one_place() {
        assert_eq!(Sasl::new(&config("OAUTHBEARER")).err().unwrap().0, "sasl_oauthbearer_token");
        let both = KafkaConfig {
            sasl_oauthbearer_file_path: "a".into(),
            sasl_oauthbearer_http_socket_path: "b".into(),
            ..config("OAUTHBEARER")
        };
        assert!(Sasl::new(&both).err().unwrap().1.contains("exclude each other"));
    }

    #[tokio::test]
    async fn a_token_file_is_read_anew_for_every_authentication() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.json");
        std::fs::write(&path, r#"{"token":"one","zid":"z","extensions":{"a":"b"}}"#).unwrap();
        let file = path.to_str().unwrap().to_owned();
        let config = KafkaConfig { sasl_oauthbearer_file_path: file, ..config("OAUTHBEARER") };
        let Some(Sasl::OauthBearer(source)) = Sasl::new(&config).unwrap() else { panic!("not a token") };
        let first = source.token().await.unwrap();
        assert_eq!((first.token.as_str(), first.zid.as_str()), ("one", "z"));
        let SaslConfig::Oauthbearer(given) = Sasl::OauthBearer(Arc::clone(&source)).to_client().await.unwrap() else {
            panic!("not a token")
        };
        assert_eq!(given.bearer_kvs, [("a".to_owned(), "b".to_owned())]);
        std::fs::write(&path, r#"{"token":"two"}"#).unwrap();
        assert_eq!((given.callback)().await.unwrap(), "two");
        std::fs::write(&path, "{}").unwrap();
        assert!(source.token().await.unwrap_err().contains("holds no token"));
        std::fs::write(&path, "token").unwrap();
        assert!(source.token().await.unwrap_err().contains("does not hold a JSON object"));
    }

    #[tokio::test]
    async fn a_socket_is_asked_over_http_and_may_not_stay_silent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let config = KafkaConfig {
            sasl_oauthbearer_http_socket_path: path.to_str().unwrap().to_owned(),
            sasl_oauthbearer_http_socket_timeout: GoDuration::millis(50),
            ..config("OAUTHBEARER")
        };
        let Some(Sasl::OauthBearer(source)) = Sasl::new(&config).unwrap() else { panic!("not a token") };
        let silent = source.token().await.unwrap_err();
        assert!(silent.contains("50ms"), "{silent}");
        let server = tokio::spawn(async move {
            // The first connection is the one that was given up.
            listener.accept().await.unwrap();
            for answer in ["HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"token\":\"t\"}", "HTTP/1.0 500 Oh\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(source.token().await.unwrap().token, "t");
        assert!(source.token().await.unwrap_err().contains("status 500"));
        server.await.unwrap();
    }
}
