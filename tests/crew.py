"""
A crew: several processes that do what a test tells them, one call at a time or all at once.
"""

from __future__ import annotations

import multiprocessing
import time

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from typing_extensions import Self


__all__ = ["Crew", "Hammer", "breakers_of", "limits_of"]


_PATIENCE = 60


def breakers_of(url: str, **options: Any) -> Any:
    """
    Make a process' breakers.
    """
    from celery_obs.areas.channels.breakers.state import Breakers
    from celery_obs.state.connection import connect

    return Breakers(connect(url), **options)


def limits_of(url: str) -> Any:
    """
    Make a process' rate limits.
    """
    from celery_obs.areas.channels.rate_limits.state import RateLimits
    from celery_obs.state.connection import connect

    return RateLimits(connect(url))


class Hammer:
    """
    Calls one channel as often as it is allowed to.

    Args:
        url: Of Redis.

        folder: For the engine.

        channels: The setting.

        ahead: Seconds by which this process' clock is wrong.
    """

    def __init__(self, url: str, folder: str, channels: Mapping[str, Any], ahead: float = 0.0) -> None:
        from celery_obs.areas.channels import engine
        from celery_obs.areas.channels.policies import policies
        from celery_obs.runtime.hub import Hub
        from celery_obs.settings import Settings
        from celery_obs.testing import RaisingErrors

        settings = Settings(metrics_dir=Path(folder), redis_url=url, channels=policies(channels))
        made = engine.Engine(hub=Hub(on_error=RaisingErrors()), settings=settings, clock=lambda: time.time() + ahead)
        engine.connect(lambda: made)

    def hammer(self, connection_id: str, *, seconds: float, wait: float) -> list[tuple[float, float]]:
        """
        Return of each call that was allowed when it was asked for, and when the answer was there.
        """
        from celery_obs.areas.channels.errors import RateLimitError
        from celery_obs.areas.channels.rate_limits import api as rate_limiter

        allowed: list[tuple[float, float]] = []
        end = time.monotonic() + seconds
        while (asked := time.monotonic()) < end:
            try:
                rate_limiter.acquire("airbnb", connection_id, wait=wait)
            except RateLimitError:
                continue
            allowed.append((asked, time.monotonic()))
        return allowed


class Crew:
    """
    Processes that share nothing but what they are told; a context manager.

    Args:
        size: How many.

        make: Is called in each of them, with *arguments* and *options*, and returns what the test's calls are for.  A function of a module.
    """

    def __init__(self, size: int, make: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        # Fresh interpreters would spend most of a test's time on imports.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            [
                "__main__",
                "celery_obs.areas.channels.breakers.state",
                "celery_obs.areas.channels.rate_limits.state",
                "redis.cluster",
                "tests.crew",
            ]
        )
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, make, arguments, options), daemon=True)
            self._ends.append(ours)
            self._processes.append(process)
            process.start()
            theirs.close()

    def __len__(self) -> int:
        return len(self._ends)

    def call(self, number: int, method: str, *arguments: Any, **keywords: Any) -> Any:
        """
        Have one of them call a method, and return or raise what that does.
        """
        self._ends[number].send((method, arguments, keywords))
        return self._result(number)

    def all_call(self, method: str, *arguments: Any, **keywords: Any) -> list[Any]:
        """
        Have all of them call a method at once.
        """
        for end in self._ends:
            end.send((method, arguments, keywords))
        return [self._result(number) for number in range(len(self._ends))]

    def _result(self, number: int) -> Any:
        assert self._ends[number].poll(_PATIENCE), f"Process {number} of the crew does not answer."
        result, error = self._ends[number].recv()
        if error is not None:
            raise error
        return result

    def kill(self, number: int) -> None:
        """
        End one of them as the OOM killer would.
        """
        self._processes[number].kill()
        self._processes[number].join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process, end in zip(self._processes, self._ends, strict=True):
            end.close()
            process.kill()
            process.join()
            process.close()


def _work(end: Connection, make: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    made = make(*arguments, **options)
    while True:
        try:
            method, given, keywords = end.recv()
        except EOFError:
            return
        try:
            end.send((getattr(made, method)(*given, **keywords), None))
        except Exception as error:  # noqa: BLE001 -- the test's to judge.
            end.send((None, error))
