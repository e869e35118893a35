//! `vivace blocks`: looks at the blocks of a bucket, as the configuration names it. Changes nothing.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use vivace_runtime::{Clock, Failure, SystemClock};
use vivace_storage::{Audit, AuditRules, Backend, BlockKey, ChainAudit, StoreEnvironment, Timestamp, audit};

use crate::config::{self, Config, Environment};

const USAGE: &str = "usage: vivace blocks audit|list [-json] [-tenant=NAME] -config.file=FILE [FLAGS]

  audit   walks the commit objects of every topic and partition and proves that each record is in exactly one section: every
          chain gapless, no two sections overlap, every block there or merged. Exit code 1 if something is wrong.
  list    the live blocks, of all tenants or one

The bucket is that of storage.trace in the configuration; flags are those of the process.
";

/// What was asked.
struct Question {
    list: bool,
    json: bool,
    tenant: Option<String>,
}

/// Runs the subcommand; `arguments` stand behind `blocks`. Exit codes: 0 proven or listed, 1 something is wrong or the bucket cannot
/// be read, 2 wrong command line.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let Some((verb, rest)) = arguments.split_first() else { return complain(USAGE, 2) };
    let list = match verb.as_str() {
        "audit" => false,
        "list" => true,
        "help" | "-h" | "-help" | "--help" => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        other => return complain(&format!("there is no `blocks {other}`\n{USAGE}"), 2),
    };
    let mut question = Question { list, json: false, tenant: None };
    let mut flags = Vec::new();
    for argument in rest {
        let name = argument.trim_start_matches('-');
        if name == "json" || name == "json=true" {
            question.json = true;
        } else if let Some(tenant) = name.strip_prefix("tenant=") {
            question.tenant = Some(tenant.to_owned());
        } else {
            flags.push(argument.clone());
        }
    }
    let line = match config::parse_flags(flags) {
        Ok(line) => line,
        Err(error) => return complain(&format!("{error}\n{USAGE}"), 2),
    };
    let environment = Environment::of_process();
    let loaded = match config::load(&line, &environment) {
        Ok(loaded) => loaded,
        Err(error) => return complain(&format!("{error}\n"), 1),
    };
    match answer(&question, &loaded.config, &environment.of_stores()) {
        Ok((text, good)) => {
            say(&text);
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => complain(&format!("{failure}\n"), 1),
    }
}

fn answer(question: &Question, config: &Config, environment: &StoreEnvironment) -> Result<(String, bool), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let backend = Backend::open(&config.storage.trace, environment)?;
        backend.check().await?;
        if question.list {
            return Ok((listed(&backend, question).await?, true));
        }
        let merged_kept: Duration = config.backend_worker.compaction.compacted_block_retention.into();
        let now = Timestamp(SystemClock.unix_nanos());
        let found = audit(&backend, AuditRules { now, merged_kept }).await?;
        let good = found.is_proven();
        let text = if question.json { serde_json::to_string_pretty(&found)? + "\n" } else { told(&found) };
        Ok((text, good))
    })
}

/// The audit in words.
fn told(found: &Audit) -> String {
    if found.chains.is_empty() {
        return "there is no commit object in this bucket: no block-builder has written to it\n".to_owned();
    }
    let mut text = String::new();
    for chain in &found.chains {
        let ChainAudit {
            log_id,
            partition,
            covers,
            sections,
            live,
            merged,
            removed,
            incomplete,
            quarantined,
            lost,
            ..
        } = chain;
        text += &format!(
            "topic {log_id} partition {partition}: offsets {} to {} in {sections} sections; blocks: {live} live, {merged} merged, \
             {removed} removed, {incomplete} to be completed; {quarantined} records set aside, {lost} offsets lost\n",
            covers.start, covers.end
        );
        for problem in &chain.problems {
            text += &format!("  WRONG: {problem}\n");
        }
    }
    for problem in &found.problems {
        text += &format!("WRONG: {problem}\n");
    }
    text + if found.is_proven() {
        "proven: every chain is gapless and disjoint, every block is accounted for\n"
    } else {
        "not proven: see what is WRONG above\n"
    }
}

async fn listed(backend: &Backend, question: &Question) -> Result<String, Failure> {
    let tenants = match &question.tenant {
        Some(tenant) => vec![tenant.clone()],
        None => backend.list_tenants().await?,
    };
    let mut text = String::new();
    for tenant in tenants {
        for block in backend.list_blocks(&tenant).await?.live {
            let meta = match backend.read_meta(&BlockKey::new(tenant.as_str(), block)).await {
                Ok(meta) => meta,
                // Merged since the listing.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            text += &if question.json {
                serde_json::to_string(&meta)? + "\n"
            } else {
                format!(
                    "{tenant} {block} {} to {}: {} traces, {} bytes, {} row groups, level {}, {}\n",
                    meta.start_time,
                    meta.end_time,
                    meta.total_objects,
                    meta.size,
                    meta.total_records,
                    meta.compaction_level,
                    meta.format
                )
            };
        }
    }
    Ok(text)
}

fn say(text: &str) {
    // A reader that went away wants no more.
    std::io::stdout().write_all(text.as_bytes()).ok();
}

fn complain(text: &str, code: u8) -> ExitCode {
    std::io::stderr().write_all(text.as_bytes()).ok();
    ExitCode::from(code)
}
