"""
A pytest plugin for other projects' own tests: every app that they make is set up, in a process that is active already.

Loaded by its bare name (``-p observing``) from this folder, because those tests have a package called ``tests`` of their own.
With `UPSTREAM_OBSERVED` unset it observes nothing, and only writes down how each test went, which is the run to compare with.
"""

from __future__ import annotations

import json
import os

from pathlib import Path
from typing import Any


_outcomes: dict[str, str] = {}


def pytest_configure(config: Any) -> None:
    """
    Set up what is made from now on, before the tests' own modules make their apps.
    """
    if os.environ.get("UPSTREAM_OBSERVED"):
        _observe_all()


def _observe_all() -> None:
    from celery import Celery, _state

    import celery_obs

    made = Celery.__init__

    def initialized(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        celery_obs.setup(self)

    before = set(_state._on_app_finalizers)
    first = Celery("first", broker="memory://", set_as_current=False)
    celery_obs.setup(first)
    first.send_task("first.task")
    first.control.purge()  # All apps on memory:// share their queues.
    first.close()
    _state._on_app_finalizers = before
    Celery.__init__ = initialized


def pytest_runtest_logreport(report: Any) -> None:
    """
    Write down how a test went: the worst of its phases.
    """
    order = ("passed", "skipped", "failed")
    word = "xfailed" if report.outcome == "skipped" and hasattr(report, "wasxfail") else report.outcome
    known = _outcomes.get(report.nodeid, "passed")
    if word == "rerun":
        _outcomes.pop(report.nodeid, None)
    elif word not in order or known not in order or order.index(word) >= order.index(known):
        _outcomes[report.nodeid] = word


def pytest_sessionfinish(session: Any) -> None:
    """
    Leave the outcomes for who compares.
    """
    results = os.environ.get("UPSTREAM_RESULTS")
    if results and not hasattr(session.config, "workerinput"):
        Path(results).write_text(json.dumps(_outcomes, indent=0, sort_keys=True))
