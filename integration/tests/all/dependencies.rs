//! The dependency graph of the workspace is the one that ARCHITECTURE.md draws.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Who may depend on whom, by package without the `vivace-` prefix. `actors` stands for each component.
fn allowed(package: &str) -> Option<BTreeSet<&'static str>> {
    let base = ["protocol", "runtime"];
    let set = |more: &[&'static str]| Some(base.iter().copied().chain(more.iter().copied()).collect());
    match package {
        "protocol" | "traceql" | "runtime" => Some(BTreeSet::new()),
        "storage" => set(&["traceql"]),
        "log" | "gossip" => set(&[]),
        "distributor" | "live-store" | "block-builder" | "querier" | "query-frontend" | "metrics-generator"
        | "backend-scheduler" | "backend-worker" => set(&["traceql", "storage", "log", "gossip"]),
        "devbroker" => Some(BTreeSet::from(["log", "runtime"])),
        "node" => None,
        "integration" => set(&["storage"]),
        // The allocator, a call into C and nothing else.
        "heap" => Some(BTreeSet::new()),
        // For tests only, below everything.
        "fuzzkit" => Some(BTreeSet::new()),
        other => panic!("{other} is a new package: say here what it may depend on, and in ARCHITECTURE.md why"),
    }
}

#[test]
fn no_crate_depends_on_another_than_the_architecture_says() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap().strip_prefix("vivace-").unwrap();
        let Some(allowed) = allowed(name) else { continue };
        for dependency in package["dependencies"].as_array().unwrap() {
            let Some(other) = dependency["name"].as_str().unwrap().strip_prefix("vivace-") else { continue };
            // What only tests use is no edge of the architecture.
            if dependency["kind"].is_null() && !allowed.contains(other) {
                wrong.entry(name.to_owned()).or_default().push(other.to_owned());
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the architecture does not have: {wrong:?}");
}
