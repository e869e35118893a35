//! From the command line to a running process and back to an exit code.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use vivace_runtime::telemetry::{LogFormat, init_log};
use vivace_runtime::{Exit, ProcessOptions, SystemClock};

use crate::base::{self, Base};
use crate::config::{self, Action, CommandLine, Environment, Loaded};
use crate::{blocks, devbroker, listeners, pages, query, roles};

/// From SIGTERM to the exit, at most.
const DRAIN: Duration = Duration::from_secs(9);
/// Whom `health` asks without a URL.
const READY: &str = "http://localhost:3200/ready";
/// `-health` waits this long for an answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs what the arguments (without the program's name) ask for.
///
/// Exit codes: 0 done, 1 configuration or start failed or the process failed, 2 wrong command line or the end took too long.
pub fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let line = match config::parse_flags(arguments) {
        Ok(line) => line,
        Err(error) => {
            complain(&format!("{error}\n{}", config::help()));
            return ExitCode::from(2);
        }
    };
    match &line.action {
        Action::Help => {
            say(&config::help());
            return ExitCode::SUCCESS;
        }
        Action::Version => {
            say(&format!("vivace, version {} (Tempo API level {})\n", env!("CARGO_PKG_VERSION"), pages::API_LEVEL));
            return ExitCode::SUCCESS;
        }
        Action::Health(url) => return health(url),
        Action::Subcommand(name, arguments) if name == "health" => {
            return match arguments.as_slice() {
                [] => health(READY),
                [url] if !url.starts_with('-') => health(url),
                _ => {
                    complain(&format!(
                        "usage: vivace health [URL]; exit code 0 if it answers 200, by default {READY}\n"
                    ));
                    ExitCode::from(2)
                }
            };
        }
        Action::Subcommand(name, arguments) if name == "query" => return query::main(arguments),
        Action::Subcommand(name, arguments) if name == "devbroker" => return devbroker::main(arguments),
        Action::Subcommand(name, arguments) if name == "listeners" => return listeners::main(arguments),
        Action::Subcommand(name, arguments) if name == "blocks" => return blocks::main(arguments),
        Action::Subcommand(name, _) => {
            complain(&format!(
                "{name} is not part of this version; there are: blocks, check-config, devbroker, health, listeners, query, version\n"
            ));
            return ExitCode::from(2);
        }
        Action::Run | Action::Verify | Action::CheckConfig => {}
    }
    let environment = Environment::of_process();
    let loaded = match config::load(&line, &environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(&format!("{error}\n"));
            return ExitCode::FAILURE;
        }
    };
    match line.action {
        Action::CheckConfig => {
            let (text, good) = config::report(&loaded);
            say(&text);
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Action::Verify => {
            for warning in &loaded.warnings {
                complain(&format!("warning: {warning}\n"));
            }
            for notice in &loaded.notices {
                complain(&format!("notice: {notice}\n"));
            }
            exit_of_check(&loaded)
        }
        _ => run(&line, loaded, &environment),
    }
}

/// Tempo's rule: any warning fails the check; notices do not.
fn exit_of_check(loaded: &Loaded) -> ExitCode {
    if loaded.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(line: &CommandLine, loaded: Loaded, environment: &Environment) -> ExitCode {
    let format = if loaded.config.server.log_format == "json" { LogFormat::Json } else { LogFormat::Logfmt };
    let log = match init_log(format, &loaded.config.server.log_level) {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("{error}\n"));
            return ExitCode::FAILURE;
        }
    };
    let file = line.file.as_deref().unwrap_or("(none)");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), target = %loaded.config.target, config = file, "starting");
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for notice in &loaded.notices {
        tracing::info!("{notice}");
    }
    let broken = loaded.config.validate(loaded.target);
    for invalid in &broken {
        tracing::error!("{}", config::chain(invalid));
    }
    if !broken.is_empty() {
        return ExitCode::FAILURE;
    }
    if let Some(reason) = roles::missing(loaded.target) {
        tracing::error!(target = %loaded.config.target, "{reason}");
        return ExitCode::FAILURE;
    }
    let faults = crate::faults::apply_hook(environment);
    let shutdown_delay: Duration = loaded.config.shutdown_delay.into();
    let arbiters = base::arbiters(&loaded.config, loaded.target);
    let options = ProcessOptions { drain: DRAIN, arbiters, ..ProcessOptions::default() };
    let exit = vivace_runtime::run(&options, Arc::new(SystemClock), async |process| {
        let setup = base::Setup {
            target: loaded.target,
            config: loaded.config,
            clock: Arc::new(SystemClock),
            log_level: log,
            faults,
            store_environment: environment.of_stores(),
        };
        let wiring = async {
            let mut base = Base::new(process, setup)?;
            roles::add(&mut base).await?;
            Box::pin(base.open()).await
        };
        let running = Box::pin(wiring).await?;
        Ok(move |_deadline| async move {
            tokio::time::sleep(shutdown_delay).await;
            running.close().await;
        })
    });
    match exit {
        Ok(exit) => {
            match &exit {
                Exit::Clean => tracing::info!("stopped"),
                Exit::Overdue => tracing::warn!("stopped before everything was drained; what is left is in the log"),
                Exit::Failed(cause) => tracing::error!(%cause, "stopped"),
            }
            ExitCode::from(exit.code())
        }
        Err(error) => {
            tracing::error!(%error, "the process could not be set up");
            ExitCode::FAILURE
        }
    }
}

/// `GET url`, 0 if the answer is 200. Under TLS no certificate is verified: the process is asked how it is, not who.
fn health(url: &str) -> ExitCode {
    match probe(url) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => {
            complain(&format!("{url} answered {status}\n"));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&format!("{url}: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn probe(url: &str) -> std::io::Result<u16> {
    let wrong = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidInput, what.to_owned());
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(wrong("only http:// and https:// are asked")),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = if host.rsplit(']').next().is_some_and(|port| port.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:{}", if secure { 443 } else { 80 })
    };
    let mut last = wrong("the name has no address");
    let name = authority.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, HEALTH_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
                stream.set_write_timeout(Some(HEALTH_TIMEOUT))?;
                return if secure {
                    answered(vivace_runtime::tls::unverified(name, stream)?, host, path)
                } else {
                    answered(stream, host, path)
                };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks on a connection; the status of the answer.
fn answered(mut stream: impl Read + Write, host: &str, path: &str) -> std::io::Result<u16> {
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.take(64).read_to_end(&mut answer)?;
    let line = String::from_utf8_lossy(&answer);
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "no HTTP answer"))
}

/// Output that nobody reads any more is no reason to fail.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}

fn complain(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).ok();
}
