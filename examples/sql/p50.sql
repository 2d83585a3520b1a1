-- The P50 of every pair of nodes, from windows that `dt-console export` has written to Parquet. For DuckDB:
--
--     dt-console export --kafka BOOTSTRAP_SERVERS --out windows.parquet
--     duckdb -csv < p50.sql
--
-- Histograms merge by adding the counts of equal buckets, and the quantile is read off the sum: the value of rank
-- ceil(0.5 * count). The first and the last rank are exact, any other is the middle of its bucket, within least and greatest.
WITH windows AS (
    -- Each window once, also when exports overlap: a batch is known by source, start_id and batch_sequence.
    SELECT DISTINCT source, start_id, batch_sequence, peer_index, start_unix_ns, coalesce(peer, '?') AS peer,
           rtt_count, rtt_min_ns, rtt_max_ns, rtt_bucket_first_ns, rtt_bucket_last_ns, rtt_bucket_count
    FROM 'windows*.parquet'
    WHERE rtt_count > 0
), pairs AS (
    SELECT source, peer, sum(rtt_count) AS received, ceil(sum(rtt_count) / 2) AS rank,
           min(rtt_min_ns) AS min_ns, max(rtt_max_ns) AS max_ns
    FROM windows GROUP BY ALL
), buckets AS (
    SELECT source, peer, unnest(rtt_bucket_first_ns) AS first_ns, unnest(rtt_bucket_last_ns) AS last_ns,
           unnest(rtt_bucket_count) AS n
    FROM windows
), merged AS (
    SELECT source, peer, first_ns + (last_ns - first_ns) // 2 AS middle_ns,
           sum(sum(n)) OVER (PARTITION BY source, peer ORDER BY first_ns) AS up_to
    FROM buckets GROUP BY source, peer, first_ns, last_ns
)
SELECT source, peer, any_value(received)::BIGINT AS received,
       CASE any_value(rank)
           WHEN 1 THEN any_value(min_ns)
           WHEN any_value(received) THEN any_value(max_ns)
           ELSE greatest(any_value(min_ns),
                         least(any_value(max_ns), min(middle_ns) FILTER (up_to >= rank)))
       END::BIGINT AS p50_ns
FROM merged JOIN pairs USING (source, peer)
GROUP BY source, peer
ORDER BY source, peer;
