"""
Work that many ask for at once is done once, and there is an end to how much waits.
"""

from __future__ import annotations

import asyncio

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar


T = TypeVar("T")

__all__ = ["BusyError", "SharedWork"]


class BusyError(Exception):
    """
    Too much waits already.
    """


class SharedWork:
    """
    Runs work in threads; who asks for what is under way gets what comes of that.

    Args:
        name: What the threads are called.

        threads: How many there are.

        most: Pieces of work that run and wait at once.

    Threads: used by the event loop only.
    """

    def __init__(self, name: str, *, threads: int, most: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._most = most
        self._under_way: dict[Hashable, asyncio.Future[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """
        Return what *work* returns, or what the work of the same *key* does that is under way.

        Raises:
            BusyError: if too much waits.
        """
        running: asyncio.Future[T] | None = self._under_way.get(key)
        if running is None:
            if len(self._under_way) >= self._most:
                raise BusyError
            running = self._under_way[key] = asyncio.get_running_loop().run_in_executor(self._threads, work)
            running.add_done_callback(lambda _: self._under_way.pop(key, None))
        # One who leaves must not take it from the others.
        return await asyncio.shield(running)
