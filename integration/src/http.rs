//! A blocking HTTP/1.1 client of a hundred lines: keep-alive, `Content-Length` and chunked answers, nothing else.
//!
//! Tests and the load generator share the machine with the server, so the client must cost next to nothing and must
//! tell a broken connection (outcome unknown) from an answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection. After an error it must be thrown away.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Header names in lower case with their values, in the order received.
    pub headers: Vec<(String, String)>,
    /// Body after transfer decoding.
    pub body: Vec<u8>,
}

impl Answer {
    /// First value of a header, name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text, lossy.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// Shows the body when it is not JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .map_err(|e| anyhow::anyhow!("status {}, body is not JSON ({e}): {}", self.status, self.text()))
    }
}

impl Connection {
    /// Opens a connection; `timeout` bounds connecting and every single read and write.
    ///
    /// # Errors
    /// As the socket says.
    pub fn open(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::new(stream), host: addr.to_string() })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// An error means that the outcome is unknown: the server may or may not have taken the request.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        // A server may answer and close before it has read a body that it will not take: the answer is there all the same.
        let written = stream.write_all(body);
        self.read_answer(method).or_else(|error| written.and(Err(error)))
    }

    /// `GET`, for an answer that is too large to hold: `take` gets its body as it comes, the answer has none.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn get_in_pieces(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        take: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Answer> {
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.stream.get_mut().write_all(head.as_bytes())?;
        let answer = self.read_head()?;
        let mut buffer = vec![0; 64 << 10];
        let mut pass = |stream: &mut BufReader<TcpStream>, mut left: usize| -> io::Result<()> {
            while left > 0 {
                let most = left.min(buffer.len());
                let read = stream.read(&mut buffer[..most])?;
                if read == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed by the server"));
                }
                take(&buffer[..read]);
                left -= read;
            }
            Ok(())
        };
        if answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            loop {
                let size = self.chunk_size()?;
                pass(&mut self.stream, size)?;
                self.line()?;
                if size == 0 {
                    return Ok(answer);
                }
            }
        }
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        pass(&mut self.stream, length.ok_or_else(|| bad("an answer without a length"))?)?;
        Ok(answer)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed by the server"));
        }
        Ok(line.trim_end().to_owned())
    }

    fn read_head(&mut self) -> io::Result<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad(&status_line))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Answer { status, headers, body: Vec::new() })
    }

    fn chunk_size(&mut self) -> io::Result<usize> {
        let size = self.line()?;
        usize::from_str_radix(size.split(';').next().unwrap_or(""), 16)
            .map_err(|e| bad(&format!("chunk size {size:?}: {e}")))
    }

    fn read_answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.read_head()?;
        let status = answer.status;
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            loop {
                let size = self.chunk_size()?;
                let from = answer.body.len();
                answer.body.resize(from + size, 0);
                self.stream.read_exact(&mut answer.body[from..])?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|e| bad(&format!("content-length {length:?}: {e}")))?;
            answer.body.resize(length, 0);
            self.stream.read_exact(&mut answer.body)?;
        } else {
            self.stream.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// One request on a connection of its own.
///
/// # Errors
/// As [`Connection::send`].
pub fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    Connection::open(addr, Duration::from_secs(30))?.send(method, path, headers, body)
}

/// `GET` on a connection of its own.
///
/// # Errors
/// As [`Connection::send`].
pub fn get(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    request(addr, "GET", path, &[], &[])
}

/// Percent-encodes a query parameter's value.
#[must_use]
pub fn encode(value: &str) -> String {
    value
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
