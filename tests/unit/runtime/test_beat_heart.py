"""
The heart of beat: a beat that waits lives, and one that hangs is found out.
"""

from __future__ import annotations

import json

from pathlib import Path
from typing import Any, cast

import pytest

from celery_obs.runtime.heartbeat import BeatHeart


class Stopped:
    """
    A recorder that only hears that it is switched off.
    """

    error: Exception | None = None

    def switch_off(self, error: Exception) -> None:
        """
        Take note.
        """
        self.error = error

    def mend(self) -> None:
        """
        Have no file that could be cut off.
        """


class Rig:
    """
    A heart with a clock that is moved by hand, and without its thread.
    """

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.lock = ""
        self.recorder = Stopped()
        self.file = folder / "heartbeat"
        self.heart = BeatHeart(
            cast("Any", self.recorder), folder, interval=3600.0, hung_after=60.0, waits_for=lambda: self.lock, monotonic=lambda: self.now
        )
        self.heart.start()

    def beats(self, seconds: float) -> bool:
        """
        Let time pass; tell whether the heart beats then.
        """
        self.now += seconds
        before = self.file.stat().st_mtime_ns
        self.heart.beat()
        return self.file.stat().st_mtime_ns > before

    @property
    def says(self) -> tuple[bool, str]:
        """
        What the file says: whether beat is ready, and what it does.
        """
        facts = json.loads(self.file.read_text())
        return facts["ready"], facts.get("state", "")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """
    A heart that begins.
    """
    return Rig(tmp_path)


def test_a_beat_that_starts_lives_however_long_that_takes(rig: Rig) -> None:
    """
    A database scheduler may take minutes to read its entries; beat is ready after its first pass.
    """
    assert rig.beats(1000)
    assert (False, "starting") == rig.says

    rig.heart.passing()
    assert (False, "starting") == rig.says
    rig.heart.passing()
    assert (True, "") == rig.says


def test_a_beat_that_waits_for_a_lock_stands_by(rig: Rig) -> None:
    """
    It lives, it is all that it should be, and it says what it waits for.
    """
    rig.lock = "the lock x"

    assert rig.beats(10_000)
    assert (True, "standby") == rig.says
    assert "the lock x" == json.loads(rig.file.read_text())["waits_for"]

    rig.lock = ""
    assert rig.beats(5)
    assert (False, "starting") == rig.says


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_pass_that_comes_to_no_end_is_found_out(rig: Rig, passes: int, caplog: pytest.LogCaptureFixture) -> None:
    """
    A slow query is borne for a while, in the first pass as in any; what takes longer stops the heart until beat goes on.
    """
    for _ in range(passes):
        rig.heart.passing()

    assert rig.beats(59)
    assert not rig.beats(2)
    assert not rig.beats(60)
    assert 1 == caplog.text.count("stuck in one pass through its schedule")

    rig.heart.passing()
    assert rig.beats(1)


def test_a_beat_that_connects_lives_and_is_not_ready(rig: Rig) -> None:
    """
    However long its broker is away; afterwards it is what it was before.
    """
    rig.heart.passing()
    rig.heart.passing()

    with rig.heart.connecting():
        assert rig.beats(10_000)
        assert (False, "connecting") == rig.says

    assert (True, "") == rig.says
    assert rig.beats(59)


def test_a_folder_that_is_gone_switches_metrics_off(rig: Rig) -> None:
    """
    What cannot be written is said once, and beat is not affected.
    """
    rig.file.unlink()
    rig.file.parent.joinpath("heartbeat").mkdir()
    rig.heart.passing()
    rig.heart.passing()

    assert isinstance(rig.recorder.error, OSError)
