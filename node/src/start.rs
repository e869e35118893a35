//! From the command line to a running process and back to an exit code.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use vivace_runtime::telemetry::{LogFormat, init_log};
use vivace_runtime::{Exit, ProcessOptions, SystemClock};

use crate::config::{self, Action, CommandLine, Environment, Loaded, Target};
use crate::{monolith, pages};

/// From SIGTERM to the exit, at most.
const DRAIN: Duration = Duration::from_secs(9);
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
            let url = arguments.first().map_or("http://localhost:3200/ready", String::as_str);
            return health(url);
        }
        Action::Subcommand(name, _) => {
            complain(&format!("{name} is not part of this version; there are: check-config, health, version\n"));
            return ExitCode::from(2);
        }
        Action::Run | Action::Verify | Action::CheckConfig => {}
    }
    let loaded = match config::load(&line, &Environment::of_process()) {
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
        _ => run(&line, loaded),
    }
}

/// Tempo's rule: any warning fails the check; notices do not.
fn exit_of_check(loaded: &Loaded) -> ExitCode {
    if loaded.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(line: &CommandLine, loaded: Loaded) -> ExitCode {
    let format = if loaded.config.server.log_format == "json" { LogFormat::Json } else { LogFormat::Logfmt };
    if let Err(error) = init_log(format, &loaded.config.server.log_level) {
        complain(&format!("{error}\n"));
        return ExitCode::FAILURE;
    }
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
        tracing::error!("{invalid}");
    }
    if !broken.is_empty() {
        return ExitCode::FAILURE;
    }
    if loaded.target != Target::All {
        tracing::error!(target = %loaded.config.target, "this version runs every component in one process only: use -target=all");
        return ExitCode::FAILURE;
    }
    let shutdown_delay: Duration = loaded.config.shutdown_delay.into();
    let options = ProcessOptions { drain: DRAIN, ..ProcessOptions::default() };
    let exit = vivace_runtime::run(&options, Arc::new(SystemClock), async |process| {
        let running = Box::pin(monolith::wire(process, loaded.config, Arc::new(SystemClock))).await?;
        Ok(move |_deadline| async move {
            tokio::time::sleep(shutdown_delay).await;
            running.close_doors().await;
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

/// `GET url`, 0 if the answer is 200.
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
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("only http:// is asked"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.rsplit(']').next().is_some_and(|port| port.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut last = wrong("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, HEALTH_TIMEOUT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
                write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
                let mut answer = Vec::new();
                stream.take(64).read_to_end(&mut answer)?;
                let line = String::from_utf8_lossy(&answer);
                return line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| wrong("no HTTP answer"));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Output that nobody reads any more is no reason to fail.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}

fn complain(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).ok();
}
