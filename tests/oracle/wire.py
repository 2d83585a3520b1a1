"""A raw end of a cable: sends frames as they are and shows what comes back, with the tags that the kernel took off.

Usage: wire.py DEVICE. Reads one frame per line in hexadecimal, and answers each with the frame that came back to the
frame's sender, or with "-" when none did. Says "ready" first.
"""

import select
import socket
import struct
import sys
import time

ALL, OUTGOING = 0x0003, 4
SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR = 263, 8, 15
VLAN_VALID, TPID_VALID = 0x10, 0x40
LONGEST, PATIENCE_S = 65536, 0.5
# A `struct virtio_net_hdr` before each frame says how much of it to keep in one piece; without it the kernel would not
# even keep the headers together when a frame is longer than a page, which no network card does.
NOTE = struct.Struct("BBHHHH")
HEADERS = 128


def receive(cable):
    """One frame with its outermost tag where it was on the wire; None for what this end sent itself."""
    data, notes, _, address = cable.recvmsg(LONGEST, 256)
    if address[2] == OUTGOING:
        return None
    data = data[NOTE.size :]
    for level, kind, note in notes:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, control, tag = struct.unpack("IIIHHHH", note[:20])
            if status & VLAN_VALID:
                tag = tag if status & TPID_VALID else 0x8100
                data = data[:12] + struct.pack(">HH", tag, control) + data[12:]
    return data


def exchange(cable, frame):
    cable.send(NOTE.pack(0, 0, min(len(frame), HEADERS), 0, 0, 0) + frame)
    deadline = time.monotonic() + PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([cable], [], [], left)[0]:
            break
        answer = receive(cable)
        if answer is not None and answer[:12] == frame[6:12] + frame[:6]:
            return answer
    return None


def main(device):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)) as cable:
        cable.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        cable.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        cable.bind((device, ALL))
        print("ready", flush=True)
        for line in sys.stdin:
            answer = exchange(cable, bytes.fromhex(line))
            print("-" if answer is None else answer.hex(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
