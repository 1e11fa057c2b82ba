"""
A process that runs attempts tells where it is when it gets a signal (setting ``stack_signal``), whatever holds the GIL.

Python's faulthandler writes from the signal's handler in C: it takes no lock, runs no Python, and writes names of files and functions, and numbers of
lines, never values.  System calls go on (SA_RESTART, and PEP 475 for those that do not), so that the task notices nothing.
A thread writes where it is itself, and no other: reading the frames of one that runs ends the process, sooner or later (SIGSEGV within seconds).

The signal is ignored before it gets its handler and after it loses it, so that one that comes late ends no process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal

from typing import Final

from celery_obs.recorder.opening import explain, open_file
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.slots import Node, Slot
from celery_obs.recorder.stack_file import Head, begin_file, catches, read_head, stack_name, started_at


__all__ = ["StackAnswers"]


_DEBUGGER: Final = "CELERY_RDBSIG"

log = logging.getLogger("celery_obs")


class StackAnswers:
    """
    Have processes answer where they are.

    Args:
        number: The signal; 0 where none does.

    Forks: a child that claims a slot for attempts answers for itself from then on; other children are never asked.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._descriptor: int | None = None
        self._refusal = ""

    def claimed(self, recorder: Recorder, node: Node, slot: Slot) -> None:
        """
        Begin to answer, in a process of a worker that just claimed its slot, if it runs attempts; say once a node where that cannot be.
        """
        if not self._number:
            return
        identity = recorder.identify()
        refusal = self._refusal or self._taken()
        try:
            if refusal:
                self._refuse(node, slot, refusal)
            elif identity.attempts:
                self._register(node, slot, threads=identity.attempts > 1)
        except OSError as exc:
            self._say(explain(exc, within=node.folder))

    def _taken(self) -> str:
        """
        Say what else has the signal; empty where nothing has.
        """
        name = _name(self._number)
        if self._descriptor is not None:
            return ""  # We have it.
        if self._number == signal.SIGUSR2 and os.environ.get(_DEBUGGER):
            return f"Celery's debugger has {name} ({_DEBUGGER} is set)"
        has_handler = catches(self._number, or_ignores=True)
        if has_handler is None:
            has_handler = signal.getsignal(self._number) is not signal.SIG_DFL
        return f"{name} has a handler already" if has_handler else ""

    def _register(self, node: Node, slot: Slot, *, threads: bool) -> None:
        before = self._descriptor
        if before is None:
            with contextlib.suppress(ValueError):  # A worker in a thread of a program.
                signal.signal(self._number, signal.SIG_IGN)
        descriptor = begin_file(node.folder, slot.number, Head(self._number, started_at(), threads=threads))
        faulthandler.register(self._number, file=descriptor, all_threads=False, chain=False)
        self._descriptor = descriptor
        if before is not None:
            os.close(before)

    def _refuse(self, node: Node, slot: Slot, refusal: str) -> None:
        """
        Leave word why this process cannot be asked; the next one in its place does not say the same again.
        """
        told = _refusal_of(node, slot.number)
        os.close(begin_file(node.folder, slot.number, Head(0, started_at(), refusal=refusal)))
        if not self._refusal and told != refusal:
            self._say(refusal)
        self._refusal = refusal  # Its children inherit it, and the handler.

    def _say(self, why: str) -> None:
        log.warning("celery_obs: stacks cannot be asked for: %s. Set stack_signal to another signal, such as SIGRTMIN+3.", why)


def _refusal_of(node: Node, number: int) -> str:
    try:
        descriptor = open_file(node.folder / stack_name(number))
    except OSError:
        return ""
    try:
        found = read_head(descriptor)
    finally:
        os.close(descriptor)
    return found[0].refusal if found is not None else ""


def _name(number: int) -> str:
    first = int(signal.SIGRTMIN) if hasattr(signal, "SIGRTMIN") else number + 1
    return f"SIGRTMIN+{number - first}" if number >= first else signal.Signals(number).name
