"""Reads the topic from its beginning to its present end and prints the P50 of every pair of nodes.

    pip install confluent-kafka protobuf
    protoc --proto_path api/proto --python_out . v1/messages.proto      # makes v1/messages_pb2.py
    python consume.py BOOTSTRAP_SERVERS [TOPIC] [--probes]

With --probes it prints every probe instead, of agents that run with --detail probes.

A service that goes on would subscribe in a consumer group, commit what it has stored, and on being given a partition go back
by 10 minutes, so that repeats across its own restart are recognised too.
"""

import argparse
import sys
from collections import Counter, defaultdict

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from google.protobuf.message import DecodeError

import columns
from v1 import messages_pb2


def batches(servers, topic):
    """All batches of the topic, each once."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "example",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    unfinished = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    if not unfinished:
        raise SystemExit(f"there is no topic {topic}")
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in unfinished])
    # A producer that missed an acknowledgement sends a batch twice. This set grows; a service forgets what is older than
    # 10 minutes of the log.
    seen = set()
    while unfinished:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            if message.error().code() != KafkaError._PARTITION_EOF:
                raise SystemExit(message.error())
            unfinished.discard(message.partition())
            continue
        try:
            batch = messages_pb2.Batch.FromString(message.value() or b"")
        except DecodeError:
            # Somebody else may write to the topic: what is no batch is no reason to stop.
            print(f"not a batch: partition {message.partition()} offset {message.offset()}", file=sys.stderr)
            continue
        identity = (batch.source, batch.start_id, batch.sequence)
        if identity not in seen:
            seen.add(identity)
            yield batch
    consumer.close()


class Rtt:
    """A histogram that can be merged and asked for a quantile, as docs/feed.md says."""

    def __init__(self):
        self.count = 0
        self.min_ns = 2**64
        self.max_ns = 0
        self.buckets = Counter()

    def add(self, histogram):
        bucket = 0
        for delta, n in zip(histogram.bucket_deltas, histogram.bucket_counts):
            bucket += delta
            self.buckets[bucket] += n
        self.count += histogram.count
        self.min_ns = min(self.min_ns, histogram.min_ns)
        self.max_ns = max(self.max_ns, histogram.max_ns)

    def p50_ns(self):
        rank = (self.count + 1) // 2  # the nearest rank: half of the count, rounded up
        if rank <= 1:
            return self.min_ns
        if rank == self.count:
            return self.max_ns
        below = 0
        for bucket, n in sorted(self.buckets.items()):
            below += n
            if below >= rank:
                break
        # The middle of the bucket, but not outside of what was measured.
        shift = max(bucket // 16 - 1, 0)
        first = bucket if bucket < 16 else (16 + bucket % 16) << shift
        middle = first + ((1 << shift) - 1) // 2
        return max(self.min_ns, min(self.max_ns, middle))


def print_p50(servers, topic):
    # Indices of peers mean something within one start of one agent only.
    names, measured = {}, defaultdict(Rtt)
    for batch in batches(servers, topic):
        start = (batch.source, batch.start_id)
        for peer in batch.peers:
            names[start, peer.index] = peer.name
        for window in batch.windows:
            if window.rtt.count:
                measured[start, window.peer].add(window.rtt)
    # The dictionary is repeated every 60 s: an entry may come after the windows that need it, so names are looked up now.
    pairs = defaultdict(Rtt)
    for (start, index), rtt in measured.items():
        pair = pairs[start[0], names.get((start, index), "?")]
        pair.count += rtt.count
        pair.min_ns = min(pair.min_ns, rtt.min_ns)
        pair.max_ns = max(pair.max_ns, rtt.max_ns)
        pair.buckets += rtt.buckets
    print("source,peer,received,p50_ns")
    for (source, peer), rtt in sorted(pairs.items()):
        print(f"{source},{peer},{rtt.count},{rtt.p50_ns()}")


def print_probes(servers, topic):
    print("source,peer_index,sent_unix_us,sequence,outcome,rtt_ns,source_port,hops_forward,hops_return,mode,suspect_reasons,dscp,packet_bytes")
    for batch in batches(servers, topic):
        for probe in columns.probes(batch.probes):
            mode = messages_pb2.Mode.Name(probe.method.mode)
            fields = [batch.source, *probe._replace(method=mode)]
            print(",".join("" if field is None else str(field) for field in fields))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers")
    parser.add_argument("topic", nargs="?", default="_distributedTrace")
    parser.add_argument("--probes", action="store_true")
    args = parser.parse_args()
    (print_probes if args.probes else print_p50)(args.servers, args.topic)
