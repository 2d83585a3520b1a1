"""What scapy's contrib.stamp makes of packets, as JSON: builds from fields, and dissects bytes back into fields.

Reads a list of cases from standard input, each with "reflector", "fields", "tlvs" and "bytes" (hexadecimal, as dt-common
built it); writes the same list with scapy's own "bytes", "fields" and "tlvs".
"""

import json
import logging
import sys
from fractions import Fraction

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.contrib.stamp import (  # noqa: E402
    ErrorEstimate,
    STAMPSessionReflectorTestUnauthenticated,
    STAMPSessionSenderTestUnauthenticated,
    STAMPTestTLV,
)

# Each time, and the error estimate that names its format.
TIMES = {"ts": "err_estimate", "ts_rx": "err_estimate", "ts_sender": "err_estimate_sender"}
ESTIMATES = ("err_estimate", "err_estimate_sender")
PTP = 0x4000


def build(kind, fields, tlvs):
    """The bytes of a packet with these fields. Times are the 64 bits on the wire."""
    objects = [
        STAMPTestTLV(flags=tlv["flags"], type=tlv["type"], len=len(tlv["value"]) // 2, value=bytes.fromhex(tlv["value"]))
        for tlv in tlvs
    ]
    packet = kind(tlv_objects=objects)
    for name in ESTIMATES:
        if name in fields:
            setattr(packet, name, ErrorEstimate(fields[name].to_bytes(2, "big")))
    for name, value in fields.items():
        # scapy takes NTP times in seconds and PTP times as they are, and asks the estimate, which must be there by now.
        if name in TIMES and not fields[TIMES[name]] & PTP:
            value = Fraction(value, 1 << 32)
        if name not in ESTIMATES:
            setattr(packet, name, value)
    return bytes(packet)


def dissect(kind, data):
    packet = kind(data)
    fields = {}
    for field in packet.fields_desc:
        if field.name == "tlv_objects" or field.name.startswith("mbz"):
            continue
        value = packet.getfieldval(field.name)
        fields[field.name] = int.from_bytes(bytes(value), "big") if field.name in ESTIMATES else int(value)
    tlvs = [
        {"flags": int(tlv.flags), "type": tlv.type, "value": bytes(tlv.value).hex()} for tlv in packet.tlv_objects
    ]
    return fields, tlvs


def main():
    answers = []
    for case in json.load(sys.stdin):
        reflector = case["reflector"]
        kind = STAMPSessionReflectorTestUnauthenticated if reflector else STAMPSessionSenderTestUnauthenticated
        fields, tlvs = dissect(kind, bytes.fromhex(case["bytes"]))
        built = build(kind, case["fields"], case["tlvs"])
        answers.append({"reflector": reflector, "fields": fields, "tlvs": tlvs, "bytes": built.hex()})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
