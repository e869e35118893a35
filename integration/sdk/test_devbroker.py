"""`vivace devbroker` as kafka-python sees it: producing, consuming alone and in groups, offsets and lag, over a crash."""

import os
import re
import subprocess
import threading

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec

PARTITIONS = 3
RECORDS = 300


class Broker:
    """One running broker; `restart` kills it and starts it at the same port."""

    def __init__(self, directory):
        self.directory = directory
        self.start("127.0.0.1:0")

    def start(self, listen):
        self.process = subprocess.Popen(
            [
                os.environ["VIVACE_BIN"],
                "devbroker",
                f"-listen={listen}",
                f"-data={self.directory}",
                f"-topic=t:{PARTITIONS}",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        log = []
        for line in self.process.stderr:
            log.append(line)
            found = re.search(r'msg=listening.*\baddr="?([^" \n]+)', line)
            if found:
                self.address = found.group(1)
                return
        pytest.fail("the broker does not listen; log:\n" + "".join(log))

    def restart(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.start(self.address)

    def stop(self):
        self.process.terminate()
        _, log = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, log


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


def produce(broker, numbers, **settings):
    producer = KafkaProducer(bootstrap_servers=broker.address, acks="all", **settings)
    sent = [producer.send("t", key=str(n).encode(), value=f"value {n}".encode(), partition=n % PARTITIONS) for n in numbers]
    found = [(future.get(timeout=30).partition, future.get().offset) for future in sent]
    producer.close()
    return found


def read(consumer, count):
    """So many records, or more."""
    found = []
    while len(found) < count:
        for records in consumer.poll(timeout_ms=1000).values():
            found.extend(records)
    return found


def test_records_offsets_and_groups_over_a_crash(broker):
    placed = produce(broker, range(RECORDS), compression_type="gzip")
    assert sorted(placed) == [(p, o) for p in range(PARTITIONS) for o in range(RECORDS // PARTITIONS)]

    # Alone, from the beginning.
    partitions = [TopicPartition("t", number) for number in range(PARTITIONS)]
    alone = KafkaConsumer(bootstrap_servers=broker.address, auto_offset_reset="earliest", enable_auto_commit=False)
    alone.assign(partitions)
    alone.seek_to_beginning()
    records = read(alone, RECORDS)
    assert sorted(int(record.key) for record in records) == list(range(RECORDS))
    assert all(record.value == f"value {int(record.key)}".encode() for record in records)
    assert alone.end_offsets(partitions) == dict.fromkeys(partitions, RECORDS // PARTITIONS)
    time = min(record.timestamp for record in records)
    assert alone.offsets_for_times({partitions[0]: time + 3_600_000})[partitions[0]] is None
    alone.close()

    # In a group.
    settings = {
        "bootstrap_servers": broker.address,
        "group_id": "readers",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
    }
    member = KafkaConsumer("t", **settings)
    assert len(read(member, RECORDS)) == RECORDS
    member.commit()
    assert member.assignment() == set(partitions)
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    described = admin.describe_groups(["readers"])
    assert "Stable" in str(described), described
    member.close()
    produce(broker, range(RECORDS, RECORDS + 9))
    check_lag(admin, partitions, lag=3)
    admin.close()

    broker.restart()

    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    check_lag(admin, partitions, lag=3)
    assert "readers" in str(admin.list_groups())
    # Two members at once, each polled by a thread of its own; every record comes to one of them.
    found = []
    members = [KafkaConsumer("t", heartbeat_interval_ms=200, session_timeout_ms=6000, **settings) for _ in range(2)]

    def follow(member):
        while len(found) < 9 or not settled():
            for records in member.poll(timeout_ms=1000).values():
                found.extend(records)

    def settled():
        return sum(len(member.assignment()) for member in members) == PARTITIONS and all(m.assignment() for m in members)

    threads = [threading.Thread(target=follow, args=(member,), daemon=True) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted({int(record.key) for record in found}) == list(range(RECORDS, RECORDS + 9))
    assert settled(), [member.assignment() for member in members]
    for member in members:
        member.close()
    admin.close()


def check_lag(admin, partitions, lag):
    committed = admin.list_group_offsets("readers")["readers"]
    ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    assert {p: ends[p].offset - committed[p].offset for p in partitions} == dict.fromkeys(partitions, lag)


def test_topics_are_managed(broker):
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics({"made": {"num_partitions": 2, "replication_factor": 1, "configs": {"retention.ms": "1000"}}})
    assert "made" in admin.list_topics()
    admin.create_partitions({"made": 4})
    topic, = admin.describe_topics(["made"])
    assert len(topic["partitions"]) == 4, topic
    admin.delete_topics(["made"])
    assert "made" not in admin.list_topics()
    admin.close()
