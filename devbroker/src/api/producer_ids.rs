//! InitProducerId: an id for an idempotent producer. There are no transactions.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::broker::Call;
use crate::code;

pub(crate) async fn handle(call: Call<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let failed = |code| {
        InitProducerIdResponse::default().with_error_code(code).with_producer_id((-1).into()).with_producer_epoch(-1)
    };
    if let Some(code) = call.broker.faults.error(call.key, None) {
        return failed(code);
    }
    if request.transactional_id.is_some() {
        return failed(code::INVALID_REQUEST);
    }
    // A producer that lost its place asks again with the id it has, and goes on under the next epoch.
    let known = *request.producer_id;
    if known >= 0 && (0..i16::MAX).contains(&request.producer_epoch) {
        let epoch = request.producer_epoch + 1;
        return InitProducerIdResponse::default().with_producer_id(known.into()).with_producer_epoch(epoch);
    }
    match call.broker.topics.producer_id().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(id.into()).with_producer_epoch(0),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "reserve producer ids");
            failed(code::KAFKA_STORAGE_ERROR)
        }
    }
}
