"""Judges what the kernel programs did with recorded frames, from the RFCs and the documentation alone.

Standard library only, and no code in common with anything it judges. The record's form is in tests/prog_run/record.rs.
Exits with 1 and a description at the first frame that was treated wrongly.
"""

import json
import struct
import sys

UDP, TAGS = 17, (0x8100, 0x88A8)
XDP_LINEAR = 4096 - 256 - 320
PASS, DROP, SEND = 0, 1, 2
MAPPED = bytes(10) + b"\xff\xff"


class Wrong(Exception):
    """What the program did is not what it should have done."""


def ones(data):
    """The one's complement sum modulo 0xffff: big-endian words are digits of base 2^16, and 2^16 is 1 modulo 0xffff."""
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


class Datagram:
    """A UDP datagram as its headers describe it."""

    __slots__ = ("ip", "udp", "v6", "more", "ttl", "room", "length", "source", "target", "sport", "dport")

    @property
    def payload(self):
        return self.udp + 8

    @property
    def end(self):
        return self.udp + self.length

    def pseudo(self, frame):
        addresses = frame[self.ip + 8 : self.ip + 40] if self.v6 else frame[self.ip + 12 : self.ip + 20]
        return ones(addresses + struct.pack(">HH", UDP, self.length))

    def residue(self, frame):
        return (ones(frame[self.udp : self.end]) + self.pseudo(frame)) % 0xFFFF


def dissect(frame):
    """The datagram in a frame, or None."""
    at = 12
    for _ in range(2):
        if len(frame) >= at + 6 and int.from_bytes(frame[at : at + 2], "big") in TAGS:
            at += 4
    if len(frame) < at + 2:
        return None
    kind, ip = int.from_bytes(frame[at : at + 2], "big"), at + 2
    datagram = Datagram()
    datagram.ip, datagram.v6 = ip, kind == 0x86DD
    if kind == 0x0800 and len(frame) >= ip + 28:
        total, _, fragment, ttl, protocol = struct.unpack_from(">HHHBB", frame, ip + 2)
        if frame[ip] != 0x45 or protocol != UDP or fragment & 0x1FFF:
            return None
        datagram.udp, datagram.more, datagram.ttl, datagram.room = ip + 20, bool(fragment & 0x2000), ttl, total - 20
        datagram.source, datagram.target = MAPPED + frame[ip + 12 : ip + 16], MAPPED + frame[ip + 16 : ip + 20]
    elif kind == 0x86DD and len(frame) >= ip + 48:
        room, following, ttl = struct.unpack_from(">HBB", frame, ip + 4)
        if frame[ip] >> 4 != 6 or following != UDP:
            return None
        datagram.udp, datagram.more, datagram.ttl, datagram.room = ip + 40, False, ttl, room
        datagram.source, datagram.target = frame[ip + 8 : ip + 24], frame[ip + 24 : ip + 40]
    else:
        return None
    datagram.sport, datagram.dport, datagram.length = struct.unpack_from(">HHH", frame, datagram.udp)
    return datagram


class Session:
    """What a reflector remembers of one sender."""

    def __init__(self):
        self.epoch = None
        self.corrupt = 0
        self.sender = None
        self.begin(None)
        self.corrupt = 0

    def begin(self, sender):
        self.sender, self.received, self.duplicates, self.corrupt, self.windows = sender, 0, 0, 0, {}

    def take(self, sender, seq):
        """Counts a request; the epoch that it must not have any more, if the session begins anew."""
        former = None
        if self.sender is None or self.sender != sender:
            former, self.epoch = self.epoch, None
            self.begin(sender)
        duplicate = self.see(seq)
        self.received += 1
        self.duplicates += duplicate
        return former, duplicate

    def see(self, seq):
        window, slot = seq >> 5, (seq >> 5) % 4
        held = self.windows.get(slot)
        if held is None or held[0] != window:
            if held is not None and (held[0] - window) % (1 << 27) < (1 << 26) - 1:
                return False
            held = self.windows[slot] = (window, set())
        seen = seq in held[1]
        held[1].add(seq)
        return seen

    def bitmap(self, seq):
        bits = 0
        for back in range(64):
            one = (seq - back) & 0xFFFFFFFF
            held = self.windows.get((one >> 5) % 4)
            if held is not None and held[0] == one >> 5 and one in held[1]:
                bits |= 1 << (63 - back)
        return bits


