"""
What we assume of billiard holds on the version that is installed.
"""

from __future__ import annotations

import os
import signal
import sys

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from billiard.common import _should_have_exited, _shutdown_cleanup
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.pool import EX_RECYCLE, Pool
from celery.concurrency.prefork import TaskPool

from celery_obs.compat import billiard as compat


@pytest.fixture
def pool() -> Iterator[Any]:
    """
    Celery's pool around one of billiard's, with two processes.
    """
    inner = Pool(2, threads=False)
    outer = TaskPool.__new__(TaskPool)
    outer._pool = inner
    outer.shrink = inner.shrink  # As it does itself when it starts.
    yield outer
    for process in inner._pool:  # Without its threads it cannot be closed in order.
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    inner._terminate.cancel()


def test_a_pools_processes_are_listed_with_their_ids_and_places(pool: Any) -> None:
    """
    Each has an id and a place; a pool without processes has no list.
    """
    found = compat.processes_of(pool)
    assert found is not None
    assert sorted(process.index for process in found) == [0, 1]
    assert all(process.pid for process in found)
    assert compat.has_processes(pool)
    assert compat.processes_of(SimpleNamespace()) is None
    assert not compat.has_processes(SimpleNamespace(shrink=print))


def test_a_process_that_is_taken_away_is_marked(pool: Any) -> None:
    """
    Only one that leaves because the pool shrinks is found, and not one that is terminated with its task.
    """
    first, second = pool._pool._pool
    assert list(compat.leaving_by_order(pool)) == []

    first.terminate_controlled()
    pool._pool.terminate_job(second.pid)

    assert list(compat.leaving_by_order(pool)) == [first]


def test_exit_codes_are_those_of_billiard(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that is recycled, and one that gets SIGTERM, leave with the codes that we know.
    """
    assert compat.EXIT_RECYCLED == EX_RECYCLE
    monkeypatch.setattr("billiard.common.maybe_setsignal", lambda *_: None)
    monkeypatch.setattr("billiard.common._should_have_exited", [False])
    with pytest.raises(SystemExit) as left:
        _shutdown_cleanup(signal.SIGTERM, None)
    assert left.value.code == compat.EXIT_TERMINATED
    assert _should_have_exited == [False]


def test_the_error_is_found_under_its_wrapper() -> None:
    """
    With a wrapper around it and without one, the exception is what was raised.
    """
    error = ValueError("on purpose")
    try:
        raise error
    except ValueError:
        info = ExceptionInfo(sys.exc_info())
    assert compat.error_of(info) is error
    assert compat.error_of(SimpleNamespace(exception=ExceptionWithTraceback(error, "trace"))) is error
    assert compat.error_of(None) is None
