"""
The parts of an engine: one may need another.
"""

from __future__ import annotations

import threading

from pathlib import Path

from celery_obs.areas.channels.engine import Engine
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import RaisingErrors


class Outage:
    """
    A part that another one needs.
    """

    def __init__(self, engine: Engine) -> None:
        pass


class Guardian:
    """
    A part that needs another one.
    """

    def __init__(self, engine: Engine) -> None:
        self.outage = engine.part(Outage)


def engine() -> Engine:
    return Engine(hub=Hub(on_error=RaisingErrors()), settings=Settings(metrics_dir=Path("unused")))


def test_a_part_may_need_another_one() -> None:
    """
    Making a part that asks for another does not wait for itself.
    """
    made = engine()
    found: list[Guardian] = []
    thread = threading.Thread(target=lambda: found.append(made.part(Guardian)), daemon=True)

    thread.start()
    thread.join(5)

    assert [made.part(Outage)] == [each.outage for each in found]