class Judge:
    """One world, and what was remembered in it."""

    def __init__(self, world):
        self.world = world
        self.locals = {bytes.fromhex(local) for local in world["locals"]}
        self.permits = [(int(one["address"], 16), one["bits"], one) for one in world["permits"]]
        self.targets = {one["ssid"]: (bytes.fromhex(one["address"]), one["port"]) for one in world["targets"]}
        self.every = {one["ssid"]: one["pass_every"] for one in world["targets"]}
        self.owners = dict(world["port_owners"])
        self.sessions = {}

    def permit(self, source):
        number = int.from_bytes(source, "big")
        best = None
        for address, bits, permit in self.permits:
            if (number ^ address) >> (128 - bits) == 0 and (best is None or bits > best["bits"]):
                best = permit
        return best

    def judge(self, tc, verdict, frame, out, before, after):
        datagram = dissect(frame)
        if datagram is None:
            return self.untouched(PASS, verdict, frame, out)
        if datagram.dport == self.world["port"]:
            due, request = self.request(tc, frame, datagram)
            if due == SEND:
                if verdict != SEND:
                    raise Wrong(f"verdict {verdict}, but an answer was due")
                return self.answer(tc, frame, datagram, out, before, after, *request)
            return self.untouched(due, verdict, frame, out)
        first, last = self.world["source_ports"]
        if first <= datagram.dport <= last:
            return self.untouched(self.reply(tc, frame, datagram), verdict, frame, out)
        return self.untouched(PASS, verdict, frame, out)

    @staticmethod
    def untouched(due, verdict, frame, out):
        if due != verdict:
            raise Wrong(f"verdict {verdict}, but {due} was due")
        if frame != out:
            raise Wrong("the frame was changed")

    def fits(self, tc, frame, datagram):
        return datagram.end <= len(frame) and (tc or datagram.end <= XDP_LINEAR) and datagram.length <= 9216

    def request(self, tc, frame, datagram):
        if datagram.target not in self.locals:
            return PASS, None
        if not datagram.more:
            agree = datagram.length == datagram.room and datagram.length >= 52
            if not agree or not self.fits(tc, frame, datagram):
                return PASS, None
        permit = self.permit(datagram.source)
        if self.refused(frame, datagram, permit):
            return DROP, None
        payload = frame[datagram.payload : datagram.end]
        ours = has_ours(payload)
        headers, rest = tlvs(payload, 96 if ours else 44)
        if len(headers) + (rest > 0 and len(headers) >= 8) > 8:
            return PASS, None
        member = None if self.world["allow_all"] or permit is None else permit["member"]
        key = self.key(datagram, payload, ours, member)
        if not self.sound(frame, datagram):
            session = self.sessions.get(key)
            if session is None and isinstance(key, int):
                session = self.sessions[key] = Session()
            if session is not None:
                session.corrupt += 1
            return DROP, None
        return SEND, (payload, ours, headers, member, key)

    def refused(self, frame, datagram, permit):
        if frame[0] & 1 or frame[6] & 1 or datagram.source == datagram.target:
            return True
        source = datagram.source
        if datagram.v6:
            if source[0] == 0xFF or source[:12] == MAPPED or int.from_bytes(source, "big") < 2:
                return True
        elif source[12] == 127 or 224 <= source[12] <= 239 or source[12:] in (bytes(4), b"\xff" * 4):
            return True
        if not self.world["allow_all"] and permit is None:
            return True
        if datagram.sport < 1024 or datagram.sport == self.world["port"]:
            trusted = self.world["allow_all"] or permit["low_ports"]
            if not trusted or datagram.ttl < 224 or is_reply(frame[datagram.payload :]):
                return True
        return datagram.more

    @staticmethod
    def key(datagram, payload, ours, member):
        ssid = payload[14:16]
        if not ours:
            return (datagram.source, datagram.target, datagram.sport, ssid)
        if member is not None and payload[51] & 8:
            return member
        return (datagram.source, ssid)

    def sound(self, frame, datagram):
        checksum = int.from_bytes(frame[datagram.udp + 6 : datagram.udp + 8], "big")
        payload = frame[datagram.payload : datagram.end]
        promised = has_ours(payload) and payload[51] & 0x40
        if datagram.dport != self.world["port"]:
            promised = promised and payload[51] & 0x30
        if checksum == 0:
            return not datagram.v6 and not promised
        if datagram.residue(frame) == 0:
            return True
        partial = self.world["partial_checksums"] and not promised
        return partial and checksum == (datagram.pseudo(frame) or 0xFFFF)

    def answer(self, tc, frame, datagram, out, before, after, payload, ours, headers, member, key):
        if len(out) != len(frame):
            raise Wrong(f"{len(frame)} bytes became {len(out)}")
        due = bytearray(frame)
        due[0:6], due[6:12] = frame[6:12], frame[0:6]
        ip, udp, at = datagram.ip, datagram.udp, datagram.payload
        due[udp : udp + 4] = frame[udp + 2 : udp + 4] + frame[udp : udp + 2]
        if datagram.v6:
            due[ip + 8 : ip + 40] = frame[ip + 24 : ip + 40] + frame[ip + 8 : ip + 24]
            due[ip + 7] = 255
            if frame[ip + 1] & 0x30 == 0x30:
                due[ip + 1] ^= 0x10
        else:
            due[ip + 12 : ip + 20] = frame[ip + 16 : ip + 20] + frame[ip + 12 : ip + 16]
            due[ip + 8] = 255
            if frame[ip + 1] & 3 == 3:
                due[ip + 1] ^= 1
        self.base(due, at, payload, out, datagram.ttl, before, after)
        for offset, length, fits in headers:
            known = payload[offset + 1] == 1
            due[at + offset] = (0 if known else 0x80) if fits else payload[offset] & 0x80 | 0x40
        summed = bool(payload[51] & 0x40) if tc and ours else frame[udp + 6 : udp + 8] != bytes(2)
        self.stateful(tc, due, at, payload, ours, member, key, out, summed)
        self.sums(tc, frame, due, out, datagram)
        if due != out:
            where = [index for index in range(len(out)) if due[index] != out[index]]
            raise Wrong(f"bytes {where} differ; due was {due.hex()}")

    def base(self, due, at, payload, out, ttl, before, after):
        sent, received = out[at + 4 : at + 12], out[at + 16 : at + 24]
        offset = self.world["clock_offset_ns"]
        first, last = (((now + offset) % 2**64 << 32) // 10**9 % 2**64 for now in (before, after))
        span = (last - first + 4) % 2**64
        since = [(int.from_bytes(one, "big") - first + 2) % 2**64 for one in (received, sent)]
        if not since[0] <= since[1] <= span:
            raise Wrong("T2 and T3 are not between the readings of the clock")
        estimate = struct.pack(">H", self.world["error_estimate"])
        due[at + 4 : at + 44] = (
            sent + estimate + payload[14:16] + received + payload[0:14] + bytes(2) + bytes([ttl]) + bytes(3)
        )

    def stateful(self, tc, due, at, payload, ours, member, key, out, summed):
        flags = (payload[51] & 8 if ours else 0) | (0x20 if tc else 0x10) | (member is not None) | summed << 6
        if not self.world["stateless"]:
            session = self.sessions.setdefault(key, Session())
            seq = int.from_bytes(payload[0:4], "big")
            former, duplicate = session.take(payload[52:56] if ours else b"", seq)
            due[at : at + 4] = struct.pack(">I", session.received - 1)
            flags |= 2 | (4 if duplicate else 0)
            if ours:
                epoch = out[at + 56 : at + 60]
                if session.epoch is None:
                    session.epoch = epoch
                if epoch in (bytes(4), former) or epoch != session.epoch:
                    raise Wrong(f"epoch {epoch.hex()} after {session.epoch.hex()}, formerly {former}")
                counts = (session.received, session.duplicates, session.corrupt, 0, session.bitmap(seq))
                due[at + 56 : at + 84] = epoch + struct.pack(">IIIIQ", *counts)
        if ours:
            due[at + 44], due[at + 51] = 0, flags
            due[at + 86 : at + 88] = struct.pack(">H", self.world["clock_generation"])

    @staticmethod
    def sums(tc, frame, due, out, datagram):
        ip, udp = datagram.ip, datagram.udp
        if not datagram.v6:
            due[ip + 10 : ip + 12] = out[ip + 10 : ip + 12]
            if ones(frame[ip : ip + 20]) != ones(out[ip : ip + 20]):
                raise Wrong("the IP checksum is wrong")
        due[udp + 6 : udp + 8] = out[udp + 6 : udp + 8]
        none = bytes(2)
        if frame[udp + 6 : udp + 8] == none:
            if out[udp + 6 : udp + 8] != none:
                raise Wrong("a UDP checksum where there was none")
        elif out[udp + 6 : udp + 8] == none or datagram.residue(out) != (datagram.residue(frame) if tc else 0):
            raise Wrong("the UDP checksum is wrong")

    def reply(self, tc, frame, datagram):
        agree = datagram.length == datagram.room and datagram.length >= 52 and not datagram.more
        if not agree or not self.fits(tc, frame, datagram):
            return PASS
        payload = frame[datagram.payload : datagram.end]
        ssid = int.from_bytes(payload[14:16], "big") or self.owners.get(datagram.dport)
        if ssid is None or self.targets.get(ssid) != (datagram.source, datagram.sport):
            return PASS
        if not self.sound(frame, datagram):
            return DROP
        every = self.every[ssid]
        return PASS if every and int.from_bytes(payload[24:28], "big") % every == 0 else DROP


def has_ours(payload):
    return len(payload) >= 96 and payload[45:50] == b"\xfc\x00\x30dt" and payload[50] > 0


def is_reply(payload):
    if len(payload) < 44:
        return False
    t3, t2 = int.from_bytes(payload[4:12], "big"), int.from_bytes(payload[16:24], "big")
    return t2 != 0 and (t3 - t2) % 2**64 < 16 << 32


def tlvs(payload, at):
    """Offset, length and whether it fits of each TLV, and how many bytes are left over."""
    found = []
    while at + 4 <= len(payload):
        length = int.from_bytes(payload[at + 2 : at + 4], "big")
        found.append((at, length, at + 4 + length <= len(payload)))
        at += 4 + length
    return found, len(payload) - at


def entries(data):
    at = 0
    while at < len(data):
        if data[at] == ord("S"):
            (length,) = struct.unpack_from("<I", data, at + 1)
            yield json.loads(data[at + 5 : at + 5 + length]), None
            at += 5 + length
        else:
            hook, verdict, before, after, came, went = struct.unpack_from("<BBQQII", data, at + 1)
            at += 27
            frame, out = data[at : at + came], data[at + came : at + came + went]
            yield None, (hook == 1, verdict, frame, out, before, after)
            at += came + went


def main(path):
    with open(path, "rb") as file:
        data = file.read()
    judge, judged, answered = None, 0, 0
    for world, packet in entries(data):
        if world is not None:
            judge = Judge(world)
            continue
        try:
            judge.judge(*packet)
        except Wrong as wrong:
            print(f"packet {judged}: {wrong}\n in {packet[2].hex()}\nout {packet[3].hex()}")
            return 1
        judged += 1
        answered += packet[1] == SEND
    print(f"Python judged {judged} packets, {answered} of them answered: all as they should be")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
