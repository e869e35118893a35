//! `vivace listeners [URL]`: asks the process that runs beside it.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

const URL: &str = "http://localhost:3200/status/listeners";
const PATIENCE: Duration = Duration::from_secs(5);
/// A list of sockets is short.
const ANSWER_MAX: u64 = 1 << 20;

/// Prints the listeners of the process at the URL. Exit codes: 0 shown, 1 not reached or refused, 2 wrong arguments.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let url = match arguments {
        [] => URL,
        [url] if !url.starts_with('-') => url.as_str(),
        _ => {
            return complain(
                "usage: vivace listeners [URL]; the URL is that of the running process, by default ",
                URL,
                2,
            );
        }
    };
    match ask(url) {
        Ok(answer) => {
            io::stdout().write_all(answer.as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Err(error) => complain(&format!("{url}: "), &error.to_string(), 1),
    }
}

fn complain(before: &str, text: &str, code: u8) -> ExitCode {
    // Output that nobody reads any more is no reason to fail otherwise.
    writeln!(io::stderr(), "{before}{text}").ok();
    ExitCode::from(code)
}

fn ask(url: &str) -> io::Result<String> {
    let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidInput, what);
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("only http:// is asked"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, "status/listeners"));
    let address = if host.rsplit(']').next().is_some_and(|port| port.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut last = wrong("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return exchange(stream, host, path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream, host: &str, path: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer ends with the connection and comes in one piece.
    // In one piece as well: whoever has read a part of it may answer and close before the rest comes.
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| invalid("no HTTP answer".to_owned()))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(invalid(format!("answered {}: {}", status.unwrap_or("nothing"), body.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request and returns what was asked.
    fn server(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/status/listeners", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (url, served)
    }

    #[test]
    fn the_answer_of_the_process_is_shown_as_it_is() {
        let (url, served) = server("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nPROTOCOL\ntcp\n");
        assert_eq!(ask(&url).unwrap(), "PROTOCOL\ntcp\n");
        assert!(served.join().unwrap().starts_with("GET /status/listeners HTTP/1.0\r\n"));
    }

    #[test]
    fn a_refusal_is_an_error_that_repeats_it() {
        let (url, served) = server("HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n");
        assert_eq!(ask(&url).unwrap_err().to_string(), "answered 404: 404 page not found");
        served.join().unwrap();
        assert!(ask("https://localhost/").is_err());
    }
}
