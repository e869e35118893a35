//! One client's connection: reads a request, has it carried out, writes the answer, and only then reads the next, as Kafka's
//! brokers do. Nothing that a client sends ends more than its own connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::sasl::Trust;
use crate::broker::Broker;
use crate::dispatch::{Outcome, dispatch};
use crate::request::{BadRequest, Request};

/// A request that has begun must be whole by then, and an answer taken.
const PATIENCE: Duration = Duration::from_secs(60);
/// A body is read in pieces of this, so that a length alone reserves nothing.
const PIECE_BYTES: usize = 1 << 20;

pub(crate) struct Connection {
    broker: Arc<Broker>,
    stream: TcpStream,
    local: SocketAddr,
    peer: SocketAddr,
    trust: Trust,
}

/// Why a connection ends, other than by the client's wish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("read or write")]
    Io(#[from] io::Error),
    #[error("a request of {0} bytes is not permitted")]
    Length(i32),
    #[error("the client is too slow")]
    Slow,
    #[error(transparent)]
    Request(#[from] BadRequest),
    #[error("the client has not authenticated")]
    Stranger,
    #[error("a fault cut the connection")]
    Cut,
}

impl Connection {
    pub(crate) fn new(broker: Arc<Broker>, stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        let local = stream.local_addr()?;
        stream.set_nodelay(true)?;
        let trust = if broker.options.sasl_plain.is_some() { Trust::Stranger } else { Trust::Known };
        Ok(Self { broker, stream, local, peer, trust })
    }

    /// Serves until one side ends it.
    pub(crate) async fn run(mut self) {
        let peer = self.peer;
        match self.serve().await {
            Ok(()) => tracing::debug!(%peer, "connection ends"),
            Err(Ended::Io(error)) => {
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ends")
            }
            Err(reason) => tracing::warn!(%peer, %reason, "close connection"),
        }
    }

    async fn serve(&mut self) -> Result<(), Ended> {
        loop {
            let Some(length) = self.read_length().await? else { return Ok(()) };
            let Some(_room) = self.broker.room_for(length).await else { return Ok(()) };
            let request = Request::read(self.read_body(length).await?)?;
            let early =
                matches!(request.head.key, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
            if self.trust != Trust::Known && !early {
                return Err(Ended::Stranger);
            }
            match dispatch(&self.broker, (self.local, self.peer), &mut self.trust, request).await? {
                Outcome::Answer(answer) => self.write(&answer).await?,
                Outcome::Silence => {}
                Outcome::Hang => return self.hang().await,
                Outcome::Cut => return Err(Ended::Cut),
            }
        }
    }

    /// `None`: the client has said all it wanted.
    async fn read_length(&mut self) -> Result<Option<usize>, Ended> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let length = i32::from_be_bytes(length);
        match usize::try_from(length) {
            Ok(bytes) if bytes <= self.broker.options.max_request_bytes => Ok(Some(bytes)),
            _ => Err(Ended::Length(length)),
        }
    }

    async fn read_body(&mut self, length: usize) -> Result<Bytes, Ended> {
        let late = self.broker.clock.sleep(PATIENCE);
        let stream = &mut self.stream;
        let read = async {
            let mut body = BytesMut::with_capacity(length.min(PIECE_BYTES));
            while body.len() < length {
                let piece = (length - body.len()).min(PIECE_BYTES);
                let from = body.len();
                body.resize(from + piece, 0);
                stream.read_exact(&mut body[from..]).await?;
            }
            Ok::<_, io::Error>(body.freeze())
        };
        tokio::select! {
            body = read => Ok(body?),
            () = late => Err(Ended::Slow),
        }
    }

    async fn write(&mut self, answer: &[u8]) -> Result<(), Ended> {
        let late = self.broker.clock.sleep(PATIENCE);
        tokio::select! {
            written = self.stream.write_all(answer) => Ok(written?),
            () = late => Err(Ended::Slow),
        }
    }

    /// Answers nothing any more, until the client gives up.
    async fn hang(&mut self) -> Result<(), Ended> {
        let mut scrap = vec![0; 4096];
        while self.stream.read(&mut scrap).await? > 0 {}
        Ok(())
    }
}
