"""
The history's file: what was stored is what is read, whatever becomes of those who write.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import threading

from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.exporter.history import file as history_file
from celery_obs.exporter.history.declared import Name
from celery_obs.exporter.history.file import (
    Columns,
    HistoryFile,
    Moment,
    Shape,
    TakenError,
    open_history,
    read_columns,
    read_shape,
    shape_for,
)
from celery_obs.recorder.opening import RefusedError


SHAPE = Shape(rows=4, fine=7, coarse=4)  # A minute has no more than six of these samples.
NAMES = [
    Name("grows_total", (("task", "ümläut"),), True, "last"),
    Name("high", (("queue", "q"),), False, "max"),
    Name("low", (), False, "min"),
    Name("latest", (), False, "last"),
]
SAMPLES = st.lists(
    st.tuples(
        st.integers(10, 90),
        st.dictionaries(st.sampled_from(NAMES), st.floats(-1e9, 1e9), max_size=4),
        st.sampled_from(["go on", "go on", "go on", "start again", "killed in a write"]),
        st.integers(0, 200),
    ),
    max_size=40,
)


def everything(_: tuple[str, ...]) -> int:
    """
    Let any group have all rows.
    """
    return 1000


def by_name(columns: Columns, values: array[float]) -> dict[Name, float]:
    return {row.name: values[place] for place, row in columns.rows.items() if not math.isnan(values[place])}


class Killed(BaseException):
    """
    The process ends here.
    """


@given(samples=SAMPLES)
@settings(max_examples=200, deadline=None)
def test_what_was_stored_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, samples: list[Any]) -> None:
    """
    After any sequence of samples, restarts, and ends in the middle of a write, the last samples and the minutes are there, each whole.
    """
    path = tmp_path_factory.mktemp("dir") / "history"
    file = HistoryFile(os.open(path, os.O_RDWR | os.O_CREAT), SHAPE, shares=everything)
    stored: list[tuple[float, dict[Name, float]]] = []
    ticks = 0.0
    for took, values, fate, cut in samples:
        ticks += took
        at = Moment(1000.0 + ticks, ticks, 1)
        if fate == "killed in a write":
            _killed(file, at, values, cut)
        else:
            file.append(at, values, period=1.0)
        if fate != "killed in a write" or any(column.at == at for column in _read(path).fine):  # It is there as a whole, or not at all.
            stored.append((ticks, values))
        if fate != "go on":
            file.close()
            file = HistoryFile(os.open(path, os.O_RDWR), SHAPE, shares=everything)

    columns = _read(path)

    assert [(column.at.ticks, by_name(columns, column.values)) for column in columns.fine] == stored[-7:][-len(columns.fine) :]
    assert len(columns.fine) >= min(len(stored), 6)  # What a killed write was to take the place of was the oldest.
    expected = _minutes(stored)
    found = [(column.minute[1], by_name(columns, column.values)) for column in columns.minutes()]
    assert found == expected[-len(found) :] if found else not expected
    assert len(found) >= min(len(expected), 4)
    assert path.stat().st_size == SHAPE.size
    file.close()


def _killed(file: HistoryFile, at: Moment, values: Mapping[Name, float], cut: int) -> None:
    """
    End in a write, after so many bytes of all that were to be written.
    """
    real, left = os.pwrite, [cut]

    def cut_off(descriptor: int, data: bytes, offset: int) -> int:
        part = data[: left[0]]
        real(descriptor, part, offset)
        left[0] -= len(part)
        if len(part) < len(data):
            raise Killed
        return len(part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("celery_obs.exporter.history.file.os.pwrite", cut_off)
        with contextlib.suppress(Killed):
            file.append(at, values, period=1.0)


def _read(path: Path) -> Columns:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        shape = read_shape(descriptor)
        assert shape is not None
        return read_columns(descriptor, shape)
    finally:
        os.close(descriptor)


def _minutes(stored: list[tuple[float, dict[Name, float]]]) -> list[tuple[int, dict[Name, float]]]:
    """
    Fold samples as their series' folds say, the slow way.
    """
    minutes: dict[int, dict[Name, list[float]]] = {}
    for ticks, values in stored:
        minute = minutes.setdefault(math.floor(ticks / 60), {})
        for name, value in values.items():
            minute.setdefault(name, []).append(value)
    folds: dict[str, Callable[[list[float]], float]] = {"last": lambda seen: seen[-1], "max": max, "min": min}
    return [(minute, {name: folds[name.fold](seen) for name, seen in series.items()}) for minute, series in minutes.items()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history"


def opened(path: Path, size: int = 300_000, said: list[str] | None = None) -> HistoryFile:
    heard: list[str] = [] if said is None else said
    return open_history(path, size, shares=everything, said=heard.append)


def test_a_row_becomes_another_series_once_its_own_is_gone_from_the_minutes(path: Path) -> None:
    """
    A series that went makes room for a new one, whose past is its own; one that is still in the rings does not.
    """
    file = HistoryFile(os.open(path, os.O_RDWR | os.O_CREAT), Shape(1, 3, 2), shares=everything)
    old, new = NAMES[0], NAMES[1]
    for minute in range(8):
        file.append(Moment(0.0, minute * 60.0, 1), {old: 5.0} if minute < 2 else {new: 7.0}, period=60.0)
        if minute == 2:
            assert file.left_out == 1

    columns = _read(path)

    assert {row.name for row in columns.rows.values()} == {new}
    row = columns.rows[0]
    assert [5.0 for column in columns.minutes() if column.sample >= row.since and column.values[0] == 5.0] == []
    assert columns.fine[-1].values[0] == 7.0
    file.close()


def test_no_group_of_series_takes_the_room_of_another(path: Path) -> None:
    """
    Beyond its share a group's series are left out and counted; another group's have theirs.
    """
    file = HistoryFile(os.open(path, os.O_RDWR | os.O_CREAT), Shape(10, 3, 2), shares=lambda group: 4)
    many = {Name("many", (("task", str(number)),), False, "last"): 1.0 for number in range(9)}

    file.append(Moment(0.0, 0.0, 1), many, period=1.0)
    left_out = file.left_out
    file.append(Moment(0.0, 1.0, 1), {**many, NAMES[0]: 1.0}, period=1.0)

    assert (5, 5) == (left_out, file.left_out)
    assert NAMES[0] in by_name(_read(path), _read(path).fine[-1].values)
    file.close()


def test_one_process_writes_and_the_next_one_goes_on(path: Path) -> None:
    """
    While one has the file no other gets it; then what was there stays.
    """
    first = opened(path)
    first.append(Moment(1.0, 1.0, 1), {NAMES[0]: 1.0}, period=1.0)
    with pytest.raises(TakenError):
        opened(path)
    first.close()

    second = opened(path)
    second.append(Moment(2.0, 2.0, 1), {NAMES[0]: 2.0}, period=1.0)

    assert [1.0, 2.0] == [column.values[column_place(path)] for column in _read(path).fine]
    second.close()


def column_place(path: Path) -> int:
    return next(place for place, row in _read(path).rows.items() if row.name == NAMES[0])


def test_a_reader_beside_a_writer_sees_whole_samples_only(path: Path) -> None:
    """
    Every sample that is read while others are written has the same number in all its rows.
    """
    file = HistoryFile(os.open(path, os.O_RDWR | os.O_CREAT), Shape(2000, 20, 2), shares=lambda group: 2000)
    names = [Name("n", (("task", str(number)),), False, "last") for number in range(1500)]
    file.append(Moment(0.0, 0.0, 1), dict.fromkeys(names, 0.0), period=1.0)
    ended = threading.Event()

    def write() -> None:
        for number in range(1, 300):
            file.append(Moment(0.0, float(number), 1), dict.fromkeys(names, float(number)), period=1.0)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not ended.is_set() or not seen:
        columns = _read(path)
        for column in columns.fine:
            seen += 1
            assert len({column.values[place] for place in columns.rows}) == 1
    writer.join()
    file.close()


def _cut_off(path: Path) -> None:
    os.truncate(path, 200_000)


def _other_version(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8)
        file.write((9).to_bytes(8, sys.byteorder))


def _of_another(path: Path) -> None:
    path.write_bytes(b"something else" * 1000)


def _damaged_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(16)
        file.write((1 << 40).to_bytes(8, sys.byteorder))


@pytest.mark.parametrize("spoil", [_cut_off, _other_version, _of_another, _damaged_header])
def test_what_cannot_be_used_is_set_aside_and_told(path: Path, spoil: Any) -> None:
    """
    A file that is cut off, damaged, of another version or none of ours stays beside the new one, under another name.
    """
    opened(path).close()
    spoil(path)
    spoilt, said = path.read_bytes(), list[str]()

    file = opened(path, said=said)
    file.append(Moment(0.0, 0.0, 1), {NAMES[0]: 1.0}, period=1.0)

    assert 1 == len(_read(path).fine)
    assert spoilt == (path.parent / "history.bad").read_bytes()
    assert [path.name + ".bad" in text for text in said] == [True]
    file.close()


def test_what_is_in_the_place_of_the_file_is_refused_and_not_followed(path: Path) -> None:
    """
    A link, a directory, a pipe or a second name of another's file is not written to.
    """
    other = path.parent / "other"
    other.write_bytes(b"")
    puts: list[Callable[[], object]] = [
        lambda: path.symlink_to(other),
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.hardlink_to(other),
    ]
    for put in puts:
        put()
        with pytest.raises(RefusedError):
            opened(path)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert b"" == other.read_bytes()


def test_a_half_made_file_is_made_whole_and_one_of_another_size_anew(path: Path) -> None:
    """
    One who was killed while it made the file leaves nothing that others trip over; another size begins with an empty history.
    """
    path.write_bytes(bytes(1000))
    opened(path).close()

    larger = opened(path, 600_000)

    assert shape_for(600_000) == larger.shape == read_shape(larger.descriptor)
    assert path.stat().st_size <= 600_000
    larger.close()


def test_a_full_disk_leaves_an_empty_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where its room cannot be had, none is taken.
    """

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history_file, "allocate", full)

    with pytest.raises(OSError, match="No space"):
        opened(path)

    assert 0 == path.stat().st_size


