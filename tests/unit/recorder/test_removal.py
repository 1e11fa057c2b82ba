"""
Metric files are removed, and nothing else.
"""

from __future__ import annotations

import os

from pathlib import Path

import pytest

from celery_obs.areas.sidecar.metrics import DROPPED
from celery_obs.recorder.about import write_about
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.recorder.removal import live_nodes, look_for_files, remove_files


def record(directory: Path) -> Recorder:
    """
    Write as a worker does.
    """
    recorder = Recorder(directory, identify=lambda: Identity(node="w@host", role="worker", number=0))
    recorder.count(DROPPED, ("no_room",))
    assert recorder.node is not None
    write_about(recorder.node.folder, {"role": "worker"})
    (recorder.node.folder / "heartbeat").touch()
    return recorder


def test_all_that_a_node_writes_goes(tmp_path: Path) -> None:
    """
    Files, folders and, where that is wanted, the directory itself; twice is once.
    """
    place = tmp_path / "metrics"
    record(place).close()
    for name in ("slot-7.bad", "attempts-0", "attempts-1.new"):
        (place / "w@host.v1" / name).touch()
    (place / "beat@host.v99").mkdir()
    (place / "beat@host.v99" / "layout").touch()
    (place / "remainder").touch()
    (place / "remainder.lock").touch()

    found = look_for_files(place)
    removed = remove_files(place, itself=True)

    assert ("", ("beat@host.v99", "w@host.v1")) == (found.problem, found.folders)
    assert found.files == removed == 11
    assert not place.exists()
    assert 0 == remove_files(place, itself=True)
    assert 0 == look_for_files(place).files


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    """
    Links are not followed, and foreign files keep their folder.
    """
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "slot-0").write_text("mine")
    place = tmp_path / "metrics"
    record(place).close()
    folder = place / "w@host.v1"
    (folder / "notes.txt").touch()
    (folder / "slot-5").symlink_to(precious / "slot-0")
    (place / "linked.v1").symlink_to(precious)

    found = look_for_files(place)
    remove_files(place, itself=True)

    assert ("linked.v1", "w@host.v1/notes.txt", "w@host.v1/slot-5") == found.foreign
    assert "mine" == (precious / "slot-0").read_text()
    assert ["notes.txt", "slot-5"] == sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("kind", ["link", "file", "home"])
def test_what_is_no_metrics_directory_is_left_alone(tmp_path: Path, kind: str) -> None:
    """
    A link, a file, a directory of other things: each is told, and nothing in it goes.
    """
    place = tmp_path / "place"
    if kind == "link":
        (tmp_path / "real").mkdir()
        record(tmp_path / "real").close()
        place.symlink_to(tmp_path / "real")
    elif kind == "file":
        place.touch()
    else:
        place.mkdir()
        (place / "thesis.tex").touch()

    problem = look_for_files(place).problem
    removed = remove_files(place, itself=True)

    assert problem.startswith({"link": "is a symbolic link", "file": "is not a directory", "home": "is not a metrics directory"}[kind])
    assert 0 == removed
    assert place.exists()


def test_a_node_lives_while_a_process_of_it_does(tmp_path: Path) -> None:
    """
    Its slot is locked, by another process than the one that asks.
    """
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover -- the child's.
        record(tmp_path)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)

    alive = live_nodes(tmp_path)
    os.write(go[1], b"x")
    os.waitpid(child, 0)

    assert (["w@host"], []) == (alive, live_nodes(tmp_path))
    for end in (*ready, *go):
        os.close(end)
