"""
Sync runs: a block of code that moves data between us and a channel, and how it ended.

::

    with celery_obs.sync_run("airbnb", "availability_export", connection_id=account.id) as run:
        for listing in listings:
            run.updated(push(listing))

The outcome is the block's: an exception is a failure, Celery's ``Retry`` a retry, its ``Ignore`` and ``Reject`` a run that was skipped,
and a run that came to its end with records that failed is partial.  Where the block knows better it says so: `Run.partial`, `Run.skip`, `Run.fail`.

Nothing here raises into the block, or waits.  What Python itself refuses, such as a missing argument, it refuses at once; a value that makes no sense
is counted in ``celery_obs_dropped_total{reason="bad_value"}`` and left out.
"""

from __future__ import annotations

import contextlib
import operator

from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.connections.fact_writer import ConnectionFactWriter
from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.errors import describe
from celery_obs.areas.sidecar.events import ObservationDropped

from .events import SyncFinished, SyncStarted
from .metrics import STATUSES, SyncStatus


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["UNKNOWN", "Run", "SyncResult", "sync_run"]


UNKNOWN: Final = "_unknown"
"""
The label value of a channel or a sync that was given none.
"""

_MOST: Final = 1 << 50
_CONTROL: Final[dict[tuple[str, str], SyncStatus]] = {
    ("celery.exceptions", "Retry"): "retry",
    ("celery.exceptions", "Ignore"): "skipped",
    ("celery.exceptions", "Reject"): "skipped",
    ("celery_obs.areas.channels.syncs.sync_task", "HeldBack"): "held_back",
}
_new = tuple.__new__  # Half the cost of a named tuple's own constructor, which is a Python function.


class SyncResult(NamedTuple):
    """
    What a sync did, as the return value of a `celery_obs.SyncTask`.

    Attributes:
        created, updated, failed, skipped: Records, by what became of them.

        status: The outcome, if the counts do not say it; by default partial where records failed, else success.

        connection_id: The connection, if the task's arguments do not name it; known too late for the events of the run.

    Since 0.1.
    """

    created: int = 0
    updated: int = 0
    failed: int = 0
    skipped: int = 0
    status: SyncStatus | None = None
    connection_id: str = ""


