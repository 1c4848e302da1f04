"""Uses a program at a terminal, as a person would: terminal.py CODE STEP... -- PROGRAM ARGUMENT...

A step is PATTERN=>KEYS: once the terminal shows what matches PATTERN, KEYS are typed. Escapes are Python's, so that
\\x03 is control-C. The program must then end with the exit code CODE within ten seconds of each step.
"""

import os
import pty
import re
import select
import sys
import time

PATIENCE = 10


def main():
    code = int(sys.argv[1])
    split = sys.argv.index("--")
    steps = [step.split("=>") for step in sys.argv[2:split]]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PS1"] = "PROMPT> "
        os.environ["TERM"] = "dumb"
        os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
    shown = b""
    everything = b""

    def more():
        nonlocal shown, everything
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            fail("nothing more in time")
        try:
            data = os.read(terminal, 4096)
        except OSError:
            data = b""
        shown += data
        everything += data
        return bool(data)

    def fail(why):
        os.kill(pid, 9)
        sys.exit(f"{why}\n{everything!r}")

    for pattern, keys in steps:
        deadline = time.monotonic() + PATIENCE
        pattern = pattern.encode()
        while not (match := re.search(pattern, shown, re.DOTALL)):
            if not more():
                fail(f"ended before {pattern!r}")
        shown = shown[match.end() :]
        os.write(terminal, keys.encode().decode("unicode_escape").encode())
    deadline = time.monotonic() + PATIENCE
    while more():
        pass
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if ended != code:
        sys.exit(f"ended with {ended}, not {code}\n{everything!r}")


main()
