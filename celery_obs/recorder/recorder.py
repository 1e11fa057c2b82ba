"""
The recorder: from a metric and its label values to the words of memory that hold the numbers.

One a process.  It claims a slot when it is first needed, gives each label set a place in the layout, folds labels that are over their limit,
and switches itself off, with one line in the log, when there is no disk or no folder to write to.

Forks: a child starts without a slot and claims its own at its first metric; what the parent knew of the layout is inherited.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import threading

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from celery_obs.areas.sidecar.metrics import DROPPED, INTERNAL_ERRORS, LABELS_FOLDED
from celery_obs.exceptions import LayoutError
from celery_obs.throttle import LogThrottle
from celery_obs.vocabulary.spec import OTHER, Metric, is_utf8

from .exemplars import PLACES, Exemplars
from .format import MOST_GAUGES, SHORTAGE, Exit, Gauge, Header
from .layout import MOST_LANES, width
from .metrics_dir import prepare_metrics_dir
from .opening import explain, replace_file
from .ring import AttemptRing, shape_of
from .slots import Node, Slot, tell_cut_off


__all__ = ["UNDECLARED_LANES", "Identity", "Recorder", "Role", "Wanted"]


Role = str
"""
What a process is: ``worker``, ``child``, ``beat`` or ``publisher``.
"""

Wanted: TypeAlias = tuple[Metric, tuple[str, ...]]
"""
A series that is to have a place: its metric and its label values.
"""

UNDECLARED_LANES: Final = 1 << 18
"""
Lanes that a node has for series that nothing declares, where no ``lane_limit`` is set.
"""

_ROLES = ("worker", "child", "beat", "publisher")
_LONGEST_LABEL = 500
_TRIES: Final = 5
_FEW_LANES: Final = 1 << 15
"""
Lanes, 256 KiB of them, whose disk space a process takes when it claims its slot, so that it counts on when the disk is full later.
"""
_GENERATIONS: Final = 1 << 62
_PORTION: Final = 4096  # Series that are written to the layout at once.
_MOST_ENTRIES: Final = 10_000
_OWN_LABELS: Final = frozenset({"state", "worker", "slot", "exhausted"})  # Their values are ours, and few.


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

        label_limit: Distinct values that a label may have, per metric, besides those that *declares* knows.

        lane_limit: Lanes that a node may have in all; None for as many as what is declared takes, and `UNDECLARED_LANES` for all else.

        gauge_limit: Gauges that a process may have.

        attempt_bytes: How many bytes a process keeps of its latest attempts, see `celery_obs.recorder.ring`; 0 for none.

    Attributes:
        epoch: Changes whenever bindings made before are no longer good.

        shares_hash_seed: Whether strings hash as in the node's main process: everywhere but in a spawned child.

        exemplar: Returns the id of the trace that the calling thread is in, if that is recorded, else 0; None where nothing traces.
            Set it before a slot is claimed: without it none has room for exemplars.

        exemplars: Keeps exemplars in this process's slot; None where nothing traces, or no slot is claimed yet.

        ring: Keeps the latest attempts of this process; None where none are kept, or no slot is claimed yet.

        declares: Tells of a label and a value whether the app declares it: its tasks, its queues, its schedule's entries.  Those are never folded.
    """

    def __init__(
        self,
        metrics_dir: Path,
        *,
        identify: Callable[[], Identity],
        label_limit: int = 200,
        lane_limit: int | None = None,
        gauge_limit: int = MOST_GAUGES,
        attempt_bytes: int = 0,
    ) -> None:
        self.metrics_dir = metrics_dir
        self.attempt_bytes = attempt_bytes
        self.identify = identify
        self.label_limit = label_limit
        self.lane_limit = lane_limit
        self.gauge_limit = min(gauge_limit, MOST_GAUGES)
        self.declares: Callable[[str, str], bool] = _declares_nothing
        self.node: Node | None = None
        self.slot: Slot | None = None
        self.role: Role = "publisher"
        self.is_off = False
        self.shares_hash_seed = True
        self.exemplar: Callable[[], int] | None = None
        self.exemplars: Exemplars | None = None
        self.ring: AttemptRing | None = None
        self.epoch = object()
        self.on_claim: list[Callable[[Node, Slot], None]] = []
        self._complaints = LogThrottle(every=math.inf)
        self._undeclared: tuple[Node | None, int, int] = (None, 0, 0)
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
            self.node, slot = self._join(identity)
            slot.reserve(self.node.layout.lanes)
            self.role = identity.role
            if self.node.layout.lanes <= _FEW_LANES:
                self._try(slot.back_all, self.node.layout.lanes)
            for listener in self.on_claim:
                self._try(listener, self.node, slot)
            self.ring = self._open_ring(self.node, slot)  # After what its last owner left in it is counted.
            self._take_over(slot)
            if identity.role == "worker":
                with contextlib.suppress(OSError):
                    (self.node.folder / SHORTAGE).unlink(missing_ok=True)  # What the last one lacked, this one may have.
            slot.mend()  # Notes the header as it is now.
            self.slot = slot
            self.exemplars = Exemplars(slot, self.exemplar) if self.exemplar is not None else None
            self.epoch = object()

    def _try(self, step: Callable[..., object], *args: object) -> None:
        """
        Do what a full disk may forbid, in a process that counts on whatever has its room.
        """
        try:
            step(*args)
        except OSError as exc:
            self.complain(exc)

    def _join(self, identity: Identity) -> tuple[Node, Slot]:
        """
        Open the node and claim a slot there; again in a new folder where the one that was found was retired at that very moment.
        """
        exemplars = PLACES if self.exemplar is not None else 0
        node = self.node
        if node is not None and node.name == identity.node:  # The parent's, whose own slot keeps it from being retired.
            node.file.refresh()
            return node, node.claim(identity.number, records=identity.attempts, exemplars=exemplars)
        prepare_metrics_dir(self.metrics_dir)
        for _ in range(_TRIES):
            node = Node(self.metrics_dir, identity.node, gauges=self.gauge_limit)
            try:
                slot = node.claim(identity.number, records=identity.attempts, exemplars=exemplars)
            except FileNotFoundError:
                node.close()
                continue
            if node.is_current():
                return node, slot
            slot.close()
            node.close()
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.metrics_dir / identity.node))

    def _open_ring(self, node: Node, slot: Slot) -> AttemptRing | None:
        """
        Open the ring of attempts beside the slot that this process just claimed; None where none is kept, or none can be.
        """
        shape = shape_of(self.attempt_bytes, rows=slot.records)
        if shape is None:
            return None
        try:
            ring = AttemptRing.open(node.folder, slot.number, layout_id=node.layout.layout_id or 0, shape=shape)
            ring.count_from_here()
        except (OSError, ValueError) as exc:
            self.complain(exc)
            return None
        return ring

    def _claim(self) -> bool:
        try:
            self.open()
        except Exception as exc:  # noqa: BLE001 -- never fail the observed, whatever lies in the directory.
            self.switch_off(exc)
        return self.slot is not None

    def mend(self) -> None:
        """
        Make sure that the file of this process is as long as it is mapped; for a process that looks around from time to time, before it does.
        """
        slot, node = self.slot, self.node
        if slot is None or node is None or self.is_off:
            return
        try:
            if slot.mend():
                tell_cut_off(node.folder / f"slot-{slot.number}")
            if self.ring is not None:
                self.ring.mend()
        except OSError as exc:
            self.switch_off(exc)

    def _take_over(self, slot: Slot) -> None:
        words = slot.words
        assert self.node is not None  # noqa: S101 -- set by the only caller.
        for place in slot.set_gauges(self.node.layout.gauges):
            if place not in self.node.layout.lasting:
                slot.unset_gauge(place)
        words[Header.EXIT] = 0
        words[Header.PID] = os.getpid()
        words[Header.PARENT_PID] = os.getppid()
        words[Header.ROLE] = _ROLES.index(self.role)
        words[Header.GENERATION] = (words[Header.GENERATION] + 1) % _GENERATIONS
        words[Header.LANES_USED] = max(words[Header.LANES_USED], min(self.node.layout.lanes, slot.lanes))

    def switch_off(self, error: Exception) -> None:
        """
        Record nothing from here on, and say why, once.
        """
        if not self.is_off:
            self.is_off = True
            self.epoch = object()
            logging.getLogger("celery_obs").error(
                "celery_obs: metrics are off in process %d: %s (metrics_dir is %s). Your tasks are not affected. Restart the process when this is fixed.",
                os.getpid(),
                explain(error, within=self.metrics_dir),
                self.metrics_dir,
            )

    def expect_end(self, pids: AbstractSet[int]) -> None:
        """
        Say of processes of this node that their pool takes them away, so that who follows in their slots is not counted as a replacement.
        """
        if self.node is None or self.slot is None or not pids:
            return
        for slot in self.node.others(self.slot):
            if slot.words[Header.PID] in pids:
                slot.words[Header.EXIT] = Exit.REMOVED

    def forget_parent(self) -> None:
        """
        Let go of the slot that belongs to the parent, in a child that was just forked.
        """
        self._lock = threading.RLock()
        self.slot = self.exemplars = self.ring = None
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
            if self.ring is not None:
                self.ring.close()
                self.ring = None
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
            if found is None and not self.is_known(metric, folded):
                found = self._place(metric, folded)
        if found is None and metric is not DROPPED:
            self.count(DROPPED, ("no_room",))
        return found

    def is_known(self, metric: Metric, values: tuple[str, ...]) -> bool:
        """
        Tell whether the label set has a place of its own, so that what `word` returns for it stays right.
        """
        return self.node is not None and self.node.layout.place(metric, values) is not None

    def declare(self, wanted: Iterable[Wanted]) -> None:
        """
        Give places to many series at once, whatever the limits of their labels: for label sets that are known to be bounded.
        """
        self.lay_out([series] for series in wanted)

    def lay_out(self, groups: Iterable[Sequence[Wanted]]) -> int:
        """
        Give places to the series of each group, or to none of it where there is no room for all; return how many groups have none.

        Says once a process what is lacking.
        """
        groups = list(groups)
        if not self.ready():
            return len(groups)
        node, left_out, lacking, pending = self.node, 0, 0, 0
        portion: list[Wanted] = []
        for group in groups:
            missing = [series for series in group if node is not None and node.layout.place(*series) is None]
            if self._fits(missing, pending=pending):
                portion += missing
                pending += _lanes_of(missing)
            else:
                left_out += 1
                lacking += _lanes_of(missing)
            if len(portion) >= _PORTION:
                self._declare(portion)
                portion, pending = [], 0
        if portion:
            self._declare(portion)
        if left_out and node is not None:
            self.lacks("lane_limit", node.layout.lanes + lacking)
        return left_out

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

    def clear(self, metric: Metric, *, keep: frozenset[str], label: int = 0) -> None:
        """
        Take away the series of a gauge of this process whose label number *label* is not in *keep*: what they describe is gone.
        """
        if not self.ready() or self.node is None or self.slot is None:
            return
        gone = {place for values, place in self.node.layout.places(metric) if values[label] not in keep}
        for place in gone.intersection(self.slot.set_gauges(self.node.layout.gauges)):
            self.slot.unset_gauge(place)

    def _find(self, metric: Metric, values: tuple[str, ...]) -> int | None:
        node, slot = self.node, self.slot
        place = None if node is None else node.layout.place(metric, values)
        if place is None or node is None or slot is None:
            return None
        if metric.kind == "gauge":
            if place >= slot.gauges:
                self.lacks("gauge_limit", node.layout.gauges)
                return None
            return self._backed(slot, slot.gauges_at + place * Gauge.WORDS, Gauge.WORDS)
        if place + width(metric) > slot.lanes and not self._reserve(slot, node.layout.lanes):
            return None
        # Others of the node may have laid out more than this slot has room for so far.
        slot.words[Header.LANES_USED] = max(slot.words[Header.LANES_USED], min(node.layout.lanes, slot.lanes))
        return self._backed(slot, slot.lanes_at + place, width(metric))

    def _place(self, metric: Metric, values: tuple[str, ...]) -> int | None:
        """
        Give a new series its place, and return its first word there.
        """
        if self._fits([(metric, values)]):
            return self._find(metric, values) if self._declare([(metric, values)]) else None
        if metric is not DROPPED and self.node is not None:
            self.lacks("lane_limit", self.node.layout.lanes + width(metric))
        return None

    def _backed(self, slot: Slot, word: int, words: int) -> int | None:
        try:
            slot.back(word, words)
        except OSError as exc:
            self.complain(exc)
            return None
        return word

    def _reserve(self, slot: Slot, lanes: int) -> bool:
        try:
            slot.reserve(lanes)
        except OSError:
            return False
        return True

    def _declare(self, wanted: list[Wanted]) -> bool:
        node = self.node
        if node is None:
            return False
        with self._lock:
            try:
                node.file.declare(wanted)
            except (OSError, LayoutError) as exc:
                self.complain(exc)
                return False
        return True

    def _fits(self, wanted: Sequence[Wanted], *, pending: int = 0) -> bool:
        """
        Tell whether there is room for *wanted*, none of which has a place yet, behind *pending* lanes that are about to be laid out.
        """
        node = self.node
        if node is None:
            return False
        lanes = node.layout.lanes + pending + _lanes_of(wanted)
        if lanes > MOST_LANES:
            return False
        if self.lane_limit is not None:
            return lanes <= self.lane_limit
        if lanes <= UNDECLARED_LANES:
            return True
        undeclared = _lanes_of(series for series in wanted if not self._is_declared(series))
        return not undeclared or self._undeclared_lanes(node) + undeclared <= UNDECLARED_LANES

    def _is_declared(self, series: Wanted) -> bool:
        metric, values = series
        return all(name in _OWN_LABELS or self.declares(name, value) for name, value in zip(metric.labels, values, strict=True))

    def _undeclared_lanes(self, node: Node) -> int:
        """
        Return how many lanes of the layout are for what nothing declares.
        """
        of, counted, lanes = self._undeclared
        if of is not node:
            counted = lanes = 0
        fresh = node.layout.series[counted:]
        lanes += _lanes_of((metric, values) for metric, values, _ in fresh if not self._is_declared((metric, values)))
        self._undeclared = (node, counted + len(fresh), lanes)
        return lanes

    def _fold(self, metric: Metric, values: tuple[str, ...]) -> tuple[str, ...]:
        if self.node is None:
            return values
        named = zip(metric.labels, self.node.layout.values(metric), values, strict=True)
        return tuple(value if value in seen or self._has_room(name, seen, value) else OTHER for name, seen, value in named)

    def _has_room(self, name: str, seen: AbstractSet[str], value: str) -> bool:
        if len(value) > _LONGEST_LABEL or not is_utf8(value):
            return False
        limit = max(self.label_limit, _MOST_ENTRIES) if name == "entry" else self.label_limit
        if len(seen) < limit or self.declares(name, value):
            return True
        return sum(not self.declares(name, known) for known in seen) < limit

    def complain(self, error: Exception) -> None:
        """
        Say, once a process, that new series find no room.
        """
        if self._complaints.allows(os.getpid(), "disk"):
            logging.getLogger("celery_obs").error(
                "celery_obs: new series cannot be recorded in process %d: %s (metrics_dir is %s). Those known so far go on.",
                os.getpid(),
                explain(error, within=self.metrics_dir),
                self.metrics_dir,
            )

    def lacks(self, setting: str, needed: int) -> None:
        """
        Say, once a process, which setting is too low and how much is needed; and leave word for the doctor.
        """
        given = {"lane_limit": self.lane_limit or UNDECLARED_LANES, "gauge_limit": self.gauge_limit}[setting]
        if self.node is None or not self._complaints.allows(os.getpid(), setting):
            return
        logging.getLogger("celery_obs").error(
            "celery_obs: new series cannot be recorded in process %d: %s is %d, and at least %d are needed. Set it to %d. "
            "Those known so far go on (metrics_dir is %s).",
            os.getpid(),
            setting,
            given,
            needed,
            2 * needed,
            self.metrics_dir,
        )
        line = json.dumps({"setting": setting, "given": given, "needed": needed}) + "\n"
        with contextlib.suppress(OSError):
            replace_file(self.node.folder / SHORTAGE, [line.encode()])


def _declares_nothing(label: str, value: str) -> bool:
    return False


def _lanes_of(wanted: Iterable[Wanted]) -> int:
    return sum(width(metric) for metric, _ in wanted if metric.kind != "gauge")
