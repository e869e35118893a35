//! JSON at the edges: OTLP/JSON in, protobuf's JSON mapping out.
//!
//! The two are different dialects. OTLP/JSON writes ids in hex and enums as numbers; Tempo's answers are plain protobuf JSON, so bytes,
//! ids included, are base64 and enums are names. Readers of answers refuse unknown fields, so nothing is ever added here.
//!
//! Answers are written in one go into a byte vector: [`to_vec`] for the messages that implement [`ToJson`], and
//! [`write_resource_spans`] for who writes a large trace piece by piece.

mod answers;
mod ingest;
mod models;
mod reader;
mod trace;
mod writer;

pub use answers::ToJson;
pub use ingest::otlp_to_protobuf;
pub use models::{any_value_for_models, tag_values_for_models, trace_for_models};
pub use reader::JsonError;
pub use trace::{Batches, write_resource_spans};

/// The JSON form of an answer.
pub fn to_vec(answer: &impl ToJson) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    answer.write_json(&mut out);
    out
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
