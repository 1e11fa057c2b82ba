"""
The engine of a process: silent without `setup`, one with it, and parts that are made once.
"""

from __future__ import annotations

import os
import threading

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery

import celery_obs

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.engine import Engine
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import RaisingErrors


class Part:
    """
    A part that takes down what it is told.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.renewed_in: list[int] = []
        self.flushed: list[float] = []

    def after_fork(self) -> None:
        self.renewed_in.append(os.getpid())

    def flush(self, *, within: float) -> None:
        self.flushed.append(within)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """
    An engine with no Redis.
    """
    return Engine(hub=Hub(on_error=RaisingErrors()), settings=Settings(metrics_dir=tmp_path))


@pytest.fixture
def disconnected() -> Iterator[None]:
    """
    A process in which nothing is set up, now and afterwards.
    """
    engines.disconnect()
    yield
    engines.disconnect()


def test_without_setup_there_is_a_silent_one(disconnected: None) -> None:
    """
    Application code works without us: no observer hears, and nothing is shared.
    """
    assert engines.current() is engines.current()
    assert engines.current().redis is None


def test_with_setup_it_is_the_plugins(tmp_path: Path) -> None:
    """
    What is said reaches the plugin's hub, with its settings; after teardown it is silent again.
    """
    app = Celery("proj", broker="memory://", set_as_current=False)
    celery_obs.setup(app, metrics_dir=str(tmp_path), redis_url="redis://127.0.0.1:1/0")
    try:
        found = engines.current()
        assert (tmp_path, True) == (found.settings.metrics_dir, found.redis is not None)
    finally:
        celery_obs.teardown()

    assert engines.current() is not found


def test_wrong_settings_leave_it_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    In a process with work of its own a wrong setting is logged, and application code goes on.
    """
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.celery_obs = {"metrics_dir": str(tmp_path), "label_limit": "many"}
    celery_obs.setup(app)
    try:
        assert engines.current().redis is None
    finally:
        celery_obs.teardown()

    assert "label_limit" in caplog.text


def test_a_part_is_made_once(engine: Engine) -> None:
    """
    Many threads that ask at once get the same one.
    """
    made: list[Part] = []

    def make(engine: Engine) -> Part:
        made.append(Part(engine))
        return made[-1]

    barrier = threading.Barrier(8)
    found: list[Part] = []

    def ask() -> None:
        barrier.wait()
        found.append(engine.part(make))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(made)
    assert [made[0]] * 8 == found
    assert engine is made[0].engine


def test_a_child_has_a_lock_of_its_own_and_its_parts_know(engine: Engine) -> None:
    """
    A lock that another thread held at the fork is free in the child.
    """
    part = engine.part(Part)
    engine._lock.acquire()

    engine.after_fork()

    assert [os.getpid()] == part.renewed_in
    assert engine._lock.acquire(blocking=False)


def test_parts_are_flushed_before_the_end(engine: Engine) -> None:
    """
    Parts that keep something back are told to write it.
    """
    part = engine.part(Part)

    engine.flush(within=0.5)

    assert [0.5] == part.flushed


def test_a_part_may_need_another(engine: Engine) -> None:
    """
    A part asks for what it needs while it is made, without waiting for itself.
    """
    found: list[Any] = []

    def outer(engine: Engine) -> tuple[Part, Part]:
        return engine.part(Part), engine.part(Part)

    asking = threading.Thread(target=lambda: found.append(engine.part(outer)), daemon=True)
    asking.start()
    asking.join(10)

    assert [(engine.part(Part), engine.part(Part))] == found
