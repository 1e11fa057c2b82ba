"""
What a process can be, what it becomes in a fork, and what areas do in it.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celery import Celery

import celery_obs

from celery_obs.areas import Area
from celery_obs.areas.area_runtime import AreaRuntime
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime import area_parts
from celery_obs.runtime.area_parts import AreaParts
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.plugin import Plugin, plugin
from celery_obs.runtime.roles.beat import Beat
from celery_obs.runtime.roles.child import PoolChild
from celery_obs.runtime.roles.publisher import Publisher
from celery_obs.runtime.roles.role import Role
from celery_obs.runtime.roles.worker import WorkerMain
from celery_obs.runtime.start_up import fatal
from celery_obs.settings import load
from tests.embedded import embedded_worker


RUNTIME = Path(celery_obs.__file__).parent / "runtime"
WORKER = SimpleNamespace(hostname="w@host", pool_cls=SimpleNamespace(__module__="celery.concurrency.prefork"))
CHILD = PoolChild("w@host", is_forked=True)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """
    An app in memory, observed.
    """
    made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    celery_obs.setup(made, metrics_dir=str(tmp_path))
    yield made
    celery_obs.teardown()


@pytest.fixture
def in_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    This process is the third of a pool.
    """
    monkeypatch.setitem(sys.modules, "billiard.process", SimpleNamespace(current_process=lambda: SimpleNamespace(index=2)))


def observing() -> Plugin:
    """
    Return this process's plugin.
    """
    found = plugin()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("role", "child"),
    [
        (Publisher(), Publisher),
        (WorkerMain(WORKER), PoolChild),
        (CHILD, PoolChild),
        (Beat(Publisher()), Publisher),
        (Beat(CHILD), PoolChild),
    ],
)
def test_a_child_is_what_its_parent_makes_it(role: Role, child: type[Role]) -> None:
    """
    A web server that forks has publishers, a worker has a pool, and beat's children are what its own parent's would be.
    """
    assert type(role.forked()) is child


@pytest.mark.parametrize(
    ("role", "is_celerys", "announces"),
    [
        (Publisher(), False, True),
        (WorkerMain(WORKER), True, False),
        (CHILD, False, False),
        (Beat(Publisher()), True, True),
        (Beat(CHILD), True, False),
    ],
)
def test_each_kind_of_process_reports_what_is_its_own(role: Role, is_celerys: bool, announces: bool) -> None:
    """
    Errors and logging are ours to see to where Celery started the process; queues are told by those that publish and are no part of a worker.
    """
    assert (is_celerys, announces) == (role.is_celerys, role.announces)


@pytest.mark.parametrize(
    ("role", "node", "who", "number", "attempts"),
    [
        (Publisher(), "publisher@", "publisher", None, 0),
        (WorkerMain(WORKER), "w@host", "worker", 0, 0),
        (CHILD, "w@host", "publisher", None, 0),
        (Beat(CHILD), "beat@", "beat", None, 0),
    ],
)
def test_each_kind_of_process_has_a_place(role: Role, node: str, who: str, number: int | None, attempts: int) -> None:
    """
    The node that it writes to, and where in it; what a worker forks for no pool writes beside it.
    """
    found = role.identity()

    assert found.node.startswith(node)
    assert (who, number, attempts) == (found.role, found.number, found.attempts)


def test_a_process_of_a_pool_has_the_place_that_the_pool_gives_it(in_pool: None) -> None:
    """
    Counted from one, for the main process has the first; and it tells sidecars of no queue, even before Celery says what it is.
    """
    found = CHILD.identity()

    assert ("w@host", "child", 3, 1) == (found.node, found.role, found.number, found.attempts)
    assert not Publisher().announces


