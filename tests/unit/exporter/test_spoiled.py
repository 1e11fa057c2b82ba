"""
One odd file in a metrics directory costs itself only: it is told, its reason is said once, and everything else is on the page.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from celery_obs.areas.tasks.metrics import STARTED
from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.areas.workers.metrics import HEARTBEAT
from celery_obs.exporter.multiprocess import StockCollector
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.format import folder_name
from celery_obs.recorder.layout import family_line, header_line
from celery_obs.recorder.recorder import Identity, Recorder
from tests.workers import samples_in


def record(folder: Path, node: str, task: str, count: int) -> Path:
    """
    Record what a worker would; return its folder.
    """
    recorder = Recorder(folder, identify=lambda: Identity(node=node, role="worker", number=0, attempts=1), gauge_limit=8)
    recorder.count(STARTED, (task, "celery"), count)
    recorder.set(HEARTBEAT, (node,), 1.0, at=1.0)
    recorder.close()
    return folder / folder_name(node)


def write(path: Path, content: bytes) -> None:
    """
    Put a file there, and its folder.
    """
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def layout(path: Path, *lines: bytes) -> None:
    """
    Put a layout there whose first line is right.
    """
    write(path / "layout", header_line(7) + b"".join(lines))


def family(**facts: object) -> bytes:
    """
    Return the line of a family that is right but for *facts*.
    """
    return json.dumps({**json.loads(family_line(STARTED)), **facts}).encode() + b"\n"


def link(path: Path, target: str) -> None:
    """
    Put a link in the place of what was there.
    """
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def fifo(path: Path) -> None:
    """
    Put a FIFO in the place of what was there.
    """
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def sparse(path: Path, *, size: int = 200 << 30, head: bytes = b"") -> None:
    """
    Put there what looks like a file of *size* bytes, in the place of what was there.
    """
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(head)
    os.truncate(path, size)


Spoil = Callable[[Path, Path], object]
SPOILS: dict[str, Spoil] = {
    "a slot that is a FIFO": lambda _, node: fifo(node / "slot-9"),
    "a slot that is a directory": lambda _, node: (node / "slot-9").mkdir(),
    "a slot with a number without end": lambda _, node: (node / f"slot-{'9' * 20}").touch(),
    "a slot with a number in other digits": lambda _, node: (node / "slot-٣").touch(),
    "a slot of 200 GB": lambda _, node: sparse(node / "slot-9"),
    "a slot that is a link to a device": lambda _, node: link(node / "slot-9", "/dev/zero"),
    "a layout that is a FIFO": lambda _, node: fifo(node / "layout"),
    "a layout that is a device": lambda _, node: link(node / "layout", "/dev/zero"),
    "a layout of 200 GB": lambda _, node: sparse(node / "layout"),
    "a layout of brackets": lambda root, _: write(root / "odd.v1" / "layout", b"[" * 100_000 + b"\n"),
    "a layout with a line of 200 MB": lambda root, _: sparse(root / "odd.v1" / "layout", size=200 << 20, head=b'{"a":"'),
    "a layout with a line of 100 MB": lambda root, _: sparse(root / "odd.v1" / "layout", size=100 << 20, head=b'{"a":"'),
    "a remainder of brackets": lambda root, _: write(root / "remainder", b"[" * 100_000 + b"\n" * 3),
    "a remainder that is a FIFO": lambda root, _: fifo(root / "remainder"),
    "a remainder of 200 GB": lambda root, _: sparse(root / "remainder"),
    "a node that is a file": lambda root, _: write(root / "odd.v1", b""),
    "a node that is a link": lambda root, _: (root / "odd.v1").symlink_to("/"),
    "a lock that is a FIFO": lambda _, node: fifo(node / "lock"),
}
HARMLESS: dict[str, Spoil] = {
    "a folder that is no text": lambda root, _: (root / os.fsdecode(b"\xff\xfe.v1")).mkdir(),
    "a heartbeat that is a FIFO": lambda _, node: fifo(node / "heartbeat"),
    "half of a surrogate pair in a label": lambda root, _: layout(root / "odd.v1", family(), b'[0,"\\ud800","q"]\n'),
    "half of a surrogate pair in a help text": lambda root, _: layout(root / "odd.v1", family(help="\ud800"), b'[0,"a","q"]\n'),
    "a resolution that is next to nothing": lambda root, _: layout(root / "odd.v1", family(resolution=5e-324), b'[0,"a","q"]\n'),
    "a kind that is no text": lambda root, _: layout(root / "odd.v1", family(kind=["counter"]), b'[0,"a","q"]\n'),
    "a kind that is none": lambda root, _: layout(root / "odd.v1", family(kind="x\ny"), b'[0,"a","q"]\n'),
    "lines of brackets": lambda root, _: layout(root / "odd.v1", b"[" * 60_000 + b"\n", b'{"a":' * 10_000 + b"\n"),
    "another definition of a family of ours": lambda root, _: layout(root / "0.v1", family(labels=["other"]), b'[0,"a"]\n'),
    "a histogram of the name of a gauge of ours": lambda root, _: layout(
        root / "0.v1", family(name=HEARTBEAT.name, kind="histogram", buckets=[1.0], labels=[]), b"[0]\n"
    ),
}


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        message = "it waits"
        raise TimeoutError(message)

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)  # Of a machine that does other things, too; what waits would wait for ever.
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", [*SPOILS, *HARMLESS])
def test_one_odd_file_costs_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """
    Beside it everything is served and can be written, and what it said before stays; it is told on the page and, once, in the log.
    """
    record(tmp_path, "good@host", "good", 41)
    node = record(tmp_path, "spoiled@host", "spoiled", 5)
    collector = WorkersCollector(tmp_path, errors=InternalErrors())
    collector.collect()

    (SPOILS | HARMLESS)[name](tmp_path, node)
    with caplog.at_level(logging.ERROR):
        pages = [collector.collect() for _ in range(3)]

    for page in pages:
        samples = samples_in(page.text.encode().decode())
        assert (41, 5) == tuple(samples[STARTED.name, (("queue", "celery"), ("task", task))] for task in ("good", "spoiled"))
        list(text_string_to_metric_families(page.openmetrics + "# EOF\n"))
    said = [entry.getMessage() for entry in caplog.records if "is skipped" in entry.getMessage()]
    corrupt = samples["celery_obs_metric_files", (("state", "corrupt"),)]
    if name in SPOILS and "lock" not in name:
        assert (1, 1) == (len(said), corrupt), said
        assert str(tmp_path) in said[0]
    assert len(said) <= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can act as another user.")
@pytest.mark.parametrize("variable", ["TMPDIR", "XDG_RUNTIME_DIR"])
def test_what_another_user_planted_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """
    The sidecar refuses the directory that the worker would refuse.
    """
    place = tmp_path / ("celery_obs" if variable == "XDG_RUNTIME_DIR" else f"celery_obs-{os.geteuid()}")
    monkeypatch.setenv(variable, str(tmp_path))
    record(place, "theirs@host", "planted", 1606)
    for path in [place, *place.rglob("*")]:
        os.chown(path, 12345, 12345)

    with pytest.raises(Exception, match=r"belongs to uid 12345 and not to uid 0\. Another user may have put it there"):
        WorkersCollector(place, errors=InternalErrors()).collect()


def stock_file(path: Path, key: str, value: float) -> None:
    """
    Write a file as prometheus_client does.
    """
    file = MmapedDict(str(path))
    file.write_value(key, value, 0.0)
    file.close()


ODD_STOCK: dict[str, Callable[[Path], object]] = {
    "a FIFO": lambda root: os.mkfifo(root / "counter_9.db"),
    "a directory": lambda root: (root / "counter_9.db").mkdir(),
    "a link to a device": lambda root: (root / "counter_9.db").symlink_to("/dev/zero"),
    "half of a surrogate pair": lambda root: stock_file(root / "counter_9.db", '["x","x_total",{"a":"\\ud800"},"?"]', 1.0),
    "a label that is none": lambda root: stock_file(root / "counter_9.db", '["x","x_total",{"a b\\"}":"c"},"?"]', 1.0),
    "a name that is no text": lambda root: (root / os.fsdecode(b"gauge_all_\xff.db")).touch(),
    "brackets": lambda root: stock_file(root / "counter_9.db", "[" * 30_000, 1.0),
}


@pytest.mark.parametrize("name", ODD_STOCK)
def test_one_odd_file_of_the_users_own_metrics_costs_itself_only(tmp_path: Path, name: str) -> None:
    """
    In a directory of prometheus_client, too, what is odd is passed over.
    """
    stock_file(tmp_path / "counter_1.db", '["good","good_total",{"a":"b"},"?"]', 3.0)

    ODD_STOCK[name](tmp_path)
    collector = StockCollector(tmp_path, errors=InternalErrors())

    assert 3.0 == samples_in(collector.collect().text.encode().decode())["good_total", (("a", "b"),)]
    shutil.rmtree(tmp_path, ignore_errors=True)
