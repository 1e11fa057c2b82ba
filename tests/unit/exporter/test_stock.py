"""
The cached reader of multiprocess directories, against the official collector.
"""

from __future__ import annotations

import os
import tempfile

from pathlib import Path

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from celery_obs.exporter.exposition import render
from celery_obs.exporter.multiprocess import StockCollector
from celery_obs.exporter.scrape import InternalErrors


_MODES = ("all", "min", "max", "sum", "mostrecent", "liveall", "livemin", "livemax", "livesum", "livemostrecent")
_BOUNDS = ("0.5", "1.0", "2.5", "+Inf")

Write = tuple[str, str, float, float]
"""
File, key, value, timestamp.
"""


@st.composite
def _writes(draw: st.DrawFn) -> list[Write]:
    """
    Writes as processes would make them: any kind of metric, several processes, whole numbers, so that any order adds up the same.
    """
    made: list[Write] = []
    for stamp in range(draw(st.integers(1, 25))):
        pid = draw(st.sampled_from(["11", "12", "13"]))
        kind = draw(st.sampled_from(["counter", "summary", "histogram", "gauge"]))
        label = draw(st.sampled_from(["a", "b", 'quo"te', "é"]))
        value = float(draw(st.integers(-1000, 1000) if kind == "gauge" else st.integers(0, 1000)))
        if kind == "counter":
            made.append((f"counter_{pid}.db", mmap_key("hits", "hits_total", ["who"], [label], "Hits."), value, 0.0))
        elif kind == "summary":
            made += [
                (f"summary_{pid}.db", mmap_key("size", f"size{part}", ["who"], [label], "Sizes."), value, 0.0)
                for part in ("_count", "_sum")
            ]
        elif kind == "histogram":
            made.append((f"histogram_{pid}.db", mmap_key("wait", "wait_sum", ["who"], [label], "Waits."), value, 0.0))
            made += [
                (f"histogram_{pid}.db", mmap_key("wait", "wait_bucket", ["who", "le"], [label, bound], "Waits."), value, 0.0)
                for bound in _BOUNDS
            ]
        else:
            mode = draw(st.sampled_from(_MODES))
            stamped = float(stamp) if mode.endswith("mostrecent") else 0.0
            made.append((f"gauge_{mode}_{pid}.db", mmap_key(f"level_{mode}", f"level_{mode}", ["who"], [label], "Level."), value, stamped))
    return made


def _write(directory: Path, writes: list[Write]) -> None:
    for name, key, value, stamp in writes:
        file = MmapedDict(str(directory / name))
        file.write_value(key, value, stamp)
        file.close()


