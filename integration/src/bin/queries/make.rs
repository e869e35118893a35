//! Writes spans as blocks, each a slice of time.

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use uuid::Uuid;
use vivace_protocol::slicer::{Limits, slice};
use vivace_storage::{Backend, BlockSpec, BlockWriter, DedicatedColumns};

use crate::options::{Options, SPANS};
use crate::send;

pub(crate) fn blocks(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let backend = Backend::local(&options.into)?;
    let requests = options.requests();
    let wanted = requests - options.first.min(requests);
    ensure!(options.blocks <= wanted, "{} blocks of {wanted} requests of {SPANS} spans", options.blocks);
    let mut templates = send::templates(options);
    let step = options.minutes * 60_000_000_000 / wanted;
    let begin = (options.end - options.minutes * 60) * 1_000_000_000;
    let mut bytes = 0;
    for block in 0..options.blocks {
        let slice_of = |n: u64| options.first + wanted * n / options.blocks;
        let mut traces: Vec<([u8; 16], Bytes)> = Vec::new();
        for sequence in slice_of(block)..slice_of(block + 1) {
            let template = templates.get_mut(send::slot(sequence)).context("there is a template for every request")?;
            let at = begin + (sequence - options.first) * step;
            let body = Bytes::copy_from_slice(template.fill(options.seed, sequence, at));
            let sliced = slice(&body, &Limits { max_attribute_bytes: 2048 })?;
            for trace in sliced.traces() {
                let mut encoded = BytesMut::new();
                sliced.encode_trace(trace, &mut encoded);
                traces.push((trace.id().0, encoded.freeze()));
            }
        }
        traces.sort_unstable_by_key(|(id, _)| *id);
        let id = Uuid::from_u64_pair(0x7175_6572_6965_4000 | options.blocks, 0x8000_0000_0000_0000 | block);
        let mut writer = BlockWriter::new(BlockSpec::new(&options.tenant, id, DedicatedColumns::defaults()))?;
        for (id, trace) in traces {
            let added = writer.add_trace(id, &[trace])?;
            ensure!(added.leftover.is_empty(), "a trace of the load does not fit a row");
        }
        let finished = writer.finish()?;
        bytes += finished.meta.size;
        runtime.block_on(backend.put_block(&finished))?;
    }
    println!(
        "{} spans in {} blocks of {bytes} bytes in {}, from {} to {}: ask with --end {} --window {}",
        wanted * SPANS as u64,
        options.blocks,
        options.into.display(),
        options.end - options.minutes * 60,
        options.end,
        options.end + 60,
        options.minutes * 60 + 120,
    );
    Ok(())
}
