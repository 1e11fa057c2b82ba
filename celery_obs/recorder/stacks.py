"""
Ask a process where it is: which attempts it runs, and the stack of its threads.

A process is asked by a signal, and only if it is the one that said that it answers: it holds its slot's lock, was started when it said, and has a handler for
the signal, all looked at after it was pinned by a pidfd, so that a process that got the id of a dead one never gets a signal.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import time

from glob import escape
from pathlib import Path
from typing import Final, NamedTuple

from celery_obs.exceptions import CeleryObsError, LayoutError

from .attempt_log import RUNNING, Attempt, AttemptLog, Wanted, shown
from .format import folder_name
from .opening import closing, open_file, open_folder, open_metrics_dir
from .slots import holder_pid
from .stack_file import Head, catches, read_head, stack_name, started_at


__all__ = ["LONGEST", "NoStackError", "Stack", "Thread", "ask", "stack_shown"]


LONGEST: Final = 256 * 1024
"""
Bytes that are read of an answer.
"""

PATIENCE: Final = 2.0
"""
Seconds that an answer may take.
"""

_PAUSE: Final = 0.005
_QUIET: Final = 10  # Looks that find nothing new, after which an answer is whole: its end is not marked.
_MOST_ATTEMPTS: Final = 1000
_MOST_NUMBER: Final = 999_999_999
_MOST_THREADS: Final = 200
_PATIENCE_OF_OTHERS: Final = 0.25
_PIDFD_THREAD: Final = os.O_EXCL  # linux/pidfd.h
_FRAME: Final = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')
_TRACER: Final = re.compile(r"(^|/)celery/app/trace\.py$")
_HOW: Final = "Set stack_signal, such as SIGRTMIN+3, and restart the worker."


class NoStackError(CeleryObsError):
    """
    There is no stack to show.

    Args:
        message: Why, and what to do.

        word: Why, for programs: ``unknown_node``, ``unknown_process``, ``stacks_off``, ``busy``, ``no_answer`` or ``not_possible``.
    """

    def __init__(self, message: str, *, word: str) -> None:
        super().__init__(message)
        self.word = word


class Thread(NamedTuple):
    """
    A thread.

    Attributes:
        thread: Its number, as the kernel has it.

        frames: Where it is: lines such as ``/app/tasks.py:12 in fetch``, the innermost first.

        runs_attempt: Whether it is at an attempt.
    """

    thread: int
    frames: tuple[str, ...]
    runs_attempt: bool


class Stack(NamedTuple):
    """
    What a process answered.

    Attributes:
        node, process: Which process it is.

        attempts: What it ran when it was asked.

        threads: Its threads, those that run attempts first.

        is_whole: Whether everything was read.
    """

    node: str
    process: int
    attempts: tuple[Attempt, ...]
    threads: tuple[Thread, ...]
    is_whole: bool


def ask(metrics_dir: Path, node: str, number: int, *, all_threads: bool = False, patience: float = PATIENCE) -> Stack:
    """
    Ask process *number* of *node* where it is.

    Args:
        metrics_dir: The folder that holds all nodes.

        all_threads: Whether to ask its other threads, too, one after the other.  Where attempts run in threads, all are asked anyway.

        patience: Seconds to wait for its answer.

    Raises:
        NoStackError: if it cannot be asked, or does not answer.

        OSError: if the metrics directory cannot be read.
    """
    os.close(open_metrics_dir(metrics_dir))
    folder = metrics_dir / folder_name(node)
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(closing(open_folder(folder)))
            lock = stack.enter_context(closing(open_file(folder / "lock", dir_fd=directory)))
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
                raise
            message = f"There is no node {node[:200]!r} in {metrics_dir}. celery-obs attempts names those that there are."
            raise NoStackError(message, word="unknown_node") from None
        pid = holder_pid(lock, number) if number <= _MOST_NUMBER else 0
        if not pid:
            message = f"No process {number} of {node[:200]} runs here, or it is in another PID namespace (shareProcessNamespace: true joins those of a pod)."
            raise NoStackError(message, word="unknown_process")
        file = stack.enter_context(closing(_file(folder, directory, number)))
        head, start = _head(file, node, number)
        pinned = stack.enter_context(closing(_pin(pid)))
        is_it = holder_pid(lock, number) == pid and head.process and started_at(pid) == head.process and catches(head.signal, pid)
        if not is_it:
            message = f"Process {number} of {node} was replaced a moment ago, or does not listen to its signal any more. Ask again."
            raise NoStackError(message, word="unknown_process")
        attempts = _running(metrics_dir, node, number)
        asked = _Asked(pid, head, file, start, pinned, time.monotonic() + patience)
        threads = [asked.main()]
        if all_threads or head.threads:
            threads += asked.others()
    return Stack(node, number, attempts, tuple(sorted(threads, key=lambda thread: not thread.runs_attempt)), asked.is_whole)


def stack_shown(stack: Stack) -> dict[str, object]:
    """
    Return a stack for JSON.
    """
    return {
        "node": stack.node,
        "process": stack.process,
        "attempts": [shown(attempt) for attempt in stack.attempts],
        "threads": [
            {"thread": thread.thread, "frames": list(thread.frames), "runs_attempt": thread.runs_attempt} for thread in stack.threads
        ],
        "complete": stack.is_whole,
    }


def _file(folder: Path, directory: int, number: int) -> int:
    """
    Open the file of a process, for this asker alone.
    """
    try:
        descriptor = open_file(folder / stack_name(number), os.O_RDWR, dir_fd=directory)
    except FileNotFoundError:
        message = f"Stacks are off in process {number}. {_HOW}"
        raise NoStackError(message, word="stacks_off") from None
    except PermissionError:
        message = "The file of stacks belongs to another user. Ask as the user of the worker."
        raise NoStackError(message, word="not_possible") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in {errno.EACCES, errno.EAGAIN}:
            raise
        message = "This process is being asked already. Try again in a second."
        raise NoStackError(message, word="busy") from None
    return descriptor


def _head(file: int, node: str, number: int) -> tuple[Head, int]:
    found = read_head(file)
    if found is None:
        message = f"Stacks are off in process {number} of {node}: its file is damaged. Restart the worker."
        raise NoStackError(message, word="stacks_off")
    head, _ = found
    if head.refusal or not 0 < head.signal < signal.NSIG:
        message = f"Stacks are off in process {number} of {node}: {head.refusal or 'it knows no signal'}. {_HOW}"
        raise NoStackError(message, word="stacks_off")
    return found


def _pin(pid: int) -> int:
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        message = "This system has no pidfd; Linux 5.3 and later have."
        raise NoStackError(message, word="not_possible")
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        message = f"The process cannot be asked: {error.strerror}."
        raise NoStackError(message, word="unknown_process" if error.errno == errno.ESRCH else "not_possible") from None


def _running(metrics_dir: Path, node: str, number: int) -> tuple[Attempt, ...]:
    with contextlib.suppress(OSError, LayoutError):
        found = AttemptLog(metrics_dir).search(Wanted(node=escape(node), state=(RUNNING,), limit=_MOST_ATTEMPTS))
        return tuple(attempt for attempt in found.attempts if attempt.process == number)
    return ()


class _Asked:
    """
    A process that is being asked.

    Each thread is asked for itself and tells where it is itself: nothing reads what another thread changes at that moment, which has killed processes.
    """

    def __init__(self, pid: int, head: Head, file: int, start: int, pinned: int, deadline: float) -> None:  # noqa: PLR0917 -- a record.
        self._pid = pid
        self._head = head
        self._file = file
        self._start = start
        self._pinned = pinned
        self._deadline = deadline
        self.is_whole = True

    def main(self) -> Thread:
        """
        Ask the main thread.

        Raises:
            NoStackError: if it does not answer.
        """
        answer = self._answer_of(self._pid, within=self._deadline)
        if answer is None:
            message = (
                "The process did not answer in time: it is stopped, waits in the kernel (state D), ended just now, or blocks the signal."
            )
            raise NoStackError(message, word="no_answer")
        return answer

    def others(self) -> list[Thread]:
        """
        Ask all other threads; those that do not answer, such as threads that are none of Python's, are left out.

        Raises:
            NoStackError: if the kernel cannot send a signal to one thread of a process that is pinned.
        """
        found: list[Thread] = []
        for name in sorted(os.listdir(f"/proc/{self._pid}/task"), key=int)[:_MOST_THREADS]:  # noqa: PTH208 -- names are wanted.
            if int(name) != self._pid:
                answer = self._answer_of(int(name), within=min(self._deadline, time.monotonic() + _PATIENCE_OF_OTHERS))
                found += [answer] if answer is not None and answer.frames else []
        self.is_whole = self.is_whole and time.monotonic() < self._deadline
        return found

    def _answer_of(self, thread: int, *, within: float) -> Thread | None:
        os.ftruncate(self._file, self._start)
        try:
            self._send(thread)
        except ProcessLookupError:
            return None
        except PermissionError:
            message = "The process belongs to another user. Ask as the user of the worker."
            raise NoStackError(message, word="not_possible") from None
        answer = _answer(self._file, self._start, within)
        self.is_whole = self.is_whole and len(answer) <= LONGEST
        return _read(thread, answer[:LONGEST]) if answer else None

    def _send(self, thread: int) -> None:
        """
        Send the signal to one thread, if it is one of the process.
        """
        try:
            pinned = os.pidfd_open(thread, _PIDFD_THREAD)
        except OSError as error:
            if (
                error.errno == errno.EINVAL and thread == self._pid
            ):  # Linux before 6.9: the main thread gets what the process is sent, if it can.
                signal.pidfd_send_signal(self._pinned, self._head.signal)
                return
            if error.errno == errno.EINVAL:
                message = "Threads can be asked on Linux 6.9 and later."
                raise NoStackError(message, word="not_possible") from None
            raise ProcessLookupError from None
        with closing(pinned):
            if started_at(self._pid) == self._head.process and Path(f"/proc/{self._pid}/task/{thread}").exists():
                signal.pidfd_send_signal(pinned, self._head.signal)


_BEGINNING: Final = "(most recent call first):"


def _answer(file: int, start: int, deadline: float) -> bytes:
    """
    Wait for an answer until it grows no more; return it, a byte more than is read where there is more, and nothing where there is none in time.
    """
    size, quiet = start, 0
    while time.monotonic() < deadline and quiet < _QUIET and size - start <= LONGEST:
        time.sleep(_PAUSE)
        now = os.fstat(file).st_size
        quiet = quiet + 1 if now == size > start else 0
        size = now
    return os.pread(file, LONGEST + 1, start)


def _read(thread: int, answer: bytes) -> Thread:
    """
    Read what faulthandler wrote; of several answers the last, for one to a question that was given up may come before it.
    """
    frames, runs_attempt = list[str](), False
    for line in answer.decode("utf-8", "replace").split("\n"):
        if line.endswith(_BEGINNING):
            frames, runs_attempt = [], False
        found = _FRAME.fullmatch(line)
        if found:
            frames.append(f"{found[1]}:{found[2]} in {found[3]}")
            runs_attempt = runs_attempt or bool(found[3] == "trace_task" and _TRACER.search(found[1]))
        elif line.strip() == "...":
            frames.append("...")  # It writes a hundred, the innermost.
    return Thread(thread, tuple(frames), runs_attempt)
