"""
Slot files that another program truncates, or writes into, while they are mapped.
"""

from __future__ import annotations

import logging
import os

from pathlib import Path

import pytest

from celery_obs.areas.tasks.metrics import STARTED
from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import Header, Phase, Record
from celery_obs.recorder.recorder import Identity, Recorder
from tests.workers import samples_in


PAIR = ("work", "celery")


def recorder_in(folder: Path, *, number: int = 0) -> Recorder:
    """
    Make a worker's recorder.
    """
    return Recorder(folder, identify=lambda: Identity(node="w@host", role="worker", number=number, attempts=1), gauge_limit=8)


def shown(collector: WorkersCollector) -> float:
    """
    Return how many starts are on the page.
    """
    return samples_in(collector.collect().text)[STARTED.name, (("queue", "celery"), ("task", "work"))]


@pytest.mark.parametrize("left", [0, 1, 255, 256, 300, 4096])
def test_a_file_that_was_cut_off_is_mended_before_it_is_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int) -> None:
    """
    It has its size again, counting goes on in it, and what readers had seen stays counted, once.
    """
    recorder = recorder_in(tmp_path)
    recorder.count(STARTED, PAIR, 41)
    recorder.mend()
    collector = WorkersCollector(tmp_path, errors=InternalErrors())
    assert 41 == shown(collector)
    path = tmp_path / "w@host.v1" / "slot-0"
    size = path.stat().st_size

    os.truncate(path, left)
    assert 41 == shown(collector)
    with caplog.at_level(logging.ERROR):
        recorder.mend()
        recorder.mend()
    recorder.count(STARTED, PAIR, 2)

    assert (size, 43) == (path.stat().st_size, shown(collector))
    assert 1 == caplog.text.count("was truncated by another program")
    recorder.close()


def test_files_of_others_are_mended_for_them(tmp_path: Path) -> None:
    """
    The main process looks after the processes of its pool, which have no pulse of their own.
    """
    main, child = recorder_in(tmp_path), recorder_in(tmp_path, number=1)
    child.count(STARTED, PAIR, 5)
    main.ready()
    meter = AttemptMeter(main)
    meter.sweep()
    path = tmp_path / "w@host.v1" / "slot-1"
    size = path.stat().st_size

    os.truncate(path, 0)
    meter.sweep()
    child.count(STARTED, PAIR, 1)

    assert size == path.stat().st_size
    assert 1 == shown(WorkersCollector(tmp_path, errors=InternalErrors()))
    main.close()
    child.close()


@pytest.mark.parametrize(
    ("word", "number"),
    [
        (Record.STARTED_LANE, -1),
        (Record.STARTED_LANE, 1 << 62),
        (Record.OUTCOME_LANE, -5),
        (Record.OUTCOME_LANE, 1 << 40),
        (Record.STARTED_BEFORE, 1 << 62),
        (Record.OUTCOME_BEFORE, (1 << 63) - 1),
        (Record.RETRIES, (1 << 63) - 1),
        (Record.PHASE, 99),
        (Record.PHASE, -1),
    ],
)
@pytest.mark.parametrize("phase", [Phase.ANNOUNCED, Phase.FINISHING])
def test_a_record_that_says_nonsense_counts_nothing_and_stops_nobody(tmp_path: Path, word: int, number: int, phase: int) -> None:
    """
    The next owner of a slot whose record another program wrote into goes on from the counts that are there.
    """
    first = recorder_in(tmp_path)
    first.count(STARTED, PAIR, 7)
    assert first.slot is not None
    words = first.slot.words
    words[Header.WORDS + Record.PHASE] = phase
    words[Header.WORDS + word] = number
    first.close()

    second = recorder_in(tmp_path)
    AttemptMeter(second)

    assert second.ready()
    assert second.slot is not None
    assert shown(WorkersCollector(tmp_path, errors=InternalErrors())) in {7, 8}
    assert second.slot.words[Header.WORDS + Record.PHASE] == Phase.IDLE
    second.close()
