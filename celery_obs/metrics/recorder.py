"""
The recorder: from a metric and its label values to the words of memory that hold the numbers.

One a process.  It claims a slot when it is first needed, gives each label set a place in the layout, folds labels that are over their limit,
and switches itself off, with one line in the log, when there is no disk or no folder to write to.

Forks: a child starts without a slot and claims its own at its first metric; what the parent knew of the layout is inherited.
"""

from __future__ import annotations

import logging
import os
import threading

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from celery_obs.exceptions import CeleryObsError
from celery_obs.vocabulary.ourselves import DROPPED, INTERNAL_ERRORS, LABELS_FOLDED
from celery_obs.vocabulary.spec import OTHER, Metric

from .exemplars import PLACES, Exemplars
from .format import Gauge, Header
from .layout import width
from .slots import Node, Slot


__all__ = ["Identity", "Recorder", "Role"]


Role = str
"""
What a process is: ``worker``, ``child``, ``beat`` or ``publisher``.
"""

_ROLES = ("worker", "child", "beat", "publisher")
_LONGEST_LABEL = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """
    Who a process is, for the metric files.

    Attributes:
        node: Name of the node.

        role: What the process does.

        number: The slot that it should take; None for the lowest free one.

        attempts: How many attempts it may run at once; 0 for a process that runs none.
    """

    node: str
    role: Role
    number: int | None = None
    attempts: int = 0


