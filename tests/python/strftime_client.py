"""Asks a time server for every format of a list, and compares each answer with Python's own `time.strftime`.

strftime_client.py HOST PORT UNIX FORMATS
"""
import json
import socket
import sys
import time

host, port, unix, formats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
moment = time.localtime(unix)
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
same, different = 0, []
with open(formats, encoding="utf-8") as lines:
    for line in lines:
        layout = json.loads(line)
        expected = time.strftime(layout or "%Y-%m-%d %X", moment).encode("utf-8")
        sock.sendto(layout.encode("utf-8"), (host, port))
        answer = sock.recv(2048)
        if answer == expected:
            same += 1
        else:
            different.append((layout, answer, expected))
for layout, answer, expected in different:
    print(f"{layout!r}: got {answer!r}, Python says {expected!r}")
print(f"{same} same, {len(different)} different, zone {time.strftime('%Z', moment)}")
