//! DescribeConfigs: the settings that have an effect here, of topics and of the broker.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use crate::api::text;
use crate::broker::{Broker, Call, NODE};
use crate::code;
use crate::topics::TopicError;

/// Kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Where a value comes from.
const OF_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;

type Setting = (&'static str, String, i8);

pub(crate) fn handle(call: Call<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|asked| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        match settings(call.broker, &asked) {
            Ok(settings) => {
                let wanted = |name: &str| match &asked.configuration_keys {
                    Some(keys) => keys.iter().any(|key| key.as_str() == name),
                    None => true,
                };
                let settings = settings.into_iter().filter(|(name, ..)| wanted(name)).map(|(name, value, source)| {
                    DescribeConfigsResourceResult::default()
                        .with_name(text(name))
                        .with_value(Some(text(value)))
                        .with_read_only(true)
                        .with_config_source(source)
                });
                result.with_configs(settings.collect())
            }
            Err(error) => result.with_error_code(error.code).with_error_message(Some(text(error.message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn settings(broker: &Broker, asked: &DescribeConfigsResource) -> Result<Vec<Setting>, TopicError> {
    let options = &broker.options;
    let default_ms = options.retention.map_or(-1, |keep| i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
    let default_bytes = options.retention_bytes.map_or(-1, |keep| i64::try_from(keep).unwrap_or(i64::MAX));
    match asked.resource_type {
        TOPIC => {
            let topic = broker.topics.get(&asked.resource_name).ok_or_else(|| {
                TopicError::new(
                    code::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("there is no topic `{}`", asked.resource_name),
                )
            })?;
            let set = &topic.settings;
            let source = |of_topic: bool| if of_topic { OF_TOPIC } else { DEFAULT };
            let longest = set.max_message_bytes.unwrap_or(options.max_message_bytes);
            Ok(vec![
                ("cleanup.policy", "delete".to_owned(), DEFAULT),
                ("compression.type", "producer".to_owned(), DEFAULT),
                ("max.message.bytes", longest.to_string(), source(set.max_message_bytes.is_some())),
                ("message.timestamp.type", "CreateTime".to_owned(), DEFAULT),
                ("min.insync.replicas", "1".to_owned(), DEFAULT),
                (
                    "retention.bytes",
                    set.retention_bytes.unwrap_or(default_bytes).to_string(),
                    source(set.retention_bytes.is_some()),
                ),
                (
                    "retention.ms",
                    set.retention_ms.unwrap_or(default_ms).to_string(),
                    source(set.retention_ms.is_some()),
                ),
            ])
        }
        BROKER if asked.resource_name.as_str() == NODE.to_string() => Ok(vec![
            ("auto.create.topics.enable", options.auto_create.to_string(), DEFAULT),
            ("log.retention.bytes", default_bytes.to_string(), DEFAULT),
            ("log.retention.ms", default_ms.to_string(), DEFAULT),
            ("message.max.bytes", options.max_message_bytes.to_string(), DEFAULT),
            ("num.partitions", options.default_partitions.to_string(), DEFAULT),
        ]),
        _ => {
            let message = format!("only topics (type 2) and broker {NODE} (type 4) have settings here");
            Err(TopicError::new(code::INVALID_REQUEST, message))
        }
    }
}
