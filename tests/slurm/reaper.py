"""Run a command and collect all processes that it leaves, as init does on a real machine.

In a container the first process often collects nothing; Slurm then takes a dead job for a living one. All that a
node started stays below this process, so that a node can be lost by killing this tree.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Start, collect, end with the command's status."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    process = subprocess.Popen(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    while True:
        ended, status = os.wait()
        if ended == process.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