WRITER = """
import os, sys
from celery_obs.exporter.history.declared import Name
from celery_obs.exporter.history.file import HistoryFile, Moment, Shape
file = HistoryFile(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), Shape(500, 50, 20), shares=lambda group: 500)
for number in range(1, 10 ** 9):
    file.append(Moment(float(number), float(number), 1), {Name("n", (("t", str(at)),), False, "last"): float(number) for at in range(400)}, period=1.0)
    if number == 100:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("times", [4])
def test_a_process_that_is_killed_leaves_whole_samples(path: Path, times: int) -> None:
    """
    A writer that SIGKILL ends at full speed leaves what it wrote, in order and whole.
    """
    for _ in range(times):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            writer.kill()
        columns = _read(path)
        numbers = [column.sample for column in columns.fine]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert len(numbers) >= 49
        assert all({column.values[place] for place in columns.rows} == {float(column.sample)} for column in columns.fine)


def moments() -> Iterator[Moment]:
    """
    Go through what the clock says, twice.
    """
    yield from (history_file.moment() for _ in range(2))


def test_the_clock_goes_on_and_its_start_has_a_name(tmp_path: Path) -> None:
    """
    Two looks at it are of one start of the machine, in order; where the system has no name for that, one is made.
    """
    first, second = moments()

    assert first.boot == second.boot != 0
    assert first.ticks <= second.ticks
    assert 0 != history_file._boot(tmp_path / "none")
