"""
Metric files to read: many processes of one node, in our format and, with the same numbers, in that of prometheus_client.
"""

from __future__ import annotations

import itertools
import os

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from celery_obs.areas.tasks.metrics import FAILURES
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import WORD
from celery_obs.recorder.layout import Layout, width
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.recorder.slots import Node, Slot
from celery_obs.vocabulary.spec import Metric


__all__ = ["NODE", "Fleet", "lay_out", "write_stock"]


NODE: Final = "worker@bench"


def lay_out(recorder: Recorder, *, lines: int) -> None:
    """
    Declare series of tasks until they show as *lines* lines of text: all the metrics of an attempt, and failures for the rest.
    """
    meter = AttemptMeter(recorder)
    assert recorder.node is not None
    layout = recorder.node.layout
    meter.prepare([("shop.tasks.task_0", "celery")])
    one = _lines(layout)
    meter.prepare([(f"shop.tasks.task_{number}", "celery") for number in range(1, lines // one)])
    failures = [(FAILURES, (f"shop.tasks.task_{number}", "celery", "ValueError", "false")) for number in range(lines - _lines(layout))]
    recorder.declare(failures)


def _lines(layout: Layout) -> int:
    return sum(width(series.family) + (series.family.kind == "histogram") for series in layout)


class Fleet:
    """
    A node with many slots, each held by another process, whose numbers this process may change.

    Args:
        folder: The metrics directory.

        slots: How many.

        lines: Lines of text that each one's series show as.
    """

    def __init__(self, folder: Path, *, slots: int, lines: int) -> None:
        recorder = Recorder(folder, identify=lambda: Identity(node=NODE, role="child", number=1, attempts=1), label_limit=1 << 16)
        recorder.open()
        lay_out(recorder, lines=lines)
        assert recorder.node is not None
        self.folder = recorder.node.folder
        self.layout = recorder.node.layout
        recorder.close()
        self._holder, self._leave = self._hold(folder, slots)
        self.slots = [Slot(number, os.open(self.folder / f"slot-{number}", os.O_RDWR)) for number in range(1, slots + 1)]
        self._steps = itertools.count(1)
        self.change()

    @staticmethod
    def _hold(folder: Path, slots: int) -> tuple[int, int]:
        """
        Have a child make and own the slots, for a process's own locks do not show.
        """
        ready, said = os.pipe()
        stay, leave = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(leave)
            node = Node(folder, NODE, gauges=64)
            for number in range(1, slots + 1):
                node.claim(number, records=1)
            os.write(said, b"1")
            os.read(stay, 1)
            os._exit(0)
        os.close(stay)
        os.close(said)
        os.read(ready, 1)
        os.close(ready)
        return pid, leave

    def change(self) -> None:
        """
        Count up every lane of every slot.
        """
        step = next(self._steps)
        lanes = self.layout.lanes
        for slot in self.slots:
            words, at = slot.words, slot.lanes_at
            words[at : at + lanes] = memoryview(
                bytes(0).join((step * 7 + slot.number + lane % 5).to_bytes(WORD, "little") for lane in range(lanes))
            ).cast("q")

    def close(self) -> None:
        """
        Let the owner go and close the files.
        """
        os.close(self._leave)
        os.waitpid(self._holder, 0)
        for slot in self.slots:
            slot.close()


def write_stock(fleet: Fleet, folder: Path) -> None:
    """
    Write the numbers of *fleet* as prometheus_client's processes write theirs: one file a kind of metric and process.
    """
    for slot in fleet.slots:
        files = {kind: MmapedDict(str(folder / f"{kind}_{slot.number}.db")) for kind in ("counter", "histogram")}
        for family, values, at in fleet.layout:
            lanes = slot.words[slot.lanes_at + at : slot.lanes_at + at + width(family)].tolist()
            file = files[family.kind]
            for key, value in _stock_values(family, values, lanes):
                file.write_value(key, value, 0.0)
        for file in files.values():
            file.close()


def _stock_values(family: Metric, values: tuple[str, ...], lanes: list[int]) -> Iterator[tuple[str, float]]:
    if family.kind == "counter":
        yield (
            mmap_key(family.name.removesuffix("_total"), family.name, [*family.labels], [*values], family.help),
            lanes[0] * family.resolution,
        )
        return
    for bound, count in zip((*map(repr, family.buckets), "+Inf"), lanes, strict=False):
        yield mmap_key(family.name, f"{family.name}_bucket", [*family.labels, "le"], [*values, bound], family.help), float(count)
    yield mmap_key(family.name, f"{family.name}_sum", [*family.labels], [*values], family.help), lanes[-1] / round(1 / family.resolution)
