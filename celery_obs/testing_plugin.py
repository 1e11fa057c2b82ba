"""
The pytest plugin: tests leave nothing behind, and see what was observed.

It is there wherever celery_obs is installed; ``-p no:celery_obs`` leaves it out.  Without a test that asks for its fixtures it only says where metric files
go that nothing else gave a place: to a directory of the session's own, which is removed in the end.

Since 0.1.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest


if TYPE_CHECKING:
    from celery_obs.testing import ObservedEvents, ObservedSamples


__all__ = ["obs_events", "obs_samples"]


_FOLDER: Final = pytest.StashKey[tuple[Path, "str | None"]]()


def pytest_configure(config: pytest.Config) -> None:
    """
    Name the session's directory, to this process and those that it starts; each process of pytest-xdist has its own.
    """
    from celery_obs.recorder.metrics_dir import FALLBACK, fallback_name  # noqa: PLC0415 -- a session that fails to start needs nothing of ours.

    folder = Path(tempfile.gettempdir()).absolute() / fallback_name()
    config.stash[_FOLDER] = folder, os.environ.get(FALLBACK)
    os.environ[FALLBACK] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """
    Remove it.
    """
    from celery_obs.recorder.metrics_dir import FALLBACK  # noqa: PLC0415 -- as above.

    folder, before = config.stash.get(_FOLDER, (None, None))
    if folder is None:
        return
    if before is None:
        os.environ.pop(FALLBACK, None)
    else:
        os.environ[FALLBACK] = before
    observed = sys.modules.get("celery_obs.runtime.plugin")
    if observed is not None and folder.exists():
        observed.teardown()  # What a worker in this process does at its end would miss the files.
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def obs_events(request: pytest.FixtureRequest) -> Iterator[ObservedEvents]:
    """
    The events that happen in this process during the test, in order: see `celery_obs.testing.ObservedEvents`.

    Since 0.1.
    """
    from celery_obs.testing import observed_events  # noqa: PLC0415 -- what a test does not ask for is not loaded.

    _apps_first(request)
    with observed_events() as events:
        yield events


@pytest.fixture
def obs_samples(request: pytest.FixtureRequest) -> ObservedSamples:
    """
    The numbers that were recorded since the test began, in this process and in workers: see `celery_obs.testing.ObservedSamples`.

    Since 0.1.
    """
    from celery_obs.testing import ObservedSamples  # noqa: PLC0415 -- as above.

    _apps_first(request)
    return ObservedSamples()


def _apps_first(request: pytest.FixtureRequest) -> None:
    """
    Have the apps of Celery's own fixtures made first, which may be what calls ``setup``.
    """
    for name in ("celery_session_app", "celery_app"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
