//! Making, growing, describing and removing topics.

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    GroupId, MetadataRequest, MetadataResponse, create_partitions_request, create_topics_request,
    delete_topics_request, describe_configs_request, metadata_request,
};

use super::groups::{commit, committed};
use super::raw::{Raw, text};
use crate::batch::tests::batch;
use crate::{DevBroker, Options, code};

fn create(name: &'static str, partitions: i32) -> CreateTopicsRequest {
    let asked = create_topics_request::CreatableTopic::default()
        .with_name(text(name).into())
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    CreateTopicsRequest::default().with_topics(vec![asked]).with_timeout_ms(1000)
}

fn setting(mut request: CreateTopicsRequest, name: &'static str, value: &'static str) -> CreateTopicsRequest {
    let setting =
        create_topics_request::CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)));
    request.topics[0].configs.push(setting);
    request
}

fn delete(name: &'static str) -> DeleteTopicsRequest {
    DeleteTopicsRequest::default().with_topic_names(vec![text(name).into()])
}

pub(super) async fn describe(client: &mut Raw, name: &'static str) -> MetadataResponse {
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(text(name).into()));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true);
    client.ask(12, &request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_grown_and_removed() {
    let broker = DevBroker::start(Options { default_partitions: 3, ..Options::in_memory() }).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let made = client.ask(7, &create("a", -1)).await.topics[0].clone();
    assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (code::NONE, 3, 1));
    let described = describe(&mut client, "a").await.topics[0].clone();
    assert_eq!((described.topic_id, described.partitions.len()), (made.topic_id, 3));
    assert_eq!(describe(&mut client, "b").await.topics[0].error_code, code::UNKNOWN_TOPIC_OR_PARTITION);

    for (request, code) in [
        (create("a", 1), code::TOPIC_ALREADY_EXISTS),
        (create("a b", 1), code::INVALID_TOPIC),
        (create("b", 0), code::INVALID_PARTITIONS),
        (create("b", 1_000_000), code::INVALID_PARTITIONS),
        (setting(create("b", 1), "cleanup.policy", "compact"), code::INVALID_CONFIG),
        (
            {
                let mut three = create("b", 1);
                three.topics[0].replication_factor = 3;
                three
            },
            code::INVALID_REPLICATION_FACTOR,
        ),
        (create("b", 1).with_validate_only(true), code::NONE),
    ] {
        let answer = client.ask(7, &request).await.topics[0].clone();
        assert_eq!(answer.error_code, code, "{:?}", answer.error_message);
    }
    let asked = |count| {
        let asked = create_partitions_request::CreatePartitionsTopic::default();
        CreatePartitionsRequest::default().with_topics(vec![asked.with_name(text("a").into()).with_count(count)])
    };
    assert_eq!(client.ask(3, &asked(2)).await.results[0].error_code, code::INVALID_PARTITIONS);
    assert_eq!(client.ask(3, &asked(5)).await.results[0].error_code, code::NONE);
    assert_eq!(client.produce("a", 4, batch(&[1])).await.error_code, code::NONE);

    client.ask(8, &commit("a", 4, 1)).await;
    assert_eq!(client.ask(5, &delete("a")).await.responses[0].error_code, code::NONE);
    assert_eq!(client.ask(5, &delete("a")).await.responses[0].error_code, code::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(client.produce("a", 4, batch(&[1])).await.error_code, code::UNKNOWN_TOPIC_OR_PARTITION);

    // The same name again is another topic: empty, with another id, and nobody has read it.
    let again = client.ask(7, &create("a", 5)).await.topics[0].clone();
    assert_ne!(again.topic_id, made.topic_id);
    assert_eq!(client.fetch("a", 4, 0).await.high_watermark, 0);
    assert_eq!(committed(&mut client, "a", 4).await.0, -1);
    let by_id = delete_topics_request::DeleteTopicState::default().with_name(None).with_topic_id(again.topic_id);
    let deleted = client.ask(6, &DeleteTopicsRequest::default().with_topics(vec![by_id])).await;
    assert_eq!(deleted.responses[0].name.as_ref().unwrap().as_str(), "a");
    let groups = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text("g")), GroupId(text("h"))]);
    let codes: Vec<_> = client.ask(2, &groups).await.results.iter().map(|group| group.error_code).collect();
    assert_eq!(codes[1], code::GROUP_ID_NOT_FOUND);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_asked_for_is_made_only_where_that_is_permitted() {
    let options = Options { auto_create: true, default_partitions: 2, ..Options::in_memory() };
    let broker = DevBroker::start(options).await.unwrap();
    let mut client = Raw::to(&broker).await;
    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(text("a").into()));
    let unwilling = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    assert_eq!(client.ask(9, &unwilling).await.topics[0].error_code, code::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(describe(&mut client, "a").await.topics[0].partitions.len(), 2);
    assert_eq!(describe(&mut client, "a/b").await.topics[0].error_code, code::INVALID_TOPIC);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_described_as_they_have_effect() {
    let broker = DevBroker::start(Options::in_memory().topic("plain", 1)).await.unwrap();
    let mut client = Raw::to(&broker).await;
    client.ask(7, &setting(create("a", 1), "max.message.bytes", "80")).await;
    let asked = |kind: i8, name: &'static str| {
        describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    let resources = vec![asked(2, "a"), asked(2, "plain"), asked(4, "1"), asked(2, "none"), asked(9, "x")];
    let results = client.ask(4, &DescribeConfigsRequest::default().with_resources(resources)).await.results;
    let codes: Vec<_> = results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, 0, 0, code::UNKNOWN_TOPIC_OR_PARTITION, code::INVALID_REQUEST]);
    let value = |index: usize, name: &str| {
        let found = results[index].configs.iter().find(|setting| setting.name.as_str() == name);
        found.and_then(|setting| setting.value.as_ref()).map(ToString::to_string).unwrap()
    };
    assert_eq!((value(0, "max.message.bytes"), value(1, "max.message.bytes")), ("80".into(), "16777216".into()));
    assert_eq!(value(2, "message.max.bytes"), "16777216");
    assert_eq!(client.produce("a", 0, batch(&[1; 10])).await.error_code, code::MESSAGE_TOO_LARGE);
    broker.stop().await;
}
