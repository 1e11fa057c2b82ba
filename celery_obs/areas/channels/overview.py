"""
The state of the whole cluster at one moment, for those who show it: the exporter's page and API, and the commands.
"""

from __future__ import annotations

import threading
import time

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from celery_obs.clock import Clock, wall
from celery_obs.state import hashes, keys

from .breakers.metrics import BreakerState
from .breakers.state import Breakers
from .connections.metrics import STATUSES, ConnectionStatus
from .connections.state import Facts, Snapshot
from .pauses.state import PauseInfo, Pauses
from .state import Channels


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["MOST_CHANNELS", "Overview", "OverviewReader", "RateCount"]


MOST_CHANNELS: Final = 500
"""
Channels that are asked about at most; there are a few dozens in the world, and each has a breaker to read.
"""

FAILED_FOR: Final = 1.0
"""
Seconds for which a Redis that could not be read is not asked again.
"""

_COUNTS_LAST: Final = 60.0
"""
Seconds after which a count of a sliding window says nothing any more.
"""


class RateCount(NamedTuple):
    """
    How much of a rate limit is used.

    Attributes:
        used: Calls in the window.

        most: Calls that it may hold; None where unknown.
    """

    used: int
    most: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """
    What is known; ``STATUSES`` are those that a connection may have.

    Attributes:
        snapshot: Of the connections.

        channels: All that are known, in order of their names.

        breakers: Their breakers' states.

        pauses: Those of them that are paused.

        rate_limits: By channel and connection, the latter empty for the whole channel.
    """

    STATUSES: ClassVar[tuple[ConnectionStatus, ...]] = STATUSES

    snapshot: Snapshot
    channels: tuple[str, ...]
    breakers: Mapping[str, BreakerState]
    pauses: Mapping[str, PauseInfo]
    rate_limits: Mapping[tuple[str, str], RateCount]


class OverviewReader:
    """
    Reads it, again and again: what did not change since the last time costs less.

    Args:
        redis: A client.

        clock: Tells the time.

    Threads: safe, as the client is; those who ask at once share one read, so that a Redis that is away costs them one time-out together.
    """

    def __init__(self, redis: Redis, *, clock: Clock = wall) -> None:
        self._redis: Any = redis
        self._clock = clock
        self._facts = Facts(redis)
        self._lock = threading.Lock()
        self._reading: Future[Overview] | None = None
        self._failed: tuple[float, Exception] | None = None

    def read(self) -> Overview:
        """
        Read everything, or take what another thread is reading; raises what the client raises, for a second what it raised a moment ago.
        """
        with self._lock:
            if self._failed is not None and time.monotonic() < self._failed[0] + FAILED_FOR:
                raise self._failed[1].with_traceback(None)
            mine: Future[Overview] | None = None
            reading = self._reading
            if reading is None:
                reading = self._reading = mine = Future()
        if mine is not None:
            self._read_for(mine)
        return reading.result()

    def _read_for(self, those_who_wait: Future[Overview]) -> None:
        failed: tuple[float, Exception] | None = None
        try:
            those_who_wait.set_result(self._read())
        except BaseException as error:  # noqa: BLE001 -- they are told, each of them.
            failed = (time.monotonic(), error) if isinstance(error, Exception) else None
            those_who_wait.set_exception(error)
        finally:
            with self._lock:
                self._reading, self._failed = None, failed

    def _read(self) -> Overview:
        """
        Read everything, in five round trips however much there is.
        """
        snapshot = self._facts.snapshot()
        used = {connection.channel_type for connection in snapshot.connections.values()}
        known = Channels(self._redis).known()
        channels = tuple(sorted({*known, *used, *snapshot.last_runs})[:MOST_CHANNELS])
        counts = hashes.fields(hashes.read(self._redis, keys.RATE_LIMITS))
        return Overview(
            snapshot=snapshot,
            channels=channels,
            breakers={channel: view.state for channel, view in Breakers(self._redis).states(channels).items()},
            pauses=Pauses(self._redis).paused(channels),
            rate_limits=dict(_rate_limits(counts, now=self._clock())),
        )


def _rate_limits(written: Mapping[str, str], *, now: float) -> Iterable[tuple[tuple[str, str], RateCount]]:
    for name, value in zip(hashes.objects(written.keys()), hashes.objects(written.values()), strict=True):
        try:
            channel, connection = name
            used, most, at = value["count"], value["max"], value["at"]
        except (TypeError, ValueError, KeyError):
            continue  # None of ours.
        if (
            type(name) is list
            and type(channel) is type(connection) is str
            and _is_number(used)
            and _is_number(at)
            and -_COUNTS_LAST < now - at < _COUNTS_LAST
        ):
            yield (channel, connection), RateCount(int(used), int(most) if _is_number(most) else None)


def _is_number(value: object) -> bool:
    return (type(value) is int or type(value) is float) and -_NO_COUNT < value < _NO_COUNT


_NO_COUNT: Final = 1 << 63
