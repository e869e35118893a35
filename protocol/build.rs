//! Generates the Rust types of the `.proto` files, without `protoc`.

const FILES: &[&str] = &[
    "opentelemetry/proto/common/v1/common.proto",
    "opentelemetry/proto/resource/v1/resource.proto",
    "opentelemetry/proto/trace/v1/trace.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "tempopb/trace.proto",
    "tempopb/search.proto",
    "tempopb/tags.proto",
    "tempopb/metrics.proto",
    "tempopb/streaming.proto",
    "tempopb/push.proto",
    "tempopb/scheduler.proto",
    "vivace/v1/query.proto",
    "vivace/v1/control.proto",
];

/// Fields that can be large, so that decoding shares the received buffer instead of copying it. Ids stay `Vec<u8>`: for 8 or 16
/// bytes a reference-counted buffer costs more than the copy.
const SHARED_BYTES: &[&str] = &[
    ".tempopb.PushBytesRequest.traces",
    ".tempopb.TraceBytes.traces",
    ".vivace.v1.FindTraceBatch.parts",
    ".vivace.v1.BlockPublished.meta_json",
    ".vivace.v1.BlocksReplaced.added_meta_json",
    ".vivace.v1.BlockListReply.ids",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // Type names, because RPC paths are derived from them.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    config.bytes(SHARED_BYTES);
    // Ordered maps make encoded answers deterministic.
    config.btree_map(["."]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
