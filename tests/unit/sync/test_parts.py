"""
The parts of an engine.
"""

from __future__ import annotations

import threading

from pathlib import Path

from celery_obs.hub import Hub
from celery_obs.settings import Settings
from celery_obs.sync.engine import Engine
from celery_obs.testing import RaisingErrors


class Wheel:
    """
    A part.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine


class Car:
    """
    A part that is made of another.
    """

    def __init__(self, engine: Engine) -> None:
        self.wheel = engine.part(Wheel)


def test_a_part_may_ask_for_another_while_it_is_made() -> None:
    """
    Nobody waits for himself.
    """
    engine = Engine(hub=Hub(on_error=RaisingErrors()), settings=Settings(metrics_dir=Path("/nonexistent")))
    made: list[Car] = []
    thread = threading.Thread(target=lambda: made.append(engine.part(Car)), daemon=True)

    thread.start()
    thread.join(10)

    assert made, "The part is waiting for itself."
    assert [engine.part(Wheel)] == [car.wheel for car in made]
