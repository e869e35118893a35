//! Our own connection to one broker, for what rskafka does not speak: topic ids, consumer groups, creating a topic with the broker's
//! words when it refuses. One request at a time; every call is under a time limit of its caller.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, HeaderVersion as _, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::answers::Answered;
use super::failure::Failure;
use super::sasl::Sasl;
use super::scram;
use super::settings::{Settings, tls_to_ipv6};

/// Far above any answer about one topic.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// And of all that an answer lists.
const ANSWER_ELEMENTS_MAX: usize = 1_000_000;

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection that is ready for requests.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    client_id: StrBytes,
    correlation: i32,
    versions: BTreeMap<i16, RangeInclusive<i16>>,
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

impl Wire {
    /// Connects to `broker`, learns its versions and shows who we are.
    pub(crate) async fn connect(broker: &str, settings: &Settings, nonce: u128) -> Result<Self, Failure> {
        let unreachable = |error: &dyn std::fmt::Display| Failure::Unreachable(format!("{broker}: {error}"));
        let tcp = TcpStream::connect(broker).await.map_err(|error| unreachable(&error))?;
        tcp.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let stream: Box<dyn Stream> = match &settings.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _port)| host);
                if host.starts_with('[') {
                    return Err(Failure::Refused(tls_to_ipv6(broker)));
                }
                Box::new(tls.connect(host, tcp).await.map_err(|error| unreachable(&format!("TLS: {error}")))?)
            }
        };
        let client_id = StrBytes::from_string(settings.client_id.clone());
        let mut wire = Self { stream, client_id, correlation: 0, versions: BTreeMap::new() };
        wire.learn_versions().await?;
        if let Some(sasl) = &settings.sasl {
            wire.authenticate(sasl, nonce).await?;
        }
        Ok(wire)
    }

    async fn learn_versions(&mut self) -> Result<(), Failure> {
        // Version 0 is the one that every broker answers.
        let answer = self.exchange(&ApiVersionsRequest::default(), 0).await?;
        let ApiVersionsResponse { error_code, api_keys, .. } = answer;
        if error_code != 0 {
            return Err(Failure::of_code(error_code, None));
        }
        self.versions = api_keys.into_iter().map(|key| (key.api_key, key.min_version..=key.max_version)).collect();
        Ok(())
    }

    /// Whether the broker knows a version of this request, and the newest that both sides know.
    pub(crate) fn version<R: Request>(&self, ours: &RangeInclusive<i16>) -> Option<i16> {
        let theirs = self.versions.get(&R::KEY)?;
        let newest = (*ours.end()).min(*theirs.end());
        (newest >= *ours.start() && newest >= *theirs.start()).then_some(newest)
    }

    /// Asks in the newest version that both sides know.
    pub(crate) async fn ask<R: Answered>(
        &mut self,
        request: &R,
        versions: RangeInclusive<i16>,
    ) -> Result<R::Response, Failure> {
        let Some(version) = self.version::<R>(&versions) else {
            let (key, theirs) = (R::KEY, self.versions.get(&R::KEY));
            return Err(Failure::Refused(format!(
                "the broker knows request {key} in versions {theirs:?}, and this client in {versions:?}"
            )));
        };
        self.exchange(request, version).await
    }

    async fn exchange<R: Answered>(&mut self, request: &R, version: i16) -> Result<R::Response, Failure> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::zeroed(4);
        header.encode(&mut frame, R::header_version(version)).map_err(broken)?;
        request.encode(&mut frame, version).map_err(broken)?;
        let length = u32::try_from(frame.len() - 4).map_err(broken)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)?;

        let length = self.stream.read_u32().await.map_err(broken)?;
        let length = usize::try_from(length).map_err(broken)?;
        if length > ANSWER_BYTES_MAX {
            return Err(Failure::Broken(format!("an answer of {length} bytes is no answer of a broker")));
        }
        let mut body = Vec::new();
        (&mut self.stream).take(length as u64).read_to_end(&mut body).await.map_err(broken)?;
        if body.len() < length {
            return Err(Failure::Broken("the connection ended within an answer".to_owned()));
        }
        let mut body = Bytes::from(body);
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version)).map_err(broken)?;
        if header.correlation_id != self.correlation {
            return Err(Failure::Broken("the answer belongs to another request".to_owned()));
        }
        R::ANSWER.check(version, &body, ANSWER_ELEMENTS_MAX).map_err(broken)?;
        R::Response::decode(&mut body, version).map_err(broken)
    }

    async fn authenticate(&mut self, sasl: &Sasl, nonce: u128) -> Result<(), Failure> {
        let mechanism = StrBytes::from_static_str(sasl.mechanism());
        let shake = SaslHandshakeRequest::default().with_mechanism(mechanism);
        let shaken = self.ask(&shake, 1..=1).await?;
        if shaken.error_code != 0 {
            let offered: Vec<_> = shaken.mechanisms.iter().map(|offered| offered.as_str()).collect();
            return Err(Failure::of_code(
                shaken.error_code,
                Some(&format!("the broker offers {}", offered.join(", "))),
            ));
        }
        match sasl {
            Sasl::Plain(credentials) => {
                self.token(format!("\0{}\0{}", credentials.username, credentials.password).into_bytes()).await?;
            }
            Sasl::ScramSha256(credentials) => self.scram(scram::Hash::Sha256, credentials, nonce).await?,
            Sasl::ScramSha512(credentials) => self.scram(scram::Hash::Sha512, credentials, nonce).await?,
            Sasl::OauthBearer(source) => {
                let token = source.token().await.map_err(Failure::Refused)?;
                let zid = if token.zid.is_empty() { String::new() } else { format!("a={}", token.zid) };
                let extensions: String =
                    token.extensions.iter().map(|(name, value)| format!("{name}={value}\u{1}")).collect();
                let message = format!("n,{zid},\u{1}auth=Bearer {}\u{1}{extensions}\u{1}", token.token);
                self.token(message.into_bytes()).await?;
            }
        }
        Ok(())
    }

    async fn scram(
        &mut self,
        hash: scram::Hash,
        credentials: &rskafka::client::Credentials,
        nonce: u128,
    ) -> Result<(), Failure> {
        let exchange = scram::Exchange::new(hash, &credentials.username, &credentials.password, nonce);
        let challenge = self.token(exchange.first().into_bytes()).await?;
        let refused = |what| Failure::Refused(format!("authentication failed: {what}; see ingest.kafka.sasl_*"));
        let (proof, expected) = exchange.answer(&challenge).map_err(refused)?;
        let last = self.token(proof.into_bytes()).await?;
        if last.as_ref() == expected.as_bytes() {
            Ok(())
        } else {
            Err(refused("the broker does not know the password"))
        }
    }

    async fn token(&mut self, token: Vec<u8>) -> Result<Bytes, Failure> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
        let answer = self.ask(&request, 0..=1).await?;
        if answer.error_code != 0 {
            return Err(Failure::of_code(answer.error_code, answer.error_message.as_deref()));
        }
        Ok(answer.auth_bytes)
    }
}