class Recorder:
    """
    Record numbers for this process.

    Args:
        metrics_dir: Where the nodes' folders are.

        identify: Tells who this process is; asked when a slot is claimed.

        label_limit: Distinct values a label may have, per metric.

        lane_limit: Lanes that a node may have in all.

        gauge_limit: Gauges that a process may have.

    Attributes:
        epoch: Changes whenever bindings made before are no longer good.

        shares_hash_seed: Whether strings hash as in the node's main process: everywhere but in a spawned child.

        exemplar: Returns the id of the trace that the calling thread is in, if that is recorded, else 0; None where nothing traces.
            Set it before a slot is claimed: without it none has room for exemplars.

        exemplars: Keeps exemplars in this process's slot; None where nothing traces, or no slot is claimed yet.
    """

    def __init__(
        self,
        metrics_dir: Path,
        *,
        identify: Callable[[], Identity],
        label_limit: int = 200,
        lane_limit: int = 1 << 18,
        gauge_limit: int = 1024,
    ) -> None:
        self.metrics_dir = metrics_dir
        self.identify = identify
        self.label_limit = label_limit
        self.lane_limit = lane_limit
        self.gauge_limit = gauge_limit
        self.node: Node | None = None
        self.slot: Slot | None = None
        self.role: Role = "publisher"
        self.is_off = False
        self.shares_hash_seed = True
        self.exemplar: Callable[[], int] | None = None
        self.exemplars: Exemplars | None = None
        self.epoch = object()
        self.on_claim: list[Callable[[Node, Slot], None]] = []
        self._pid = 0
        self._lock = threading.RLock()

    # -- having a slot ----------------------------------------------------------------------------------------------

    def ready(self) -> bool:
        """
        Tell whether numbers can be recorded, claiming a slot first if this process has none yet.
        """
        return (self.slot is not None and not self.is_off) or (not self.is_off and self._claim())

    def open(self) -> None:
        """
        Claim a slot now, and let errors through: for start-up, where a person reads them.

        Raises:
            OSError: when the folder or the disk does not allow it.

            CeleryObsError: when the files there are not what they should be.
        """
        with self._lock:
            if self.slot is not None:
                return
            identity = self.identify()
            if self.node is None or self.node.name != identity.node:
                self.node = Node(self.metrics_dir, identity.node, gauges=self.gauge_limit)
            self.node.file.refresh()
            slot = self.node.claim(identity.number, records=identity.attempts, exemplars=PLACES if self.exemplar is not None else 0)
            slot.reserve(self.node.layout.lanes)
            self.role = identity.role
            for listener in self.on_claim:
                listener(self.node, slot)
            self._take_over(slot)
            self.slot = slot
            self.exemplars = Exemplars(slot, self.exemplar) if self.exemplar is not None else None
            self.epoch = object()

    def _claim(self) -> bool:
        try:
            self.open()
        except (OSError, CeleryObsError) as exc:
            self.switch_off(exc)
        return self.slot is not None

    def _take_over(self, slot: Slot) -> None:
        words = slot.words
        assert self.node is not None  # noqa: S101 -- set by the only caller.
        for place in range(min(slot.gauges, self.node.layout.gauges)):
            if place not in self.node.layout.lasting:
                words[slot.gauges_at + place * Gauge.WORDS + Gauge.SET_AT] = 0
        words[Header.EXIT] = 0
        words[Header.PID] = os.getpid()
        words[Header.PARENT_PID] = os.getppid()
        words[Header.ROLE] = _ROLES.index(self.role)
        words[Header.GENERATION] += 1
        words[Header.LANES_USED] = max(words[Header.LANES_USED], min(self.node.layout.lanes, slot.lanes))

    def switch_off(self, error: Exception) -> None:
        """
        Record nothing from here on, and say why, once.
        """
        if not self.is_off:
            self.is_off = True
            self.epoch = object()
            logging.getLogger("celery_obs").error(
                "celery_obs: metrics are off in process %d: %s (metrics_dir is %s). Your tasks are not affected. Restart the process when that is mended.",
                os.getpid(),
                error,
                self.metrics_dir,
            )

    def forget_parent(self) -> None:
        """
        Let go of the slot that belongs to the parent, in a child that was just forked.
        """
        self._lock = threading.RLock()
        self.slot = self.exemplars = None
        self.epoch = object()
        if self.node is not None:
            self.node = self.node.abandon()

    def close(self) -> None:
        """
        Give the slot back.
        """
        with self._lock:
            if self.slot is not None:
                self.slot.close()
                self.slot = self.exemplars = None
            if self.node is not None:
                self.node.close()
                self.node = None
            self.epoch = object()

    # -- having places ----------------------------------------------------------------------------------------------

    def word(self, metric: Metric, values: tuple[str, ...]) -> int | None:
        """
        Return the index of a series' first word in `words`, declaring the series if it is new; None when there is no room or no slot.

        Labels beyond their limit are folded, and that is counted here: ask once per observation, or keep the answer if `is_known`.
        """
        if not self.ready():
            return None
        found = self._find(metric, values)
        if found is None:
            folded = self._fold(metric, values)
            if folded != values and metric is not LABELS_FOLDED:
                self.count(LABELS_FOLDED, (metric.name,))
            found = self._find(metric, folded)
            if found is None and self._declare([(metric, folded)]):
                found = self._find(metric, folded)
        if found is None and metric is not DROPPED:
            self.count(DROPPED, ("no_room",))
        return found

    def is_known(self, metric: Metric, values: tuple[str, ...]) -> bool:
        """
        Tell whether the label set has a place of its own, so that what `word` returns for it stays right.
        """
        return self.node is not None and self.node.layout.place(metric, values) is not None

    def declare(self, wanted: Iterable[tuple[Metric, tuple[str, ...]]]) -> None:
        """
        Give places to many series at once, whatever the limits of their labels: for label sets that are known to be bounded.
        """
        if self.ready():
            self._declare(list(wanted))

    def count(self, metric: Metric, values: tuple[str, ...], amount: int = 1) -> None:
        """
        Add *amount* steps to a counter.
        """
        word = self.word(metric, values)
        if word is not None and self.slot is not None:
            self.slot.words[word] += amount

    def count_error(self, component: str) -> None:
        """
        Count an error of ours.
        """
        self.count(INTERNAL_ERRORS, (component,))

    def set(self, metric: Metric, values: tuple[str, ...], value: float, *, at: float) -> None:
        """
        Set a gauge.

        Args:
            metric: The gauge.

            values: Its label values.

            value: The new value.

            at: Seconds since the epoch.
        """
        word = self.word(metric, values)
        if word is not None and self.slot is not None:
            self.slot.floats[word + Gauge.VALUE] = value
            self.slot.words[word + Gauge.SET_AT] = int(at * 1e6)

    def clear(self, metric: Metric, *, keep: frozenset[str]) -> None:
        """
        Take away the series of a gauge of this process whose first label is not in *keep*: what they describe is gone.
        """
        if not self.ready() or self.node is None or self.slot is None:
            return
        for values, place in self.node.layout.places(metric):
            if values[0] not in keep and place < self.slot.gauges:
                self.slot.words[self.slot.gauges_at + place * Gauge.WORDS + Gauge.SET_AT] = 0

    def _find(self, metric: Metric, values: tuple[str, ...]) -> int | None:
        node, slot = self.node, self.slot
        place = None if node is None else node.layout.place(metric, values)
        if place is None or node is None or slot is None:
            return None
        if metric.kind == "gauge":
            return slot.gauges_at + place * Gauge.WORDS if place < slot.gauges else None
        if place + width(metric) > slot.lanes and not self._reserve(slot, node.layout.lanes):
            return None
        # Others of the node may have laid out more than this slot has room for so far.
        slot.words[Header.LANES_USED] = max(slot.words[Header.LANES_USED], min(node.layout.lanes, slot.lanes))
        return slot.lanes_at + place

    def _reserve(self, slot: Slot, lanes: int) -> bool:
        try:
            slot.reserve(lanes)
        except OSError:
            return False
        return True

    def _declare(self, wanted: list[tuple[Metric, tuple[str, ...]]]) -> bool:
        node = self.node
        if node is None or node.layout.lanes + sum(width(metric) for metric, _ in wanted) > self.lane_limit:
            return False
        with self._lock:
            try:
                node.file.declare(wanted)
            except OSError as exc:
                self.complain(exc)
                return False
        return True

    def _fold(self, metric: Metric, values: tuple[str, ...]) -> tuple[str, ...]:
        if self.node is None:
            return values
        return tuple(
            value if value in seen or (len(seen) < self.label_limit and len(value) <= _LONGEST_LABEL and _is_whole(value)) else OTHER
            for seen, value in zip(self.node.layout.values(metric), values, strict=True)
        )

    def complain(self, error: OSError) -> None:
        """
        Say, once a process, that new series find no room.
        """
        if self._pid != os.getpid():
            self._pid = os.getpid()
            logging.getLogger("celery_obs").error(
                "celery_obs: new series cannot be recorded in process %d: %s (metrics_dir is %s). Those known so far go on.",
                os.getpid(),
                error,
                self.metrics_dir,
            )


def _is_whole(value: str) -> bool:
    """
    Tell whether *value* can be written as UTF-8: half of a surrogate pair would spoil the whole page.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
