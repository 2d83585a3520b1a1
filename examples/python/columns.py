"""The columns of a ProbeBlock to probes, as docs/feed.md ("Columns") lays them out. Needs nothing but the block."""

from typing import Any, NamedTuple, Optional

FRAME_ROWS = 128
MASK = 2**64 - 1  # all arithmetic wraps at 64 bits
TIMED = {1, 2}  # RECEIVED and LATE have a row in the column of round trip times


class Probe(NamedTuple):
    peer_index: int
    sent_unix_us: int
    sequence: int
    outcome: int
    rtt_ns: Optional[int]
    source_port: int
    hops_forward: Optional[int]
    hops_return: Optional[int]
    method: Any
    suspect_reasons: int
    dscp: Optional[int]
    packet_bytes: int


def probes(block):
    """All probes of a block, in its order."""
    count = block.count
    ports = column(block.ports, block.port_count)
    outcomes = column(block.outcome, count)
    rtts = iter(column(block.rtt, sum(outcome in TIMED for outcome in outcomes)))
    rows = zip(
        column(block.peer, count),
        column(block.sent, count),
        column(block.sequence, count),
        outcomes,
        column(block.port, count),
        column(block.hops_forward, count),
        column(block.hops_return, count),
        column(block.method, count),
        column(block.suspect_reasons, count),
        column(getattr(block, "class"), count),  # a keyword of Python
    )
    for peer, sent, sequence, outcome, port, forward, back, method, suspect, kind in rows:
        dscp, packet_bytes = probe_class(block, kind)
        yield Probe(
            peer,
            (block.base_unix_us + sent) & MASK,
            sequence,
            outcome,
            next(rtts) if outcome in TIMED else None,
            ports[port],
            forward - 1 if forward else None,  # 0: not known
            back - 1 if back else None,
            block.methods[method],
            suspect,
            dscp,
            packet_bytes,
        )


def probe_class(block, kind):
    """Code point and length of a kind of probes, as far as the agent says."""
    if not block.classes:
        return None, 0
    named = block.classes[kind]
    return named.dscp if named.HasField("dscp") else None, named.packet_bytes


def column(data, rows):
    """A column of so many numbers."""
    if not data:
        return [0] * rows
    values, at, before = [], 0, 0
    while len(values) < rows:
        frame_rows = min(FRAME_ROWS, rows - len(values))
        is_delta, width = data[at] >> 7, data[at] & 0x7F
        exceptions = data[at + 1]
        base, at = zigzag_varint(data, at + 2)
        packed_bytes = (frame_rows * width + 7) // 8
        packed = int.from_bytes(data[at : at + packed_bytes], "little")
        at += packed_bytes
        frame = [base + (packed >> row * width & (1 << width) - 1) for row in range(frame_rows)]
        for _ in range(exceptions):
            row = data[at]
            distance, at = zigzag_varint(data, at + 1)
            frame[row] = base + distance
        for number in frame:
            # Either the value, or its distance from the row before.
            before = (before + number if is_delta else number) & MASK
            values.append(before)
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes behind the last frame of a column")
    return values


def zigzag_varint(data, at):
    """A number as protobuf's sint64, and where the next byte is."""
    number, shift = 0, 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return (number >> 1) ^ -(number & 1), at