class Run:
    """
    One run; made by `sync_run`, good for one ``with``.

    Threads: each thread makes runs of its own; counting records of one run in several threads is safe under the GIL.
    """

    __slots__ = (
        "_began",
        "_channel",
        "_connection",
        "_created",
        "_direction",
        "_engine",
        "_failed",
        "_reason",
        "_skipped",
        "_started",
        "_status",
        "_sync",
        "_updated",
    )

    def __init__(self, channel_type: str, sync_type: str, direction: str, connection_id: str) -> None:
        self._engine = engine.current()
        self._channel = channel_type if type(channel_type) is str and channel_type else self._mend(channel_type)
        self._sync = sync_type if type(sync_type) is str and sync_type else self._mend(sync_type)
        self._direction = direction if type(direction) is str and direction else self._mend(direction)
        self._connection = connection_id if type(connection_id) is str else self._mend(connection_id, missing="")
        self._created = self._updated = self._failed = self._skipped = 0
        self._status: SyncStatus | None = None
        self._reason: BaseException | str = ""
        self._started: SyncStarted | None = None
        self._began = 0.0

    # -- what the block tells -------------------------------------------------------------------------------------------

    def created(self, count: int = 1) -> None:
        """
        Count records that are new on the side that was written to.
        """
        self._created += self._checked(count, self._created)

    def updated(self, count: int = 1) -> None:
        """
        Count records that were changed.
        """
        self._updated += self._checked(count, self._updated)

    def failed(self, count: int = 1) -> None:
        """
        Count records that could not be moved; the run is partial then.
        """
        self._failed += self._checked(count, self._failed)

    def skipped(self, count: int = 1) -> None:
        """
        Count records that needed nothing.
        """
        self._skipped += self._checked(count, self._skipped)

    def records(self, *, created: int = 0, updated: int = 0, failed: int = 0, skipped: int = 0) -> None:
        """
        Count records of several kinds at once.
        """
        self.created(created)
        self.updated(updated)
        self.failed(failed)
        self.skipped(skipped)

    def partial(self) -> None:
        """
        Say that not everything was moved, though the block comes to its end.
        """
        self._status = "partial"

    def skip(self, reason: str = "") -> None:
        """
        Say that there was nothing to do, and why.
        """
        self._status, self._reason = "skipped", reason

    def fail(self, error: BaseException | str = "") -> None:
        """
        Say that the run failed, though the block raises nothing.
        """
        self._status, self._reason = "failure", error

    def take(self, result: SyncResult) -> None:
        """
        Take over what a task returned.
        """
        self.records(created=result.created, updated=result.updated, failed=result.failed, skipped=result.skipped)
        if result.status in STATUSES:
            self._status = result.status
        elif result.status is not None:
            self._complain()
        if result.connection_id:
            self._connection = str(result.connection_id)

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """
        Begin.
        """
        found = self._engine
        self._started = started = _new(SyncStarted, (self._channel, self._sync, self._direction, self._connection, found.clock()))
        found.hub.emit(started)
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """
        Say how it went; what the block raised goes on.
        """
        started, self._started = self._started, None
        if started is None:
            return
        duration = perf_counter() - self._began
        if error is None and self._status is None:
            status: SyncStatus = "partial" if self._failed else "success"
            name = message = ""
        else:
            status, name, message = self._judge(error)
        hub = self._engine.hub
        hub.emit(_new(SyncFinished, (started, status, duration, self._created, self._updated, self._failed, self._skipped, name, message)))
        if self._connection:
            self._note(status)

    def _judge(self, error: BaseException | None) -> tuple[SyncStatus, str, str]:
        if error is None:
            status = self._status or "success"
            if not self._reason:
                return status, "", ""
            name, message = describe(self._reason)
            return status, name if status == "failure" else "", message
        control = _control(error)
        if control is None:
            return ("failure", *describe(error))
        cause: Any = getattr(error, "exc", None) if control == "retry" else getattr(error, "reason", None)
        return (control, *(describe(cause) if cause is not None else ("", "")))

    def _note(self, status: SyncStatus) -> None:
        """
        Tell the cluster how the connection fares; a run that was skipped, held back, or is tried again, says nothing of it.
        """
        found = self._engine
        if status == "failure":
            found.hub.emit(ConnectionErrored(self._channel, self._connection))
        if found.redis is None or status in {"skipped", "retry", "held_back"}:
            return
        try:
            writer = found.part(_writer)
            if status == "failure":
                writer.errored(self._connection)
            else:
                writer.synced(self._connection, at=found.clock())
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            found.hub.on_error(exc, component="sync.runs")

    # -- what makes no sense ------------------------------------------------------------------------------------------

    def _checked(self, count: int, before: int) -> int:
        try:
            number = operator.index(count)
        except TypeError:
            number = -1
        if 0 <= number < _MOST - before:
            return number
        self._complain()
        return 0

    def _mend(self, value: Any, *, missing: str = UNKNOWN) -> str:
        """
        Make a label of what is no text: of ids that are numbers, of enums, of nothing.
        """
        text = ""
        with contextlib.suppress(Exception):  # A user's __str__; it is counted below.
            text = str(getattr(value, "value", value)) if value is not None else ""
        if not text:
            self._complain()
        return text or missing

    def _complain(self) -> None:
        self._engine.hub.emit(ObservationDropped("bad_value"))


def sync_run(channel_type: str, sync_type: str, direction: str = "outbound", *, connection_id: str = "") -> Run:
    """
    Observe the block as one sync run.

    Args:
        channel_type: The channel.

        sync_type: What is synchronised, such as ``availability_export``.

        direction: ``outbound`` or ``inbound``, as a rule.

        connection_id: The connection.  With it and a Redis the cluster keeps its last sync and its consecutive failures.

    Since 0.1.
    """
    return Run(channel_type, sync_type, direction, connection_id)


def _control(error: BaseException) -> SyncStatus | None:
    """
    Return what one of Celery's control-flow exceptions says, known by name: this module works without Celery.
    """
    for kind in type(error).__mro__:
        status = _CONTROL.get((kind.__module__, kind.__name__))
        if status is not None:
            return status
    return None


def _writer(found: Engine) -> ConnectionFactWriter:
    assert found.redis is not None  # noqa: S101 -- asked by the only caller.
    return ConnectionFactWriter(
        found.redis,
        on_drop=lambda: found.hub.emit(ObservationDropped("state_unreachable")),
        on_refusal=lambda error: found.hub.on_error(error, component="sync.runs"),
    )
