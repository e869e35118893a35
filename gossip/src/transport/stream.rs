//! One connection: frames with their length before them, both ways.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Incoming, Limits, StreamTls};
use crate::frame::{FRAME_BYTES_MAX, Refused, is_http};
use crate::swim::Channel;

/// How often a connection that ended well is opened again for what was waiting.
const AGAIN_MAX: usize = 2;

/// What an HTTP client hears at the gossip port.
const HTTP_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
This is the gossip port (memberlist.bind_port), which does not speak HTTP. \
Pages, the member list at /memberlist among them, are at server.http_listen_port.\n";

/// Opens a connection for the frames of a queue. A failure is reported if anything was to be sent.
pub(super) async fn open(
    address: SocketAddr,
    mut frames: mpsc::Receiver<Vec<u8>>,
    incoming: mpsc::Sender<Incoming>,
    limits: Limits,
    tls: Option<StreamTls>,
) {
    let mut ended = dial(address, &mut frames, &incoming, limits, tls.clone()).await;
    for _ in 0..AGAIN_MAX {
        // It was closed because nobody used it, and at that moment somebody did.
        if ended.is_err() || frames.is_empty() {
            break;
        }
        ended = dial(address, &mut frames, &incoming, limits, tls.clone()).await;
    }
    frames.close();
    let unsent = frames.try_recv().is_ok();
    if let Err(error) = &ended {
        tracing::debug!(%address, %error, "gossip connection failed");
    }
    if ended.is_err() || unsent {
        // Only a member that is shutting down does not listen any more.
        incoming.send(Incoming::StreamFailed(address)).await.ok();
    }
}

async fn dial(
    address: SocketAddr,
    frames: &mut mpsc::Receiver<Vec<u8>>,
    incoming: &mpsc::Sender<Incoming>,
    limits: Limits,
    tls: Option<StreamTls>,
) -> io::Result<()> {
    let late = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
    let channel = Channel::Opened(address);
    let stream = timeout(limits.dial, TcpStream::connect(address)).await.map_err(late)??;
    stream.set_nodelay(true)?;
    match tls {
        None => serve_frames(stream, address, channel, frames, incoming, limits).await,
        Some(tls) => {
            let stream = timeout(limits.dial, tls.connect(address, stream)).await.map_err(late)??;
            serve_frames(stream, address, channel, frames, incoming, limits).await
        }
    }
}

/// Serves a connection that was accepted.
pub(super) async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    channel: Channel,
    mut frames: mpsc::Receiver<Vec<u8>>,
    incoming: mpsc::Sender<Incoming>,
    limits: Limits,
    tls: Option<StreamTls>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return serve_frames(stream, remote, channel, &mut frames, &incoming, limits).await };
    let late = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
    // Whoever speaks HTTP is answered in HTTP: a failed handshake would explain nothing.
    let mut head = [0; 4];
    let heard = timeout(limits.dial, stream.peek(&mut head)).await.map_err(late)??;
    if is_http(&head[..heard]) {
        return serve_frames(stream, remote, channel, &mut frames, &incoming, limits).await;
    }
    match timeout(limits.dial, tls.accept(stream)).await.map_err(late)? {
        Ok(stream) => serve_frames(stream, remote, channel, &mut frames, &incoming, limits).await,
        Err(error) => {
            incoming.send(Incoming::Refused(remote, Refused::Handshake)).await.ok();
            Err(error)
        }
    }
}

async fn serve_frames<S: AsyncRead + AsyncWrite>(
    stream: S,
    remote: SocketAddr,
    channel: Channel,
    frames: &mut mpsc::Receiver<Vec<u8>>,
    incoming: &mpsc::Sender<Incoming>,
    limits: Limits,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let active = AtomicBool::new(true);
    let reading = read(&mut reader, remote, channel, incoming, limits, &active);
    let writing = write(&mut writer, frames, limits, &active);
    // Either ends the other: each is one future from beginning to end, so nothing is cut within a frame.
    let ended = tokio::select! {
        ended = reading => ended,
        ended = writing => ended.map(|()| End::Closed),
        () = idle(limits.idle, &active) => Ok(End::Closed),
    };
    match ended? {
        End::Closed => {}
        End::Http => {
            timeout(limits.write, writer.write_all(HTTP_ANSWER))
                .await
                .map_err(|_elapsed| io::ErrorKind::TimedOut)??;
            writer.shutdown().await?;
            // Closing with unread bytes would reset the connection and the answer with it.
            let mut rest = [0; 1024];
            let mut more = true;
            while more {
                let read = timeout(Duration::from_millis(200), reader.read(&mut rest)).await;
                more = matches!(read, Ok(Ok(length)) if length > 0);
            }
            incoming.send(Incoming::Refused(remote, Refused::Http)).await.ok();
        }
    }
    Ok(())
}

#[derive(Debug)]
enum End {
    Closed,
    Http,
}

async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    remote: SocketAddr,
    channel: Channel,
    incoming: &mpsc::Sender<Incoming>,
    limits: Limits,
    active: &AtomicBool,
) -> io::Result<End> {
    loop {
        let mut head = [0; 4];
        match reader.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(End::Closed),
            Err(error) => return Err(error),
        }
        active.store(true, Ordering::Relaxed);
        if is_http(&head) {
            return Ok(End::Http);
        }
        let length = u32::from_be_bytes(head) as usize;
        if length > FRAME_BYTES_MAX {
            incoming.send(Incoming::Refused(remote, Refused::Size(length))).await.ok();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        // Grows with what comes, not with what is announced.
        let mut frame = Vec::with_capacity(length.min(8 * 1024));
        let mut body = (&mut *reader).take(length as u64);
        timeout(limits.write, body.read_to_end(&mut frame)).await.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
        if frame.len() < length {
            return Ok(End::Closed);
        }
        if incoming.send(Incoming::Frame { remote, channel, frame }).await.is_err() {
            return Ok(End::Closed);
        }
    }
}

async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    frames: &mut mpsc::Receiver<Vec<u8>>,
    limits: Limits,
    active: &AtomicBool,
) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(4 + frame.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&frame);
        timeout(limits.write, writer.write_all(&bytes)).await.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
        // Under TLS a record may wait in the stream's own buffer.
        timeout(limits.write, writer.flush()).await.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
        active.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Completes when nothing was active for a whole span.
async fn idle(span: Duration, active: &AtomicBool) {
    while active.swap(false, Ordering::Relaxed) {
        tokio::time::sleep(span).await;
    }
}
