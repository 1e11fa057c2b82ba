"""
A process of a worker's pool, and what such a process or the worker itself forks besides.
"""

from __future__ import annotations

import os
import sys

from typing import Final

from celery_obs.areas.workers.metrics import PROCESS_RESTARTS
from celery_obs.recorder.format import Exit, Header
from celery_obs.recorder.recorder import Identity
from celery_obs.recorder.slots import Node, Slot
from celery_obs.runtime.processes import exit_word, restart_reason

from .role import Role


__all__ = ["NODE_VARIABLE", "PoolChild", "pool_index"]


NODE_VARIABLE: Final = "_CELERY_OBS_NODE"
"""
Where a worker leaves its name for its spawned children.  Not a setting, so not under their prefix.
"""


def pool_index() -> int | None:
    """
    Return this process's place in its pool, or None outside one.
    """
    module = sys.modules.get("billiard.process")
    return getattr(module.current_process(), "index", None) if module else None


class PoolChild(Role):
    """
    A child of a worker.  A fork cannot tell yet what for: Celery's pool gives its processes their place afterwards.

    Args:
        node: The worker's name.

        is_forked: Whether the worker forked it, and did not spawn it.
    """

    runs_tasks = True

    def __init__(self, node: str, *, is_forked: bool) -> None:
        self.is_forked = is_forked
        self._node = node
        self._has_place = False

    def identity(self) -> Identity:
        """
        Return the place in the pool; a process that has none is a publisher of its worker's node.
        """
        index = pool_index()
        if index is None:
            return Identity(node=self._node, role="publisher")
        return Identity(node=self._node, role="child", number=index + 1, attempts=1)

    def forked(self) -> Role:
        """
        Return what a child of this child is.
        """
        return PoolChild(self._node, is_forked=self.is_forked)

    def claimed(self, node: Node, slot: Slot) -> bool:
        """
        Count why the last one in this place went.
        """
        self._has_place = pool_index() is not None
        if self._has_place and slot.inherited[Header.PARENT_PID] == os.getppid():
            why = restart_reason(slot.words[Header.EXIT])
            place = None if why is None else node.layout.place(PROCESS_RESTARTS, (self._node, why))
            if place is not None:
                slot.back(slot.lanes_at + place)
                slot.words[slot.lanes_at + place] += 1
        return not self._has_place

    def leaves(self, slot: Slot, exitcode: int, *, memory_limit: int | None) -> None:
        """
        Leave word in the *slot* why this process goes.
        """
        if self._has_place and slot.words[Header.EXIT] != Exit.REMOVED:
            slot.words[Header.EXIT] = exit_word(exitcode, memory_limit=memory_limit)
