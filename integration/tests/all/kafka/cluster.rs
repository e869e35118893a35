//! Brokers that die: kept data after a restart, another leader.

use vivace_integration::kafka::Kafka;

use super::*;

/// Appends one after the other until the answers were good `count` times in all; what is refused is not repeated, as a new client
/// request would come. Answers the acknowledged numbers.
async fn append_through(log: &KafkaLog, numbers: std::ops::Range<u64>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in numbers {
        match log.append(P, record(number)).await {
            Ok(_) => acknowledged.push(number),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    acknowledged
}

/// All of `acknowledged` was read, each once, in order. What was refused may be there as well.
fn assert_kept(acknowledged: &[u64], entries: &[Entry]) {
    let read = values(entries);
    assert!(read.is_sorted_by(|a, b| a < b), "each once and in order: {read:?}");
    let missing: Vec<_> = acknowledged.iter().filter(|number| read.binary_search(number).is_err()).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
}

#[test]
fn a_killed_broker_comes_back_with_everything_acknowledged_and_both_sides_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut kafka) = Kafka::start(dir.path(), 1).unwrap() else { return };
    block_on(async {
        let log = connect(&config(&kafka, "killed")).await;
        let mut reader = log.reader(P, Offset(0)).unwrap();
        let (mut dedup, mut entries) = (Dedup::default(), Vec::new());
        let mut acknowledged = append_through(&log, 0..50).await;
        let offsets = log.offsets("g");
        offsets.commit(P, Offset(20)).await.unwrap();
        let writing = tokio::spawn({
            let log = Arc::clone(&log);
            async move { append_through(&log, 50..400).await }
        });
        while entries.len() < 60 {
            let batch = reader.next(1 << 20).await.unwrap();
            entries.extend(batch.records.into_iter().filter(|entry| dedup.is_first(entry)));
        }
        kafka.kill(0);
        kafka.restart(0).unwrap();
        acknowledged.extend(writing.await.unwrap());
        acknowledged.extend(append_through(&log, 400..410).await);
        assert_eq!(acknowledged.last(), Some(&409), "writing goes on after the restart");
        while values(&entries).last() != Some(&409) {
            let batch = reader.next(1 << 20).await.unwrap();
            entries.extend(batch.records.into_iter().filter(|entry| dedup.is_first(entry)));
        }
        assert_kept(&acknowledged, &entries);
        assert_eq!(offsets.committed(P).await.unwrap(), Some(Offset(20)));
        offsets.commit(P, Offset(30)).await.unwrap();
    });
}

#[test]
fn another_broker_takes_over_when_the_leader_dies() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut kafka) = Kafka::start(dir.path(), 3).unwrap() else { return };
    block_on(async {
        let one = KafkaConfig { auto_create_topic_default_partitions: 1, ..config(&kafka, "led") };
        let log = connect(&one).await;
        let mut acknowledged = append_through(&log, 0..20).await;
        assert_eq!(acknowledged.len(), 20);
        let described =
            kafka.tool(TOPICS, &["--bootstrap-server", &kafka.address(), "--describe", "--topic", "led"]).unwrap();
        let leader = described.split("Leader: ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        let leader: usize = leader.parse::<usize>().unwrap() - 1;
        kafka.kill(leader);
        let after = append_through(&log, 20..60).await;
        assert_eq!(after.last(), Some(&59), "writing goes on with the new leader: {after:?}");
        acknowledged.extend(after);
        let last = log.append(P, record(60)).await.unwrap();
        acknowledged.push(60);
        let (mut dedup, mut entries) = (Dedup::default(), Vec::new());
        let mut reader = log.reader(P, Offset(0)).unwrap();
        while reader.position() <= last.offset {
            let batch = reader.next(1 << 20).await.unwrap();
            entries.extend(batch.records.into_iter().filter(|entry| dedup.is_first(entry)));
        }
        assert_kept(&acknowledged, &entries);
        // A start while one broker of the list is dead.
        let again = connect(&one).await;
        again.append(P, record(61)).await.unwrap();
        let offsets = again.offsets("g");
        offsets.commit(P, Offset(1)).await.unwrap();
        assert_eq!(offsets.committed(P).await.unwrap(), Some(Offset(1)));
    });
}
