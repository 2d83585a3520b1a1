//! What `--help` teaches beside the flags.

pub(super) const SOURCE: &str = "Where measurements come from";
pub(super) const KAFKA: &str = "Read from Kafka, by these brokers [env: KAFKA_BOOTSTRAP_SERVERS]";
pub(super) const FILTER: &str = "Which of them";

pub(super) const ROOT: &str = "\
A first look:
  dt-console matrix --dir /var/lib/distributed-trace/feed    what this host measured, live
  dt-console matrix --kafka broker:9092 --by rack            the whole mesh, rack by rack
  dt-console tail --kafka broker:9092 --loss                 every window that lost something

Exit status: 0 well, 1 it failed or something is damaged, 64 mistakes on the command line.";

pub(super) const TAIL: &str = "\
Examples:
  dt-console tail --dir feed                           windows as they are written
  dt-console tail --kafka broker:9092 --rtt 5ms        those with a P99 of 5 ms or more
  dt-console tail --kafka broker:9092 --probes --node n7 --json | jq .rtt_ns
  dt-console tail --kafka broker:9092 --group mine     goes on where the group stopped, and shares with its other members
  dt-console tail --dir feed --once | wc -l            all that is there

With --group a batch is confirmed when its lines were written. A clean stop loses and repeats nothing; after a kill the lines
of the last second may come again.";

pub(super) const MATRIX: &str = "\
Examples:
  dt-console matrix --kafka broker:9092
  dt-console matrix --kafka broker:9092 --by zone --span 10m
  dt-console matrix --kafka broker:9092 --once --json | jq '.cells[] | select(.lost > 0)'
  dt-console matrix --dir feed --once --span all

A cell has P50, P99 and loss from the node on the left to the node above. States: alive; new: named and not heard yet;
restarting and failed: as the membership says; silent: it ought to publish and does not. Times are in µs unless they say
otherwise. At most 65,536 pairs are kept, those of 256 nodes: of a larger mesh look at --by rack or --by zone, or at a part by
--node, --zone or --rack.";

pub(super) const EXPORT: &str = "\
Examples:
  dt-console export --kafka broker:9092 --from 1h --out windows.parquet
  dt-console export --dir feed --rows probes --out probes.csv
  dt-console export --kafka broker:9092 --from 2026-11-25T18:00:00Z --to 2026-11-25T19:00:00Z --out - --format csv

The columns are in docs/console.md. A window belongs to the range by its end, a probe by when it was sent. The log is read to its
end, because batches that waited on a disk are written late.";

pub(super) const INSPECT: &str = "\
Examples:
  dt-console inspect /var/lib/distributed-trace/feed/*.dtseg
  dt-console inspect --json FILE | jq .damage

Exit status: 0 all are whole, 1 something is damaged or cannot be read, 64 mistakes on the command line.";

pub const SAVE: &str = "\
Examples:
  dt-console save --kafka kafka:9092 --out /var/lib/dt-archive         until Ctrl-C
  dt-console save --kafka kafka:9092 --once --out incident-7           what the topic has now
  dt-console matrix --dir incident-7 --once --span all                 and without Kafka later

A segment may begin with batches whose names stand in an earlier one: keep the directory whole.";
