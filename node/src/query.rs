//! `vivace query …`: asks a running process from the command line and shows what it answers.
//!
//! Owns nothing and changes nothing: it is a client of the public API, over HTTP, and over the streaming gRPC API where
//! `-grpc` names one, which tells how far a long query is. Answers go to standard output, everything else to standard error.
//!
//! Exit codes: 0 answered, 1 the query failed, 2 wrong command line, 3 there is no such trace, 4 answered, but something that
//! should have been read was not.

mod arguments;
mod ask;
mod coverage;
mod http;
mod progress;
mod render;
mod stream;
mod table;
mod times;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use vivace_runtime::{Clock, SystemClock};

use arguments::{ArgumentError, Arguments, Command, Output};
use progress::Progress;

pub(crate) use arguments::help;

/// An answer, ready to be printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    text: String,
    /// What was not read, in words, when something was not.
    missing: Option<String>,
    not_found: bool,
    /// The flag that asks for what follows, when there is more.
    more: Option<String>,
}

/// Why there is no answer: one or two lines for people.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

/// Runs `vivace query` with the arguments behind it.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    if arguments::asks_for_help(arguments) {
        return print(&help(), ExitCode::SUCCESS);
    }
    let arguments = match arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error @ ArgumentError::NoCommand) => return fail(&format!("{error}\n\n{}", help()), 2),
        // One line about what is wrong is seen; above a page of flags it is not.
        Err(error) => return fail(&format!("{error}\n`vivace query -help` lists commands and flags.\n"), 2),
    };
    let now_ns = SystemClock.unix_nanos();
    if let Err(error) = check(&arguments, now_ns) {
        return fail(&format!("{error}\n"), 2);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("start of the runtime: {error}\n"), 1),
    };
    let mut progress = Progress::new(std::io::stderr(), std::io::stderr().is_terminal());
    let result = runtime.block_on(ask::ask(&arguments, now_ns, &mut progress));
    progress.clear();
    match result {
        Ok(shown) => finish(&shown),
        Err(failure) => fail(&format!("{failure}\n"), 1),
    }
}

/// What can be said without the server. A query that does not parse need not travel: the parser is the server's own.
fn check(arguments: &Arguments, now_ns: u64) -> Result<(), String> {
    arguments.times.window(now_ns).map_err(|error| error.to_string())?;
    http::Server::new(&arguments.url).map_err(|failure| failure.to_string())?;
    if let Some(filter) = &arguments.filter {
        // The server passes over what it cannot use, because it is asked while somebody types. Here all has been typed.
        vivace_traceql::Query::parse(filter).map_err(|error| format!("-filter: {}", error.render()))?;
    }
    let query = match &arguments.command {
        Command::Search(query) | Command::Metrics(query) => query,
        Command::Explain(target) if !arguments::is_trace_id(target) => target,
        Command::Explain(_) | Command::Trace(_) | Command::Tags | Command::Values(_) => return Ok(()),
    };
    let parsed = vivace_traceql::Query::parse(query).map_err(|error| error.render())?;
    match (&arguments.command, parsed.is_metrics()) {
        (Command::Search(_), true) => Err(format!("`{query}` computes series: use `vivace query metrics`")),
        (Command::Metrics(_), false) => Err(format!(
            "`{query}` computes no series: use `vivace query search`, or add a function, as in `{query} | rate()`"
        )),
        _ => Ok(()),
    }
}

fn finish(shown: &Shown) -> ExitCode {
    if let Some(missing) = &shown.missing {
        // Before the answer, so that it is seen also where the answer is cut by a pager.
        std::io::stderr().write_all(format!("incomplete: {missing}\n").as_bytes()).ok();
    }
    if let Some(more) = &shown.more {
        std::io::stderr().write_all(format!("there is more: the same with {more}\n").as_bytes()).ok();
    }
    let code = match shown {
        Shown { not_found: true, .. } => 3,
        Shown { missing: Some(_), .. } => 4,
        Shown { .. } => 0,
    };
    print(&shown.text, ExitCode::from(code))
}

/// Output that nobody reads any more (a closed pipe) is no failure.
fn print(text: &str, code: ExitCode) -> ExitCode {
    std::io::stdout().write_all(text.as_bytes()).ok();
    code
}

fn fail(text: &str, code: u8) -> ExitCode {
    std::io::stderr().write_all(text.as_bytes()).ok();
    ExitCode::from(code)
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Text for people or the answer as it came.
fn pick(output: Output, json: &[u8], table: impl FnOnce() -> Result<String, Failure>) -> Result<String, Failure> {
    match output {
        Output::Json => {
            let mut text = String::from_utf8_lossy(json).into_owned();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            Ok(text)
        }
        Output::Table => table(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000_000_000;

    fn checked(line: &[&str]) -> Result<(), String> {
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        check(&arguments::parse(&words).unwrap(), NOW)
    }

    #[test]
    fn what_is_wrong_by_itself_is_said_before_anybody_is_asked() {
        let cases: [(&[&str], &str); 7] = [
            (&["values", "name", "-filter", "{ kind = "], "-filter: parse error at line 1, col 10"),
            (&["search", "{ }", "-since=5m", "-start=now-1m"], "-start and -since exclude each other"),
            (&["search", "{ }", "-start=now", "-end=now-1h"], "the window is empty"),
            (&["tags", "-url=localhost:3200"], "it has to begin with http://"),
            (&["search", "{ "], "parse error at line 1, col 3"),
            (&["search", "{ } | rate()"], "use `vivace query metrics`"),
            (&["metrics", "{ }"], "computes no series"),
        ];
        for (line, why) in cases {
            let error = checked(line).unwrap_err();
            assert!(error.contains(why), "{line:?}: {error}");
        }
        let fine = ["values", "name", "-filter", "{ kind = server }", "-start=now-1h", "-url=http://localhost:3200"];
        assert_eq!(checked(&fine), Ok(()));
    }
}
