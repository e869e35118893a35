//! `vivace devbroker`: a development broker that speaks the Kafka protocol. See the crate `vivace-devbroker`.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use vivace_devbroker::{DevBroker, Options};
use vivace_runtime::config::GoDuration;
use vivace_runtime::telemetry::{LogFormat, init_log};

const USAGE: &str = "usage: vivace devbroker [FLAGS]

A broker that speaks the Kafka protocol, for development only: one copy of everything, no encryption, no permissions.

  -listen=HOST:PORT          where; may be given several times, an IPv6 address in brackets (127.0.0.1:9092 and [::1]:9092)
  -data=DIR                  folder for records and offsets, also -dir (./vivace-devbroker)
  -topic=NAME:PARTITIONS     make this topic at start if it is missing, or more partitions if it has fewer; may be given several times
  -partitions=N              partitions of topics that are made without a number (1)
  -auto-create               make topics that a client asks for
  -advertise=HOST:PORT       tell clients to use this address (the one by which each has come)
  -allow-remote              permit listening on addresses that other machines can reach
  -admin=HOST:PORT           port for faults, HTTP, loopback only (none)
  -retention=DURATION        how long records are kept (for ever)
  -retention-bytes=BYTES     how much each partition keeps (everything)
  -segment-bytes=BYTES       length of a file, which retention removes as a whole (16777216)
  -max-message-bytes=BYTES   the longest batch (16777216)
  -sasl-plain=USER:PASSWORD  clients must authenticate with SASL PLAIN
  -log.level=LEVEL           debug, info, warn or error (info)

Flags may begin with one or two dashes, and their value may be the next argument.
";

/// What a command line asks for.
#[derive(Debug)]
struct Asked {
    options: Options,
    log_level: String,
}

/// Runs the subcommand; `arguments` stand behind `devbroker`. Exit codes: 0 ended by SIGTERM or SIGINT, 1 it could not start,
/// 2 wrong command line.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    if arguments.first().is_some_and(|first| matches!(first.trim_start_matches('-'), "help" | "h")) {
        std::io::stdout().write_all(USAGE.as_bytes()).ok();
        return ExitCode::SUCCESS;
    }
    let asked = match parse(arguments) {
        Ok(asked) => asked,
        Err(problem) => return complain(&format!("{problem}\n{USAGE}"), 2),
    };
    if let Err(error) = init_log(LogFormat::Logfmt, &asked.log_level) {
        return complain(&format!("{error}\n{USAGE}"), 2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let served =
        runtime.map_err(|error| vec![error.to_string()]).and_then(|runtime| runtime.block_on(serve(asked.options)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(causes) => complain(&format!("vivace devbroker: {}\n", causes.join(": ")), 1),
    }
}

/// Serves until the process is asked to end.
async fn serve(options: Options) -> Result<(), Vec<String>> {
    // Before anything is promised, so that no signal ends the process in the middle of the start.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| vec![error.to_string()])?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| vec![error.to_string()])?;
    let _lock = lock(&options.dir)?;
    let broker = DevBroker::start(options).await.map_err(|error| causes(&error))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    broker.stop().await;
    Ok(())
}

/// Keeps a second broker away from the folder, as long as the file is open.
fn lock(dir: &Path) -> Result<File, Vec<String>> {
    let failed = |error: std::io::Error| vec![format!("use the folder {}", dir.display()), error.to_string()];
    std::fs::create_dir_all(dir).map_err(failed)?;
    let file = File::create(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(vec![format!("another broker uses the folder {}", dir.display())]),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked { options: Options::in_dir("vivace-devbroker"), log_level: "info".to_owned() };
    let mut listen = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let body = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
        let body = body.ok_or_else(|| format!("`{argument}` is not a flag"))?;
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let switched = || match value.as_deref() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("-{name}: `{other}` is neither true nor false")),
        };
        match name {
            "auto-create" => asked.options.auto_create = switched()?,
            "allow-remote" => asked.options.allow_remote = switched()?,
            _ => {
                let value = value.or_else(|| arguments.next().cloned());
                set(&mut asked, &mut listen, name, value)?;
            }
        }
    }
    asked.options.listen =
        if listen.is_empty() { vec!["127.0.0.1:9092".to_owned(), "[::1]:9092".to_owned()] } else { listen };
    Ok(asked)
}