def _samples(text: str) -> set[tuple[str, str, tuple[tuple[str, str], ...], float]]:
    return {
        (family.type, sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _official(directory: Path) -> str:
    return render(MultiProcessCollector(CollectorRegistry(), path=str(directory)).collect()).text


def _collector(directory: Path, errors: InternalErrors | None = None) -> StockCollector:
    return StockCollector(directory, errors=errors or InternalErrors())


@settings(max_examples=60, deadline=None)
@given(_writes(), st.data())
def test_it_shows_what_the_official_collector_shows_however_the_writes_are_split(writes: list[Write], data: st.DataObject) -> None:
    """
    After every part of the writes, the page has the samples that the official collector makes of the same files.
    """
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        collector = _collector(directory)
        rest = writes
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            _write(directory, rest[:size])
            rest = rest[size:]

            page = collector.collect()

            assert _samples(_official(directory)) == _samples(page.text)
            assert page == _collector(directory).collect()


def test_fractions_add_up_the_same_whatever_file_comes_first(tmp_path: Path) -> None:
    """
    Sums are exact, so that 0.1 ten times is 1, which adding one after the other misses.
    """
    _write(tmp_path, [(f"counter_{pid}.db", mmap_key("hits", "hits_total", [], [], "Hits."), 0.1, 0.0) for pid in range(10)])

    assert "hits_total 1.0\n" in _collector(tmp_path).collect().text


def _hits(tmp_path: Path, pid: int, value: float, label: str = "a") -> Path:
    name = f"counter_{pid}.db"
    _write(tmp_path, [(name, mmap_key("hits", "hits_total", ["who"], [label], "Hits."), value, 0.0)])
    return tmp_path / name


def test_what_a_vanished_file_counted_stays_counted(tmp_path: Path) -> None:
    """
    A counter does not fall because a process's file was removed, and the file's loss is counted.
    """
    errors = InternalErrors()
    collector = _collector(tmp_path, errors)
    _hits(tmp_path, 2, 4.0)
    _hits(tmp_path, 1, 3.0)
    collector.collect()

    (tmp_path / "counter_1.db").unlink()

    assert 'hits_total{who="a"} 7.0\n' in collector.collect().text
    assert 'hits_total{who="a"} 7.0\n' in collector.collect().text
    assert {"multiproc_file": 1} == errors.snapshot()


def test_a_new_file_under_an_old_name_adds_to_what_the_old_one_had(tmp_path: Path) -> None:
    """
    A process id that comes again after its file was removed starts at nothing, and the total goes on.
    """
    collector = _collector(tmp_path)
    old = _hits(tmp_path, 1, 3.0)
    collector.collect()

    old.rename(tmp_path / "kept-so-that-the-inode-is-not-reused")
    _hits(tmp_path, 1, 2.0)

    assert 'hits_total{who="a"} 5.0\n' in collector.collect().text


def test_a_vanished_live_gauge_is_gone(tmp_path: Path) -> None:
    """
    The file of a live gauge is removed when its process is dead, and the gauge with it.
    """
    errors = InternalErrors()
    collector = _collector(tmp_path, errors)
    _write(tmp_path, [("gauge_livesum_1.db", mmap_key("busy", "busy", [], [], "Busy."), 1.0, 0.0)])
    assert "busy 1.0\n" in collector.collect().text

    (tmp_path / "gauge_livesum_1.db").unlink()

    assert collector.collect().text == ""
    assert errors.snapshot() == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"\x00" * 64, b"\xff" * 64, (1 << 30).to_bytes(4, "little") + b"\x00" * 60, b"\x40\x00\x00\x00" + b"\x00" * 60],
    ids=["empty", "one byte", "zeros", "negative", "too long", "no entries"],
)
def test_a_bad_file_spoils_nothing(tmp_path: Path, content: bytes) -> None:
    """
    A file that is empty, half made or garbage is passed over, and the others are shown.
    """
    _hits(tmp_path, 1, 3.0)
    (tmp_path / "counter_2.db").write_bytes(content)
    (tmp_path / "gauge_all_2.db").write_bytes(content)

    assert 'hits_total{who="a"} 3.0\n' in _collector(tmp_path).collect().text


def test_a_file_that_breaks_keeps_what_it_had_counted(tmp_path: Path) -> None:
    """
    When garbage follows good entries, the good ones go on counting; the problem is counted once.
    """
    errors = InternalErrors()
    collector = _collector(tmp_path, errors)
    path = _hits(tmp_path, 1, 3.0)
    collector.collect()

    used = int.from_bytes(path.read_bytes()[:4], "little")
    with path.open("r+b") as file:
        file.seek(used)
        file.write(b"\x10\x00\x00\x00" + b"\xfe" * 60)
        file.seek(0)
        file.write((used + 64).to_bytes(4, "little"))

    assert 'hits_total{who="a"} 3.0\n' in collector.collect().text
    assert 'hits_total{who="a"} 3.0\n' in collector.collect().text
    assert {"multiproc_file": 1} == errors.snapshot()


def test_a_truncated_file_keeps_what_it_had_counted(tmp_path: Path) -> None:
    """
    A file cut to nothing leaves its last values.
    """
    collector = _collector(tmp_path)
    path = _hits(tmp_path, 1, 3.0)
    collector.collect()

    os.truncate(path, 0)

    assert 'hits_total{who="a"} 3.0\n' in collector.collect().text


def test_a_file_that_its_process_has_just_made_is_no_error(tmp_path: Path) -> None:
    """
    prometheus_client makes a file first and gives it its size then; a look between the two finds nothing wrong.
    """
    errors = InternalErrors()
    (tmp_path / "counter_11.db").touch()

    _collector(tmp_path, errors).collect()

    assert errors.snapshot() == {}


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """
    The runner is told, and says that this collector failed.
    """
    with pytest.raises(FileNotFoundError):
        _collector(tmp_path / "none").collect()