def test_a_spawned_process_is_told_its_worker_by_the_environment(app: Celery, in_pool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It inherits nothing else, and its texts hash otherwise than its worker's.
    """
    monkeypatch.setenv("_CELERY_OBS_NODE", "w@host")

    observing().child_started(None)

    recorder = observing().recorder
    assert recorder is not None
    assert ("w@host", "child", False) == (getattr(recorder.node, "name", ""), recorder.role, recorder.shares_hash_seed)


def test_a_worker_that_forks_is_a_pool_in_the_child_only(app: Celery) -> None:
    """
    What was said of the parent's publishing, its beat and its own slot is not the child's.
    """
    with embedded_worker(app):
        parent = observing().role
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                recorder = observing().recorder
                said = f"{type(observing().role).__name__} {recorder is not None and recorder.slot is None}"
                os.write(writing, said.encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        told = os.read(reading, 1000).decode()

    assert isinstance(parent, WorkerMain)
    assert (told, parent) == ("PoolChild True", observing().role)


def names_in(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """
    Go through the comparisons and imports of a file, as text.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Compare, ast.ImportFrom, ast.Import)):
            yield ast.unparse(node), node


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=lambda path: str(path.relative_to(RUNTIME)))
def test_what_runs_in_processes_asks_for_no_role_by_name_and_knows_no_channel(path: Path) -> None:
    """
    What a process is, is a class; what channels do there, is their own part.
    """
    found = [text for text, node in names_in(path) if isinstance(node, ast.Compare) and ".role" in text and "identity()" not in text]
    channels = [text for text, node in names_in(path) if not isinstance(node, ast.Compare) and "areas.channels" in text]

    assert ([], []) == (found, channels)


def test_without_their_part_there_are_no_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Setting up, publishing and a worker need none; nothing of ours is registered or scheduled.
    """
    monkeypatch.setattr(area_parts, "parts", lambda name: iter(()))
    app = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    celery_obs.setup(app, metrics_dir=str(tmp_path), sync_engine=True)

    @app.task(name="proj.alone", shared=False)  # type: ignore[untyped-decorator]  # Celery's.
    def alone() -> str:
        return "done"

    try:
        with embedded_worker(app):
            said = alone.delay().get(timeout=10)
    finally:
        celery_obs.teardown()

    assert ("done", []) == (said, [name for name in app.tasks if name.startswith("channel_manager.")])


# -- parts of areas ---------------------------------------------------------------------------------------------------


class Telling(AreaRuntime):
    """
    A part that writes down what it hears.
    """

    heard: list[str]

    def __init__(self, process: Any) -> None:
        super().__init__(process)
        self.heard = HEARD

    def connect(self) -> None:
        """
        Write it down.
        """
        self.heard.append("connect")

    def activated(self, settings: Any, redis: Any) -> None:
        """
        Write it down.
        """
        self.heard.append(f"activated {settings.label_limit}")

    def flush(self, within: float) -> None:
        """
        Write it down.
        """
        self.heard.append("flush")

    def deactivated(self) -> None:
        """
        Write it down.
        """
        self.heard.append("deactivated")

    def disconnect(self) -> None:
        """
        Write it down.
        """
        self.heard.append("disconnect")


class Broken(AreaRuntime):
    """
    A part that fails at everything.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in vars(AreaRuntime):
            raise RuntimeError(name)
        return super().__getattribute__(name)


HEARD: list[str] = []


def parts_of(*kinds: type[AreaRuntime]) -> Any:
    return lambda _: iter([(Area(kind.__name__.lower(), "elsewhere"), SimpleNamespace(Runtime=kind)) for kind in kinds])


