"""Says what Python's `time.strftime` makes of formats, in the zone of TZ.

Standard input: one question a line, UNIX FORMAT, the format's UTF-8 in hexadecimal.
Standard output: the versions of Python and of the C library; then one answer a line, GMTOFF ZONE ANSWER, with the
zone's name and the answer's UTF-8 in hexadecimal after a `+`, or `-` where Python raises ValueError.
"""
import platform
import sys
import time

libc, version = platform.libc_ver()
print("python", platform.python_version(), libc or "unknown", version)
for question in sys.stdin.read().splitlines():
    unix, layout = question.split(" ")
    moment = time.localtime(int(unix))
    try:
        answer = "+" + time.strftime(bytes.fromhex(layout).decode("utf-8"), moment).encode("utf-8").hex()
    except ValueError:
        answer = "-"
    print(moment.tm_gmtoff, moment.tm_zone.encode("utf-8").hex(), answer)
