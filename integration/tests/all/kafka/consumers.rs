//! What Kafka's own tools see of our records and groups, and how our records compare with Tempo's.

use vivace_integration::kafka::Kafka;

use super::*;

#[test]
fn a_groups_offsets_are_kept_and_lag_tools_see_them() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        let log = connect(&config(kafka, "groups")).await;
        for number in 0..10 {
            log.append(P, record(number)).await.unwrap();
        }
        let offsets = log.offsets("the-group");
        assert_eq!(offsets.committed(P).await.unwrap(), None);
        offsets.commit(P, Offset(3)).await.unwrap();
        assert_eq!(offsets.committed(P).await.unwrap(), Some(Offset(3)));
        offsets.commit(P, Offset(7)).await.unwrap();
        // Another process sees it.
        let again = connect(&config(kafka, "groups")).await.offsets("the-group");
        assert_eq!(again.committed(P).await.unwrap(), Some(Offset(7)));
        assert_eq!(again.committed(Partition(1)).await.unwrap(), None);
    });
    let told = kafka
        .tool(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            &["--bootstrap-server", &kafka.address(), "--describe", "--group", "the-group"],
        )
        .unwrap();
    let row = told.lines().find(|line| line.contains("the-group")).unwrap();
    let fields: Vec<_> = row.split_whitespace().collect();
    // Group, topic, partition, committed offset, end, lag.
    assert_eq!(fields[..6], ["the-group", "groups", "0", "7", "10", "3"], "{told}");
}

#[test]
fn a_record_is_as_tempo_writes_it_but_for_the_header_with_the_sequence() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        let log = connect(&config(kafka, "as-tempo")).await;
        for record in tempo_records() {
            log.append(P, record).await.unwrap();
        }
        // Back through our reader: the same, and the header.
        let got = read(&log, 2).await;
        for (entry, expected) in got.iter().zip(tempo_records()) {
            assert_eq!((&entry.record.tenant, &entry.record.value), (&expected.tenant, &expected.value));
            assert_eq!(entry.record.timestamp_ms, expected.timestamp_ms);
            assert_eq!(entry.record.headers.len(), 1);
        }
    });
    // Through Kafka's own consumer: key, time and headers as they are on the wire.
    let told = kafka
        .tool(
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            &[
                "--bootstrap-server",
                &kafka.address(),
                "--topic",
                "as-tempo",
                "--partition",
                "0",
                "--offset",
                "earliest",
                "--max-messages",
                "2",
                "--timeout-ms",
                "60000",
                "--property",
                "print.key=true",
                "--property",
                "print.timestamp=true",
                "--property",
                "print.headers=true",
                "--property",
                "print.value=false",
                "--property",
                // The header's value is bytes of any kind, so what separates is longer than one of them.
                "key.separator=<next>",
                "--property",
                "headers.separator=<header>",
            ],
        )
        .unwrap();
    let lines: Vec<_> = told.split("CreateTime:").skip(1).collect();
    for (line, expected) in lines.iter().zip(tempo_records()) {
        let fields: Vec<_> = line.split("<next>").collect();
        assert_eq!(fields[0], expected.timestamp_ms.to_string());
        assert!(fields[1].starts_with("vivace-seq:") && !fields[1].contains("<header>"), "{line}");
        assert_eq!(fields[2].lines().next().map(str::as_bytes), Some(&expected.tenant[..]));
    }
    assert_eq!(lines.len(), 2, "{told}");
}

/// Two records that Tempo's distributor produced, one per partition: key, no headers, time, value.
fn tempo_records() -> [Record; 2] {
    let of = |timestamp_ms, value: &'static [u8]| Record {
        tenant: Bytes::from_static(b"single-tenant"),
        value: Bytes::from_static(value),
        headers: Vec::new(),
        timestamp_ms,
    };
    [
        of(1_795_179_067_653, include_bytes!("tempo-record-0.bin")),
        of(1_795_179_067_523, include_bytes!("tempo-record-1.bin")),
    ]
}
