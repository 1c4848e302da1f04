"""An SNTP client (RFC 4330) that compares every byte of its answers with what they must be.

sntp_client.py HOST PORT UNIX   of a server whose clock stands still at UNIX
sntp_client.py HOST PORT now    of a server whose clock is this machine's
"""
import random
import socket
import struct
import sys
import time

# Flags, stratum, poll, precision; root delay, root dispersion; reference identifier; and the four timestamps:
# reference, originate, receive, transmit.
MESSAGE = struct.Struct(">BBbb II 4s 8s 8s 8s 8s")
UNIX_EPOCH = 2208988800  # in seconds since 1900
SEED = 4330
CLIENT, SERVER = 3, 4

host, port = sys.argv[1], int(sys.argv[2])
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
# Answers of anybody else are not received, and a port that nobody listens on is an error.
sock.connect((host, port))
rng = random.Random(SEED)


def request(version, mode, poll=0, nonce=None):
    nonce = nonce or rng.randbytes(8)
    # A leap indicator of 3, as of a clock that is not set: nobody has to care.
    return MESSAGE.pack(3 << 6 | version << 3 | mode, 0, poll, 32, 0, 0, b"", bytes(8), b"\x11" * 8, b"\x22" * 8, nonce)


def ask(payload):
    """The answer to `payload`: the next datagram, so that one too many shows up too."""
    sock.send(payload)
    return sock.recv(2048)


def expect(payload, unix):
    """The answer of a server whose clock stands still at `unix`."""
    moment = struct.pack(">II", (unix + UNIX_EPOCH) % 2**32, 0)
    version, poll, nonce = payload[0] >> 3 & 7, payload[2], payload[40:48]
    flags = 0 << 6 | version << 3 | SERVER
    return MESSAGE.pack(flags, 10, poll, -20, 0, 0, bytes([127, 127, 1, 1]), moment, nonce, moment, moment)


def check(payload, unix):
    got, wanted = ask(payload), expect(payload, unix)
    assert got == wanted, f"to {payload.hex()}:\n{got.hex()} instead of\n{wanted.hex()}"


def standing(unix):
    good = [request(version, CLIENT, poll) for version in (1, 2, 3, 4) for poll in (0, 6, 17)]
    # What may follow, a key and its digest or an extension, is not read.
    good += [request(4, CLIENT) + rng.randbytes(more) for more in (1, 20, 400)]
    for payload in good:
        check(payload, unix)
    bad = [request(4, CLIENT)[:length] for length in (0, 1, 4, 40, 47)]
    bad += [request(4, mode) for mode in range(8) if mode != CLIENT]
    bad += [request(version, CLIENT) for version in (0, 5, 6, 7)]
    # Control messages (mode 6, "read variables") and private ones (mode 7, "monlist"), which others have answered
    # with far more than they were asked.
    bad += [bytes([0x16, 0x02]) + bytes(10), bytes([0x17, 0, 3, 0x2A]) + bytes(4), bytes([0x17, 0, 3, 0x2A]) + bytes(188)]
    for length in range(1, 200, 9):
        noise = bytearray(rng.randbytes(length))
        noise[0] = noise[0] & ~7 | rng.choice([0, 1, 2, 4, 5, 6, 7])
        bad.append(bytes(noise))
    for payload in bad:
        sock.send(payload)
        # Whatever came back to that would be taken for the answer to this.
        check(request(4, CLIENT), unix)
    print(f"{len(good) + len(bad)} answered, {len(bad)} not answered")


def running():
    fractions = set()
    for _ in range(5):
        payload = request(4, CLIENT)
        before = time.time()
        answer = ask(payload)
        after = time.time()
        *_, reference, originate, receive, transmit = MESSAGE.unpack(answer)
        assert originate == payload[40:48], answer.hex()
        reference, receive, transmit = (
            struct.unpack(">Q", moment)[0] / 2**32 - UNIX_EPOCH for moment in (reference, receive, transmit)
        )
        # The server may have looked at the clock a little before the request was sent: when it last woke up.
        assert before - 1 <= reference <= receive <= transmit <= after + 0.001, (before, answer.hex(), after)
        fractions.add(transmit % 1)
    assert len(fractions) == 5, f"no five moments: {fractions}"
    print("5 answered in time")


if sys.argv[3] == "now":
    running()
else:
    standing(int(sys.argv[3]))
