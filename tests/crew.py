"""
A crew: several processes that do what a test tells them, one call at a time or all at once.
"""

from __future__ import annotations

import multiprocessing

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from typing_extensions import Self


__all__ = ["Crew"]


_PATIENCE = 60


class Crew:
    """
    Processes of fresh interpreters; a context manager.

    Args:
        size: How many.

        make: Is called in each of them, with *arguments*, and returns what the test's calls are for.  A function of a module.
    """

    def __init__(self, size: int, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, make, arguments), daemon=True)
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


def _work(end: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    made = make(*arguments)
    while True:
        try:
            method, given, keywords = end.recv()
        except EOFError:
            return
        try:
            end.send((getattr(made, method)(*given, **keywords), None))
        except Exception as error:  # noqa: BLE001 -- the test's to judge.
            end.send((None, error))