fn set(asked: &mut Asked, listen: &mut Vec<String>, name: &str, value: Option<String>) -> Result<(), String> {
    let options = &mut asked.options;
    let value = value.ok_or_else(|| format!("-{name} needs a value"));
    match name {
        "listen" => listen.push(value?),
        "data" | "dir" => options.dir = value?.into(),
        "topic" => options.topics.push(topic(&value?)?),
        "partitions" => options.default_partitions = number(name, &value?)?,
        "advertise" => options.advertise = Some(value?),
        "admin" => options.admin = Some(value?),
        "retention" => {
            let value = value?;
            let wrong = |error| format!("-retention: `{value}`: {error}");
            let retention: GoDuration = value.parse().map_err(wrong)?;
            options.retention = Some(Duration::from(retention));
        }
        "retention-bytes" => options.retention_bytes = Some(number(name, &value?)?),
        "segment-bytes" => options.segment_bytes = number(name, &value?)?,
        "max-message-bytes" => options.max_message_bytes = number(name, &value?)?,
        "sasl-plain" => {
            let value = value?;
            let (user, password) = value.split_once(':').ok_or("-sasl-plain takes USER:PASSWORD")?;
            options.sasl_plain = Some((user.to_owned(), password.to_owned()));
        }
        "log.level" => asked.log_level = value?,
        _ => return Err(format!("there is no flag -{name}")),
    }
    Ok(())
}

fn topic(text: &str) -> Result<(String, i32), String> {
    let parts = text.rsplit_once(':').and_then(|(name, partitions)| Some((name.to_owned(), partitions.parse().ok()?)));
    parts.ok_or_else(|| format!("-topic: `{text}` is not NAME:PARTITIONS"))
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_not_one| format!("-{name}: `{text}` is not a number that fits"))
}

fn complain(text: &str, code: u8) -> ExitCode {
    std::io::stderr().write_all(text.as_bytes()).ok();
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> Result<Asked, String> {
        parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_take_one_dash_or_two_and_their_value_either_way() {
        let asked = asked(&[
            "--listen=[::1]:9092",
            "-listen",
            "127.0.0.1:9092",
            "-data=/d",
            "-topic=a:3",
            "-partitions",
            "2",
            "-allow-remote",
            "-retention=1h",
            "-advertise=kafka:9092",
        ])
        .unwrap();
        let options = asked.options;
        assert_eq!(options.listen, ["[::1]:9092", "127.0.0.1:9092"]);
        assert_eq!((options.dir.to_str(), options.default_partitions), (Some("/d"), 2));
        assert_eq!(options.topics, [("a".to_owned(), 3)]);
        assert_eq!(options.retention, Some(Duration::from_secs(3600)));
        assert_eq!(options.advertise.as_deref(), Some("kafka:9092"));
        assert!(options.allow_remote && !options.auto_create);
    }

    #[test]
    fn a_folder_has_one_broker_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).unwrap_err()[0].starts_with("another broker uses the folder"));
        drop(first);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (arguments, problem) in [
            (&["-lisen=x"][..], "there is no flag -lisen"),
            (&["-topic=a"], "-topic: `a` is not NAME:PARTITIONS"),
            (&["-partitions"], "-partitions needs a value"),
            (&["-partitions=x"], "-partitions: `x` is not a number that fits"),
            (&["x"], "`x` is not a flag"),
            (&["-auto-create=maybe"], "-auto-create: `maybe` is neither true nor false"),
        ] {
            assert_eq!(asked(arguments).unwrap_err(), problem);
        }
    }
}
