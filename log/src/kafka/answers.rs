//! The tables of the answers that [`Wire`](super::wire::Wire) reads, from the protocol's own definitions, up to the versions that are
//! asked for.

use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, FindCoordinatorRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::Request;

use super::shape::Kind::{Blob, Structs, Text, Values};
use super::shape::{I8, I16, I32, I64, NEVER, Shape, UUID, all, between, since};

/// A request whose answer is checked before it is decoded.
pub(crate) trait Answered: Request {
    /// What the answer looks like.
    const ANSWER: Shape;
}

/// Only version 0 is asked for.
impl Answered for ApiVersionsRequest {
    const ANSWER: Shape = Shape::new(3, &[all(I16), all(Structs(&[all(I16), all(I16), all(I16)]))]);
}

impl Answered for SaslHandshakeRequest {
    const ANSWER: Shape = Shape::new(NEVER, &[all(I16), all(Values(&Text))]);
}

impl Answered for SaslAuthenticateRequest {
    const ANSWER: Shape = Shape::new(2, &[all(I16), all(Text), all(Blob), since(1, I64)]);
}

impl Answered for MetadataRequest {
    const ANSWER: Shape = Shape::new(
        9,
        &[
            since(3, I32),
            all(Structs(&[all(I32), all(Text), all(I32), since(1, Text)])),
            since(2, Text),
            since(1, I32),
            all(Structs(&[
                all(I16),
                all(Text),
                since(10, UUID),
                since(1, I8),
                all(Structs(&[
                    all(I16),
                    all(I32),
                    all(I32),
                    since(7, I32),
                    all(Values(&I32)),
                    all(Values(&I32)),
                    since(5, Values(&I32)),
                ])),
                since(8, I32),
            ])),
            between(8..=10, I32),
        ],
    );
}

impl Answered for CreateTopicsRequest {
    const ANSWER: Shape = Shape::new(
        5,
        &[
            since(2, I32),
            all(Structs(&[
                all(Text),
                since(7, UUID),
                all(I16),
                since(1, Text),
                since(5, I32),
                since(5, I16),
                since(5, Structs(&[all(Text), all(Text), all(I8), all(I8), all(I8)])),
            ])),
        ],
    );
}

impl Answered for ProduceRequest {
    const ANSWER: Shape = Shape::new(
        9,
        &[
            all(Structs(&[
                all(Text),
                all(Structs(&[
                    all(I32),
                    all(I16),
                    all(I64),
                    since(2, I64),
                    since(5, I64),
                    since(8, Structs(&[all(I32), all(Text)])),
                    since(8, Text),
                ])),
            ])),
            since(1, I32),
        ],
    );
}

impl Answered for FindCoordinatorRequest {
    const ANSWER: Shape = Shape::new(3, &[since(1, I32), all(I16), since(1, Text), all(I32), all(Text), all(I32)]);
}

impl Answered for OffsetFetchRequest {
    const ANSWER: Shape = Shape::new(
        6,
        &[
            since(3, I32),
            all(Structs(&[all(Text), all(Structs(&[all(I32), all(I64), since(5, I32), all(Text), all(I16)]))])),
            since(2, I16),
        ],
    );
}

impl Answered for OffsetCommitRequest {
    const ANSWER: Shape =
        Shape::new(8, &[since(3, I32), all(Structs(&[all(Text), all(Structs(&[all(I32), all(I16)]))]))]);
}

#[cfg(test)]
mod tests;
