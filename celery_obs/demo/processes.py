"""
The demo's processes: started in sessions of their own, watched, and all stopped at the end, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from celery_obs.exceptions import CeleryObsError

from . import watchdog


__all__ = ["Child", "ChildFailedError", "Household", "free_port", "wait_until"]


_TAIL = 20


class ChildFailedError(CeleryObsError):
    """
    A process of the demo did not start, or ended by itself.
    """


class Child(NamedTuple):
    """
    A process and where it writes.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """
        Return the last lines of its log.
        """
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL:]) or "    (it wrote nothing)"


class Household:
    """
    All processes of one demo; leaving the context stops them, the last one first, and where this process is killed a watchdog does.

    Args:
        directory: Where the logs go.

        environ: The environment of every process.

        grace: Seconds between SIGTERM and SIGKILL.

        temporary: Directories that the watchdog removes as well; their maker removes them where all goes well.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str], *, grace: float = 8.0, temporary: Sequence[Path] = ()) -> None:
        self._directory = directory
        self._environ = dict(environ)
        self._grace = grace
        self._children: list[Child] = []
        self._temporary = tuple(temporary)
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Household:  # noqa: PYI034 -- Self came with Python 3.11.
        self._watchdog = subprocess.Popen(  # noqa: S603 -- our own file.
            [sys.executable, "-I", watchdog.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for path in self._temporary:
            self._tell_watchdog(str(path))
        return self

    def _tell_watchdog(self, line: str) -> None:
        pipe = self._watchdog.stdin if self._watchdog is not None else None
        if pipe is not None:
            with contextlib.suppress(OSError):  # It is gone; then nothing is watched, and all else works.
                pipe.write(f"{line}\n".encode())
                pipe.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str]) -> Child:
        """
        Start a process in a session of its own, so that a Ctrl-C in the terminal reaches only us.
        """
        log = self._directory / f"{name}.log"
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(  # noqa: S603 -- the demo's own commands.
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._directory,
                    env=self._environ,
                    start_new_session=True,
                )
        except OSError as error:
            message = f"The demo's {name} cannot be started: {error}."
            raise ChildFailedError(message) from error
        self._tell_watchdog(str(process.pid))
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """
        Make sure that all processes live.

        Raises:
            ChildFailedError: with the end of the log of one that does not.
        """
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                message = f"The demo's {child.name} ended by itself ({_how(code)}). The end of its log:\n{child.tail()}"
                raise ChildFailedError(message)

    def stop(self) -> None:
        """
        Stop all processes, and what they left in their sessions.
        """
        while self._children:
            child = self._children.pop()
            if child.process.poll() is None:
                child.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(self._grace)
            _kill_session(child.process.pid)
            child.process.wait()
        if self._watchdog is not None:
            with contextlib.suppress(OSError):
                self._watchdog.communicate()  # Closes the pipe, and waits until it has seen that nothing is left.
            self._watchdog = None


def _kill_session(leader: int) -> None:
    # The leader's number names its process group for as long as a pool child of it is left.
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def free_port() -> int:
    """
    Return a loopback port that was free a moment ago.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(done: Callable[[], bool], *, seconds: float, pause: Callable[[float], bool]) -> bool:
    """
    Poll *done* for at most *seconds*; False when time is up or *pause*, which waits, says that it is to end.
    """
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline or pause(0.1):
            return False
    return True
