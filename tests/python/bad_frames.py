"""Sends bad Ethernet frames to a host, and greets it in between: it must go on serving.

usage: bad_frames.py DEVICE MAC SEED COUNT    (the host is 192.168.69.1, this machine 192.168.69.100)
"""

import fcntl
import random
import socket
import struct
import sys

HOST, SELF = bytes([192, 168, 69, 1]), bytes([192, 168, 69, 100])
HOST6 = bytes.fromhex("fdaa0000000000000000000000000001")
SELF6 = bytes.fromhex("fdaa0000000000000000000000000100")
OWN_MAC = bytes.fromhex("020000000064")
BATCH = 10
LONGEST = 4000


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def with_checksum(packet, at, extra=b""):
    """`packet` with the checksum of itself and `extra` in its two bytes from `at` on."""
    value = checksum(extra + packet[:at] + b"\0\0" + packet[at + 2 :])
    return packet[:at] + struct.pack("!H", value) + packet[at + 2 :]


def ipv4(rng, protocol, payload):
    ttl, identification = rng.randrange(256), rng.randrange(1 << 16)
    fragment = rng.choice([0, 0, 0, 0x4000, 0x2000, rng.randrange(1 << 16)])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identification, fragment, ttl, protocol, 0)
    return b"\x08\x00" + with_checksum(head + SELF + HOST, 10) + payload


def ipv6(rng, protocol, payload):
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, rng.choice([255, 64, 0]))
    return b"\x86\xdd" + head + SELF6 + HOST6 + payload


def packet(rng):
    """A packet that is as it should be, with its ethertype."""
    version = rng.choice([4, 4, 6])
    ip, near, far = (ipv4, SELF, HOST) if version == 4 else (ipv6, SELF6, HOST6)

    def pseudo(protocol, length):
        return near + far + struct.pack("!IHBB", length, 0, 0, protocol)

    kind = rng.choice(["arp", "icmp", "udp", "udp", "tcp", "tcp", "ndp", "dhcp", "noise"])
    port = rng.randrange(1 << 16)
    if kind == "arp":
        operation = rng.choice([1, 2, 2, rng.randrange(1 << 16)])
        who = rng.choice([SELF, HOST, rng.randbytes(4)])
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + rng.randbytes(6) + who + rng.randbytes(6) + HOST
        return b"\x08\x06" + body
    if kind == "icmp":
        body = bytes([rng.choice([8, 0, 3, 11, rng.randrange(256)]), 0]) + rng.randbytes(2 + rng.randrange(200))
        return ipv4(rng, 1, with_checksum(body, 2))
    if kind == "ndp":
        kind = rng.choice([133, 134, 135, 136, 137, 128, 130, rng.randrange(256)])
        options = rng.choice([b"\1\1" + rng.randbytes(6), b"\3\4" + rng.randbytes(30), b"\1\0", b""])
        body = bytes([kind, 0, 0, 0]) + rng.randbytes(4) + rng.choice([HOST6, rng.randbytes(16)]) + options
        return ipv6(rng, 58, with_checksum(body, 2, pseudo(58, len(body))))
    if kind == "udp" or kind == "dhcp":
        to = rng.choice([8898, 9000, 8081, 123, 68, 546, rng.randrange(1 << 16)])
        data = rng.choice([b"%" + rng.randbytes(2), b"%Y" * rng.randrange(200), rng.randbytes(rng.randrange(1400))])
        length = 8 + len(data)
        body = struct.pack("!HHHH", port, to, length, 0) + data
        return ip(rng, 17, with_checksum(body, 6, pseudo(17, length)))
    if kind == "tcp":
        flags = rng.choice([0x02, 0x02, 0x10, 0x11, 0x14, 0x18, rng.randrange(256)])
        options = rng.choice([b"", b"\2\4\5\xb4", b"\2\4\0\0", b"\x08\x0a" + rng.randbytes(10), rng.randbytes(4)])
        options += b"\0" * (-len(options) % 4)
        offset = (20 + len(options)) // 4 << 4
        head = struct.pack("!HHIIBBHHH", port, 8898, rng.randrange(1 << 32), rng.randrange(1 << 32), offset, flags,
                           rng.randrange(1 << 16), 0, rng.randrange(1 << 16))
        body = head + options + rng.randbytes(rng.choice([0, 0, rng.randrange(1400)]))
        return ip(rng, 6, with_checksum(body, 16, pseudo(6, len(body))))
    return rng.randbytes(2) + rng.randbytes(rng.randrange(LONGEST))


def frame(rng, mac):
    to = rng.choice([mac, mac, mac, b"\xff" * 6, b"\x33\x33\0\0\0\1", rng.randbytes(6)])
    source = rng.choice([OWN_MAC, OWN_MAC, mac, rng.randbytes(6)])
    bad = bytearray(to + source + packet(rng))
    harm = rng.randrange(4)
    if harm == 0:
        del bad[rng.randrange(14, len(bad) + 1) :]
    elif harm == 1:
        bad += rng.randbytes(rng.randrange(LONGEST - min(len(bad), LONGEST - 1)))
    elif harm == 2:
        for _ in range(rng.randrange(1, 9)):
            bad[rng.randrange(6, len(bad))] = rng.randrange(256)
    return bytes(bad[:LONGEST])


def greet(client):
    for _ in range(1200):
        client.send(b"hello")
        try:
            if client.recv(16) == b"hi":
                return
        except TimeoutError:
            pass
    sys.exit("the greeting is not answered any more")


def main():
    device, mac, seed, count = sys.argv[1:]
    rng = random.Random(int(seed))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("192.168.69.100", 0))
    client.connect(("192.168.69.1", 8898))
    client.settimeout(0.05)
    # Frames longer than any Ethernet has.
    siocsifmtu = 0x8922
    fcntl.ioctl(client, siocsifmtu, struct.pack("16si", device.encode(), LONGEST))
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((device, 0))
    for sent in range(int(count)):
        raw.send(frame(rng, bytes.fromhex(mac)))
        if sent % BATCH == 0:
            greet(client)
    greet(client)


main()