def test_a_part_hears_how_far_the_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    From set-up to teardown, in this order, whatever another area's part does.
    """
    HEARD.clear()
    monkeypatch.setattr(area_parts, "parts", parts_of(Broken, Telling))
    app = Celery("proj", broker="memory://", set_as_current=False)

    celery_obs.setup(app, metrics_dir=str(tmp_path), label_limit=7)
    app.send_task("proj.any")
    celery_obs.teardown()

    assert ["connect", "activated 7", "disconnect", "flush", "deactivated"] == HEARD


def test_a_part_that_fails_is_told_and_the_others_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Each error by its area, and never to the program.
    """
    failed: list[str] = []

    def on_error(error: Exception, *, component: str) -> None:
        failed.append(f"{component}: {error}")

    monkeypatch.setattr(area_parts, "parts", parts_of(Broken, AreaRuntime))
    settings = load({}, {}, {"metrics_dir": str(tmp_path)})

    found = AreaParts(SimpleNamespace(hub=Hub(on_error=on_error)))
    answers = found.each(lambda part: (part.needs_tasks(None, settings), dict(part.tags_of("t")), list(part.series(None, settings))))

    assert ([(False, {}, [])], ["areas.broken: needs_tasks"]) == (answers, failed)


def test_a_part_that_cannot_be_made_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """
    Another distribution's takes nothing of ours along, and one line says which.
    """

    def fail(process: object) -> AreaRuntime:
        raise RuntimeError("not today")

    monkeypatch.setattr(area_parts, "parts", lambda _: iter([(Area("theirs", "elsewhere.roles"), SimpleNamespace(Runtime=fail))]))

    found = AreaParts(SimpleNamespace(hub=Hub(on_error=lambda error, *, component: None)))

    assert [] == found.each(lambda part: part.flush(1.0))
    assert "runtime of the area 'theirs' (elsewhere.roles) does not work, so it is left out. RuntimeError: not today" in caplog.text


# -- beat -------------------------------------------------------------------------------------------------------------

BEAT = """
import json, sys
from celery import Celery
from celery.beat import Service
import celery_obs
from celery_obs.runtime.plugin import plugin
from tests.embedded import embedded_worker

app = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
celery_obs.setup(app, metrics_dir=sys.argv[1])
app.conf.beat_schedule = {"nightly": {"task": "proj.nightly", "schedule": 600.0}}
app.loader.import_default_modules()

def begin():
    service = Service(app, schedule_filename=sys.argv[2])
    found = plugin()
    found.beat_starting(service)
    before = found.receivers.firing is not None
    found.beat_started(service)
    watched = found.receivers.firing is not None
    recorder = found.recorder
    print(json.dumps([type(found.role).__name__, recorder.role, recorder.node.name.partition("@")[0], before, watched]), file=sys.__stdout__, flush=True)
    celery_obs.teardown()
    assert found.receivers.firing is None

if sys.argv[3] == "alone":
    begin()
else:
    with embedded_worker(app):
        begin()
"""


@pytest.mark.parametrize(
    ("where", "role", "node", "has_heart"), [("alone", ["Beat", "beat"], "beat", True), ("inside", ["WorkerMain", "worker"], "", False)]
)
def test_beat_is_a_process_or_a_part_of_its_worker(tmp_path: Path, where: str, role: list[str], node: str, has_heart: bool) -> None:
    """
    Alone it has a node and a heartbeat of its own, as a thread it shares its worker's; its entries are followed in both.
    """
    done = subprocess.run(
        [sys.executable, "-c", BEAT, str(tmp_path), str(tmp_path / "schedule"), where],
        check=False,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert [*role, False, True] == [*found[:2], *found[3:]]
    assert found[2].startswith(node)
    assert has_heart is bool([path for path in tmp_path.glob("*/layout") if path.parent.name.startswith("beat")])


def test_a_start_up_that_fails_ends_with_one_paragraph(capfd: pytest.CaptureFixture[str]) -> None:
    """
    And with the exit code of a failure; errors that are not ours go their way.
    """
    with pytest.raises(SystemExit, match="1"), fatal():
        raise ConfigurationError("The setting is wrong.")
    with pytest.raises(ZeroDivisionError), fatal():
        raise ZeroDivisionError

    assert "celery_obs: The setting is wrong.\n" == capfd.readouterr().err
