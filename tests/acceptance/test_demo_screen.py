"""
The demo on a terminal of 80 columns and 24 lines, as a person sees it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import struct
import subprocess
import sys
import termios
import time

from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

from celery_obs.demo.redis_server import find_redis_server
from tests.conftest import find_server
from tests.servers import wait_until


pytestmark = pytest.mark.integration

COLUMNS, ROWS = 80, 24
PATIENCE = 60.0


class Terminal:
    """
    A demo on a terminal of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.screen = pyte.HistoryScreen(COLUMNS, ROWS, history=10_000, ratio=0.001)
        self._stream = pyte.ByteStream(self.screen)
        self.text = b""
        self.frames = 0
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", "TMPDIR": str(folder)}
        command = [sys.executable, "-m", "celery_obs.cli", "demo"]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True)
        os.close(theirs)

    def read(self) -> None:
        """
        Take in what was written since.
        """
        while select.select([self._ours], [], [], 0.05)[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                return
            self.text += data
            self._stream.feed(data)

    def shows(self, *words: str) -> bool:
        self.read()
        shown = "\n".join(self.screen.display)
        return all(word in shown for word in words)

    def scrolled(self) -> int:
        """
        Return how many lines went off the top.
        """
        return len(self.screen.history.top)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._ours)


def descendants(pid: int) -> set[int]:
    """
    Find all processes that *pid* started, and theirs.
    """
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    find_server("redis-server")
    assert find_redis_server()
    made = Terminal(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_the_demo_fits_on_a_small_terminal_and_leaves_nothing_when_killed(terminal: Terminal, tmp_path: Path) -> None:
    """
    The table stands still and fits, the line about health works as it is pasted, and ``kill -9`` leaves no process and no file.
    """
    wait_until(lambda: terminal.shows("task ", "channel ", "queue ", "beat entry "), within=PATIENCE, what="the table")
    until = time.monotonic() + 6
    wait_until(lambda: terminal.shows("task ") and time.monotonic() > until, what="some refreshes")

    assert terminal.text.count(b"\x1b[J") >= 3
    assert terminal.scrolled() <= ROWS  # What stood above the table while that grew.
    assert terminal.shows("task ", "channel ", "queue ", "beat entry ")

    (line,) = (line for line in terminal.text.decode().splitlines() if line.startswith("Health:"))
    command = shlex.split(line.partition(":")[2])
    assert "celery-obs" == command[0]
    done = subprocess.run([sys.executable, "-m", "celery_obs.cli", *command[1:]], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # Its story breaks channels now and then.
    assert done.stdout.startswith("healthy   workers: all well.")
    assert "cannot be" not in done.stdout
    assert "sync success: " in done.stdout

    started = descendants(terminal.process.pid)
    assert len(started) >= 10
    terminal.process.kill()
    terminal.process.wait(10)
    wait_until(lambda: not any(map(is_alive, started)), what="all that it started to end")
    wait_until(lambda: not list(tmp_path.glob("celery_obs-demo-*")), what="its directory to go")
