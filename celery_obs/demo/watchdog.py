"""
The demo's watchdog: a process that outlives the demo when that is killed, and then stops what it started.

It reads from a pipe whose other end only the demo has; the end of the pipe is the end of the demo, however that came.
Standard library only, and run as a script: it is there within a moment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time


__all__ = ["main", "watch"]


_GRACE = 5.0
_PAUSE = 0.05


def watch(descriptor: int, *, grace: float = _GRACE) -> None:
    """
    Read what the demo starts, line by line, until it is gone; then stop what is left of it.

    A line is the number of a process that leads a session of its own, or the path of a directory to remove.

    Args:
        descriptor: The end of the pipe to read.

        grace: Seconds between SIGTERM and SIGKILL.
    """
    with os.fdopen(descriptor, encoding="utf-8") as lines:
        registered = [line.rstrip("\n") for line in lines]
    leaders = [int(line) for line in registered if line.isdecimal() and _leads_a_session(int(line))]
    for leader in reversed(leaders):
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(map(_is_there, leaders)):
        time.sleep(_PAUSE)
    for leader in leaders:
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)
    for line in registered:
        if not line.isdecimal():
            shutil.rmtree(line, ignore_errors=True)


def _leads_a_session(pid: int) -> bool:
    """
    Tell whether *pid* is still what the demo started: others may get a number that became free.
    """
    try:
        return os.getsid(pid) == pid
    except OSError:
        return _is_there(pid)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def main() -> None:
    """
    Watch the process at the other end of standard input.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(os.dup(sys.stdin.fileno()))


if __name__ == "__main__":
    main()
