"""
Apps that only send, each closed when the test or the module that made it is over.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery import Celery

from tests.servers import collect


_open: list[Celery] = []


def client_of(url: str) -> Celery:
    """
    Return an app that sends tasks to the workers on the broker at *url*.
    """
    app = Celery("client", broker=url, backend=url, set_as_current=False, task_default_queue="work")
    # Held until it is closed: what a result left open would otherwise be collected in the middle of another test.
    _open.append(app)
    return app


@pytest.fixture(autouse=True, scope="module")
def _clients_of_a_module_are_closed() -> Iterator[None]:
    yield
    _close(0)


@pytest.fixture(autouse=True)
def _clients_of_a_test_are_closed(_clients_of_a_module_are_closed: None) -> Iterator[None]:
    before = len(_open)
    yield
    _close(before)


def _close(before: int) -> None:
    closing = _open[before:]
    del _open[before:]
    if closing:
        for app in closing:
            app.close()
        del app, closing
        collect()
