"""
Retiring: nodes that are gone are merged into the remainder, and their folders removed, without losing or doubling a count.

Who may do it is one process at a time, under the lock of the directory.  A node is merged only while all of its slots are locked, so that nothing of it lives
and nothing of it can begin.  The steps, each of which may be the last one of the process that takes them:

1. what dead processes were at is settled, which may be done again;
2. the new remainder is written beside the old one, with the node's numbers and its name;
3. it takes the old one's place: from here on the node counts by the remainder, and readers pass over its folder;
4. the folder's files are removed, the layout last, for that says which node it was.

Who comes after a process that died between 3 and 4 finds the node's name in the remainder and removes what is left, also a worker of the same name that starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import Final

from celery_obs.clock import Clock, wall
from celery_obs.exceptions import LayoutError

from .format import Gauge, node_name
from .opening import open_file, read_file
from .remainder import REMAINDER, Lasting, Remainder, pending_nodes
from .slots import Node, Slot, layout_id_of, locks, remove_folder, slot_numbers, whole_lock


__all__ = ["Retiring", "Settle"]


_AT_ONCE: Final = 32  # Nodes that are merged at one writing of the remainder.
_HIGHEST: Final = 1 << 61

Settle = Callable[[Node, Slot], object]
"""
Counts what a dead process's slot says it was at; may be called again.
"""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """
    What a node said at its end.
    """

    node: Node
    lanes: list[int]
    gauges: list[tuple[int, Lasting]]


class Retiring:
    """
    Merge nodes that are gone.

    Args:
        metrics_dir: The directory of all nodes.

        own: The node of this process, which is left alone; None for a process that is none.

        settle: Counts what dead processes were at.

        clock: Tells the time.

    Threads: one at a time.  Forks: of no use in a child.
    """

    def __init__(self, metrics_dir: Path, *, own: str | None, settle: Settle, clock: Clock = wall) -> None:
        self._metrics_dir = metrics_dir
        self._own = own
        self._settle = settle
        self._clock = clock

    def run(self, *, after: float) -> list[str]:
        """
        Merge all nodes that have given no sign of life for *after* seconds, and finish what others could not; return their names.

        Raises:
            OSError: if the directory or the disk does not allow it.

            LayoutError: if the remainder there is damaged; nothing is merged then.
        """
        with self._alone() as ours:
            if not ours:
                return []
            self._finish()
            retired: list[str] = []
            candidates = [folder for folder in self._folders() if self._is_quiet(folder, after)]
            for start in range(0, len(candidates), _AT_ONCE):
                retired += self._merge(candidates[start : start + _AT_ONCE], after)
            return retired

    def forget(self, name: str, *, force: bool = False) -> bool:
        """
        Merge one node at once, whenever it gave its last sign of life.

        Args:
            name: The node.

            force: Also where its processes live: what they count from now on is lost.

        Return whether that was done; not while another process merges, or where a file of the node cannot be read.

        Raises:
            OSError, LayoutError: as `run`.
        """
        deadline = time.monotonic() + 5.0
        while True:
            with self._alone() as ours:
                if ours:
                    self._finish()
                    folders = [folder for folder in self._folders() if node_name(folder.name) == name]
                    return bool(self._merge(folders, 0.0, force=force))
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        lock = open_file(self._metrics_dir / f"{REMAINDER}.lock", os.O_RDWR | os.O_CREAT)
        try:
            yield locks(lock)
        finally:
            os.close(lock)

    def _folders(self) -> list[Path]:
        """
        Return the folders of all nodes but this process's own.
        """
        with os.scandir(self._metrics_dir) as entries:
            names = [
                entry.name for entry in entries if node_name(entry.name) not in {None, self._own} and entry.is_dir(follow_symlinks=False)
            ]
        return [self._metrics_dir / name for name in sorted(names)]

    def _is_quiet(self, folder: Path, after: float) -> bool:
        """
        Tell whether nothing in *folder* was touched for *after* seconds, and no beat died there without a successor.
        """
        try:
            with os.scandir(folder) as entries:
                touched = [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
        except OSError:
            return False
        if self._clock() - max(touched, default=folder.lstat().st_mtime) < after:
            return False
        return not self._is_missed(folder)

    def _is_missed(self, folder: Path) -> bool:
        """
        Tell whether a beat ended in *folder* without a word, and no other beats in its place: what it owes is not to be forgotten by itself.
        """
        if _role_of(folder) != "beat":
            return False
        last = (folder / "heartbeat").lstat().st_mtime
        others = (each for each in self._metrics_dir.glob("*/heartbeat") if each.parent != folder and _role_of(each.parent) == "beat")
        return not any(each.lstat().st_mtime > last for each in others)

    def _finish(self) -> None:
        """
        Remove what is left of nodes that were merged already.
        """
        for layout_id, name in pending_nodes(self._metrics_dir).items():
            folder = self._metrics_dir / name
            if node_name(name) not in {None, self._own} and folder.is_dir() and not folder.is_symlink():
                with whole_lock(folder) as ours:
                    if ours and layout_id_of(folder) in {None, layout_id}:
                        with contextlib.suppress(OSError):  # Told by who reads the directory, and tried again.
                            remove_folder(folder)

    def _merge(self, folders: list[Path], after: float, *, force: bool = False) -> list[str]:
        """
        Merge those of *folders* that can be, at one stroke; return the names of their nodes.
        """
        path = self._metrics_dir / REMAINDER
        remainder = Remainder.read(path)
        folders = [folder for folder in folders if layout_id_of(folder) not in {None, *remainder.pending}]
        with contextlib.ExitStack() as held:
            taken: list[_Numbers] = []
            for folder in folders:
                ours = held.enter_context(whole_lock(folder))
                if (ours or force) and self._is_quiet_now(folder, after):
                    numbers = self._numbers(folder)
                    if numbers is not None:
                        held.callback(numbers.node.close)
                        taken.append(numbers)
            if not taken:
                return []
            now = self._clock()
            remainder.forget(present=self._present(), now=now)
            for numbers in taken:
                remainder.add(numbers.node.layout, numbers.lanes, numbers.gauges, folder=numbers.node.folder.name, now=now)
            remainder.write(path)
            for numbers in taken:
                with contextlib.suppress(OSError):  # It is merged: what is left of its folder is removed another time.
                    remove_folder(numbers.node.folder)
            return [numbers.node.name for numbers in taken]

    def _is_quiet_now(self, folder: Path, after: float) -> bool:
        """
        Tell whether no process came and went since that was asked first; the lock may be new, made by who asks.
        """
        now = self._clock()
        return after <= 0 or all(now - path.lstat().st_mtime >= after for path in folder.iterdir() if path.name != "lock")

    def _present(self) -> Iterator[int]:
        for folder in self._folders():
            layout_id = layout_id_of(folder)
            if layout_id is not None:
                yield layout_id

    def _numbers(self, folder: Path) -> _Numbers | None:
        """
        Settle and add up a node whose slots are held; None where a file of it cannot be understood, which a person has to look at.
        """
        if any(folder.glob("*.bad")) or not (folder / "layout").exists():
            return None
        try:
            node = Node(self._metrics_dir, node_name(folder.name) or "", gauges=1)
        except (LayoutError, OSError):
            return None
        whole = True
        seen = 0
        for slot in node.others(None):
            seen += 1
            self._settle(node, slot)
        node.file.refresh()
        lanes = [0] * node.layout.lanes
        gauges: list[tuple[int, Lasting]] = []
        for slot in node.others(None):
            fresh = slot.totals(node.layout.lanes)
            whole = whole and all(0 <= each < _HIGHEST for each in fresh)
            lanes = list(map(add, lanes, fresh))
            gauges += [(place, _lasting(slot, place)) for place in slot.set_gauges(node.layout.gauges) if place in node.layout.lasting]
        if not whole or seen != sum(1 for _ in slot_numbers(folder)):
            node.close()
            return None
        return _Numbers(node, lanes, gauges)


def _lasting(slot: Slot, place: int) -> Lasting:
    at = slot.gauges_at + place * Gauge.WORDS
    return Lasting(slot.floats[at + Gauge.VALUE], slot.words[at + Gauge.SET_AT])


def _role_of(folder: Path) -> str:
    """
    Return the role that a node's heartbeat says it has; empty where there is none.
    """
    try:
        return str(json.loads(read_file(folder / "heartbeat"))["role"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
