//! What lies on disk: blocks, live and replaced, and folders as a whole. Everything may change while it is looked at.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

/// The blocks of all tenants.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Live ones by how often they were merged.
    pub(crate) levels: BTreeMap<u64, usize>,
    /// Those whose content lives on in another.
    pub(crate) replaced: usize,
    /// Traces in live ones; one that is in two counts twice.
    pub(crate) traces: u64,
    pub(crate) live_bytes: u64,
    pub(crate) replaced_bytes: u64,
}

impl Blocks {
    pub(crate) fn live(&self) -> usize {
        self.levels.values().sum()
    }
}

/// Counts the blocks below a bucket's folder; one without a meta is on its way and counts nowhere.
pub(crate) fn blocks(bucket: &Path) -> anyhow::Result<Blocks> {
    let mut found = Blocks::default();
    for tenant in folders(bucket)? {
        for block in folders(&tenant)? {
            let bytes = size(&block)?;
            if let Some(meta) = read(&block.join("meta.json"))? {
                let meta: serde_json::Value = serde_json::from_slice(&meta).context("parse a meta.json")?;
                *found.levels.entry(meta["compactionLevel"].as_u64().unwrap_or(0)).or_default() += 1;
                found.traces += meta["totalObjects"].as_u64().unwrap_or(0);
                found.live_bytes += bytes;
            } else if block.join("meta.compacted.json").is_file() {
                found.replaced += 1;
                found.replaced_bytes += bytes;
            }
        }
    }
    Ok(found)
}

/// Bytes of all files below a folder; what vanishes meanwhile counts as nothing.
pub(crate) fn size(dir: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    let Some(entries) = present(std::fs::read_dir(dir)).with_context(|| format!("list {}", dir.display()))? else {
        return Ok(0);
    };
    for entry in entries {
        let Some(entry) = present(entry)? else { continue };
        let Some(meta) = present(entry.metadata())? else { continue };
        total += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
    }
    Ok(total)
}

fn folders(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let Some(entries) = present(std::fs::read_dir(dir)).with_context(|| format!("list {}", dir.display()))? else {
        return Ok(Vec::new());
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    present(std::fs::read(path)).with_context(|| format!("read {}", path.display()))
}

fn present<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_and_replaced_blocks_are_told_apart_and_half_written_ones_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let put = |block: &str, name: &str, text: &str| {
            let folder = dir.path().join("tenant").join(block);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        };
        put("a", "meta.json", "{\"compactionLevel\":1,\"totalObjects\":3}");
        put("a", "data.parquet", "12345");
        put("b", "meta.json", "{}");
        put("c", "meta.compacted.json", "{}");
        put("c", "data.parquet", "123");
        put("d", "data.parquet", "1234567");
        let found = blocks(dir.path()).unwrap();
        assert_eq!(
            (found.levels.get(&0), found.levels.get(&1), found.live(), found.replaced),
            (Some(&1), Some(&1), 2, 1)
        );
        assert_eq!((found.live_bytes, found.replaced_bytes), (38 + 5 + 2, 2 + 3));
        assert_eq!(found.traces, 3);
        assert_eq!(blocks(&dir.path().join("nothing")).unwrap().live(), 0);
    }
}
