//! The tables of the requests that this broker takes, from the protocol's own definitions, up to the version it advertises.
//!
//! A tagged field is skipped by its length here, while the library reads those it knows by their type. That makes no difference,
//! because the only ones known in these versions stand at the very end of a Fetch and hold no array. Versions above
//! 16 of Fetch have others, so they need a table of tagged fields first.

use vivace_log::kafka::shape::Kind::{Blob, Structs, Text, Values};
use vivace_log::kafka::shape::{I8, I16, I32, I64, NEVER, UUID, all, between, since, until};

use super::Shape;

pub(crate) const PRODUCE: Shape = Shape::new(
    9,
    &[
        all(Text),
        all(I16),
        all(I32),
        all(Structs(&[until(12, Text), since(13, UUID), all(Structs(&[all(I32), all(Blob)]))])),
    ],
);
pub(crate) const FETCH: Shape = Shape::new(
    12,
    &[
        until(14, I32),
        all(I32),
        all(I32),
        all(I32),
        all(I8),
        since(7, I32),
        since(7, I32),
        all(Structs(&[
            until(12, Text),
            since(13, UUID),
            all(Structs(&[all(I32), since(9, I32), all(I64), since(12, I32), since(5, I64), all(I32)])),
        ])),
        since(7, Structs(&[until(12, Text), since(13, UUID), all(Values(&I32))])),
        since(11, Text),
    ],
);
pub(crate) const LIST_OFFSETS: Shape = Shape::new(
    6,
    &[
        all(I32),
        since(2, I8),
        all(Structs(&[all(Text), all(Structs(&[all(I32), since(4, I32), all(I64)]))])),
        since(10, I32),
    ],
);
pub(crate) const METADATA: Shape =
    Shape::new(9, &[all(Structs(&[since(10, UUID), all(Text)])), since(4, I8), between(8..=10, I8), since(8, I8)]);
pub(crate) const OFFSET_COMMIT: Shape = Shape::new(
    8,
    &[
        all(Text),
        all(I32),
        all(Text),
        since(7, Text),
        until(4, I64),
        all(Structs(&[all(Text), all(Structs(&[all(I32), all(I64), since(6, I32), all(Text)]))])),
    ],
);
pub(crate) const OFFSET_FETCH: Shape = Shape::new(
    6,
    &[
        until(7, Text),
        until(7, Structs(&[all(Text), all(Values(&I32))])),
        since(8, Structs(&[all(Text), since(9, Text), since(9, I32), all(Structs(&[all(Text), all(Values(&I32))]))])),
        since(7, I8),
    ],
);
pub(crate) const FIND_COORDINATOR: Shape = Shape::new(3, &[until(3, Text), since(1, I8), since(4, Values(&Text))]);
pub(crate) const JOIN_GROUP: Shape = Shape::new(
    6,
    &[
        all(Text),
        all(I32),
        since(1, I32),
        all(Text),
        since(5, Text),
        all(Text),
        all(Structs(&[all(Text), all(Blob)])),
        since(8, Text),
    ],
);
pub(crate) const HEARTBEAT: Shape = Shape::new(4, &[all(Text), all(I32), all(Text), since(3, Text)]);
pub(crate) const LEAVE_GROUP: Shape =
    Shape::new(4, &[all(Text), until(2, Text), since(3, Structs(&[all(Text), all(Text), since(5, Text)]))]);
pub(crate) const SYNC_GROUP: Shape = Shape::new(
    4,
    &[
        all(Text),
        all(I32),
        all(Text),
        since(3, Text),
        since(5, Text),
        since(5, Text),
        all(Structs(&[all(Text), all(Blob)])),
    ],
);
pub(crate) const DESCRIBE_GROUPS: Shape = Shape::new(5, &[all(Values(&Text)), since(3, I8)]);
pub(crate) const LIST_GROUPS: Shape = Shape::new(3, &[since(4, Values(&Text)), since(5, Values(&Text))]);
pub(crate) const SASL_HANDSHAKE: Shape = Shape::new(NEVER, &[all(Text)]);
pub(crate) const SASL_AUTHENTICATE: Shape = Shape::new(2, &[all(Blob)]);
pub(crate) const API_VERSIONS: Shape = Shape::new(3, &[since(3, Text), since(3, Text)]);
pub(crate) const CREATE_TOPICS: Shape = Shape::new(
    5,
    &[
        all(Structs(&[
            all(Text),
            all(I32),
            all(I16),
            all(Structs(&[all(I32), all(Values(&I32))])),
            all(Structs(&[all(Text), all(Text)])),
        ])),
        all(I32),
        all(I8),
    ],
);
pub(crate) const DELETE_TOPICS: Shape =
    Shape::new(4, &[since(6, Structs(&[all(Text), all(UUID)])), until(5, Values(&Text)), all(I32)]);
pub(crate) const DELETE_RECORDS: Shape =
    Shape::new(2, &[all(Structs(&[all(Text), all(Structs(&[all(I32), all(I64)]))])), all(I32)]);
pub(crate) const INIT_PRODUCER_ID: Shape = Shape::new(2, &[all(Text), all(I32), since(3, I64), since(3, I16)]);
pub(crate) const CREATE_PARTITIONS: Shape =
    Shape::new(2, &[all(Structs(&[all(Text), all(I32), all(Structs(&[all(Values(&I32))]))])), all(I32), all(I8)]);
pub(crate) const DESCRIBE_CONFIGS: Shape =
    Shape::new(4, &[all(Structs(&[all(I8), all(Text), all(Values(&Text))])), all(I8), since(3, I8)]);
pub(crate) const DELETE_GROUPS: Shape = Shape::new(2, &[all(Values(&Text))]);
