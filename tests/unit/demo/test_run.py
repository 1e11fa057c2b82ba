"""
The demo's course, with stand-ins for its programs.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import subprocess
import sys
import threading

from pathlib import Path

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.channels.connections import metrics as connections
from celery_obs.areas.channels.reconciliation import metrics as reconciliation
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.tokens import metrics as tokens
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.demo import redis_server
from celery_obs.demo.accounts import PROVIDER
from celery_obs.demo.load import due
from celery_obs.demo.processes import ChildFailedError, Household, free_port, wait_until
from celery_obs.demo.provider.faults import fault_of
from celery_obs.demo.run import Plan, plan, show
from celery_obs.demo.story import Act, Story
from celery_obs.demo.summary import fitted, joined, quantile, read, sections
from celery_obs.exceptions import ConfigurationError


SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nchild = os.fork()\n"
        "if child: print(child, flush=True)\ntime.sleep(600)"
    ),
]
DYING = [sys.executable, "-c", "print('the port is taken'); raise SystemExit(3)"]
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[2].encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def is_alive(pid: int) -> bool:
    """
    Tell whether a process runs; a zombie does not.
    """
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for(done: object) -> None:
    """
    Poll for at most ten seconds.
    """
    assert callable(done)
    assert wait_until(done, seconds=10, pause=threading.Event().wait)


def stand_in(text: str, **others: list[str]) -> Plan:
    """
    Plan a demo whose server and exporter are one small HTTP server that answers with *text*.
    """
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port), text]
    return Plan(first=("redis", command), others=others, server_port=port, url=f"http://127.0.0.1:{port}", environ=dict(os.environ))


ONE_SYNC = f'{syncs.TOTAL.name}{{channel_type="airbnb",sync_type="export",direction="outbound",status="success"}} 7\n'
ONE_TASK = f'{tasks.STARTED.name}{{task="demo.fast",queue="celery"}} 3\n'


def test_leaving_stops_the_stubborn_and_their_children(tmp_path: Path) -> None:
    """
    Who ignores SIGTERM is killed, with everything in its session.
    """
    with Household(tmp_path, os.environ, grace=0.2) as household:
        child = household.start("worker", STUBBORN)
        wait_for(lambda: child.log.read_text().strip())
        grandchild = int(child.log.read_text())
        assert is_alive(grandchild)

    assert not is_alive(child.process.pid)
    wait_for(lambda: not is_alive(grandchild))


HOUSEHOLD = """
import os, pathlib, sys, time
from celery_obs.demo.processes import Household
place = pathlib.Path(sys.argv[1])
with Household(place, os.environ, temporary=(place,)) as household:
    for name in ("one", "two"):
        child = household.start(name, [sys.executable, "-c", "import os, time; os.fork(); print(os.getpid(), flush=True); time.sleep(600)"])
    while not all(len((place / f"{name}.log").read_text().split()) == 2 for name in ("one", "two")):
        time.sleep(0.01)
    print(*((place / f"{name}.log").read_text().strip() for name in ("one", "two")), sep="\\n", flush=True)
    time.sleep(600)
"""


def test_a_demo_that_is_killed_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    """
    Even SIGKILL, which no process can answer, takes all of its processes, theirs, and its temporary directory with it.
    """
    place = tmp_path / "demo"
    place.mkdir()
    command = [sys.executable, "-c", HOUSEHOLD, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        said = [demo.stdout.readline().strip() for _ in range(4)]
        assert all(word.isdecimal() for word in said), [*said, demo.stdout.read()]
        pids = list(map(int, said))
        assert [True] * 4 == list(map(is_alive, pids))

        demo.kill()

        wait_for(lambda: not any(map(is_alive, pids)))
        wait_for(lambda: not place.exists())


def test_the_watchdog_goes_with_a_demo_that_ends_well(tmp_path: Path) -> None:
    """
    Nothing is left of it, and what it watched over stays as the demo left it.
    """
    with Household(tmp_path, os.environ) as household:
        child = household.start("worker", SLEEPER)
        assert household._watchdog is not None
        watchdog = household._watchdog.pid
        assert is_alive(watchdog)

    assert [False, False] == [is_alive(watchdog), is_alive(child.process.pid)]
    assert tmp_path.exists()


@given(
    st.lists(
        st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=100), min_size=1, max_size=20), min_size=1, max_size=4
    ),
    st.integers(5, 60),
    st.integers(10, 120),
)
def test_a_table_always_fits(table: list[list[str]], rows: int, columns: int) -> None:
    """
    It is never higher nor wider than the terminal, complete where there is room, and says what is left out.
    """
    whole = joined(table)

    lines = fitted(table, rows=rows, columns=columns)

    assert len(lines) <= rows
    assert all(len(line) <= columns for line in lines)
    assert len(whole) > rows or [line[:columns] for line in whole] == lines
    if len(whole) > rows >= 20:
        told = sum(int(line.split()[1]) for line in lines if line.startswith("  and "))
        assert told + len([line for line in lines if line and not line.startswith("  and ")]) == sum(map(len, table))


def test_a_child_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    """
    The message has the exit code and the end of the log.
    """
    with Household(tmp_path, os.environ) as household:
        child = household.start("exporter", DYING)
        child.process.wait(10)

        with pytest.raises(ChildFailedError, match=r"(?s)exporter ended by itself \(exit code 3\).*the port is taken"):
            household.check()


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    """
    No traceback for a missing program.
    """
    with Household(tmp_path, os.environ) as household, pytest.raises(ChildFailedError, match="redis cannot be started"):
        household.start("redis", [str(tmp_path / "missing")])


def test_a_demo_that_was_scraped_with_tasks_and_syncs_ends_well(tmp_path: Path) -> None:
    """
    Up, shown, down: exit code 0.
    """
    out = io.StringIO()

    code = show(stand_in(ONE_TASK + ONE_SYNC, worker=SLEEPER), tmp_path, duration=2.0, stop=threading.Event(), out=out)

    assert 0 == code
    assert "demo.fast" in out.getvalue()
    assert out.getvalue().endswith("Everything is stopped.\n")


@pytest.mark.parametrize("page", ["python_info 1\n", ONE_TASK])
def test_a_demo_without_metrics_of_both_does_not_end_well(tmp_path: Path, page: str) -> None:
    """
    A scrape without tasks is no success, and one without syncs is none either.
    """
    code = show(stand_in(page), tmp_path, duration=1.5, stop=threading.Event(), out=io.StringIO())

    assert 1 == code


def test_a_demo_of_which_a_part_fails_shows_its_log_and_stops_the_rest(tmp_path: Path) -> None:
    """
    One failure ends all, with the reason on the screen.
    """
    what = stand_in(ONE_TASK, worker=DYING)
    out = io.StringIO()

    code = show(what, tmp_path, duration=20.0, stop=threading.Event(), out=out)

    assert 1 == code
    assert "the port is taken" in out.getvalue()
    with socket.socket() as probe:
        assert 0 != probe.connect_ex(("127.0.0.1", what.server_port))


def test_a_stop_during_the_start_is_obeyed(tmp_path: Path) -> None:
    """
    Ctrl-C works before anything is up, too.
    """
    stop = threading.Event()
    stop.set()

    assert 1 == show(stand_in(ONE_TASK), tmp_path, duration=None, stop=stop, out=io.StringIO())


def test_a_taken_port_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The message names the port and the option.
    """
    monkeypatch.setattr("celery_obs.demo.run.find_redis_server", lambda: "redis-server")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        with pytest.raises(ConfigurationError, match=r"The port \d+ of 127\.0\.0\.1 cannot be used .*--port"):
            plan(tmp_path, port=taken.getsockname()[1], environ={})


def test_the_settings_of_the_person_do_not_leak_into_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A production broker in the environment is not the demo's.
    """
    monkeypatch.setattr("celery_obs.demo.run.find_redis_server", lambda: "redis-server")

    environ = plan(tmp_path, port=None, environ={"CELERY_BROKER_URL": "amqp://prod", "CELERY_OBS_LOGS": "0", "HOME": "/h"}).environ

    assert environ["CELERY_BROKER_URL"].startswith("redis://127.0.0.1:")
    assert "CELERY_OBS_LOGS" not in environ
    assert "/h" == environ["HOME"]


def test_the_screen_tells_how_to_break_a_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One line to paste, and the breaker opens.
    """
    monkeypatch.setattr("celery_obs.demo.run.find_redis_server", lambda: "redis-server")
    environ = {**os.environ, **plan(tmp_path, port=None, environ={}).environ}
    out = io.StringIO()

    show(stand_in(ONE_TASK + ONE_SYNC)._replace(environ=environ), tmp_path, duration=0.5, stop=threading.Event(), out=out)

    [line] = [line for line in out.getvalue().splitlines() if line.startswith("Break it:")]
    *_, body, url = shlex.split(line.partition("curl")[2])
    assert "outage" == fault_of(json.loads(body)).kind
    assert f"{environ[PROVIDER]}/admin/faults" == url


def test_without_any_redis_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One sentence from nothing to a server.
    """
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigurationError, match="apt-get install redis-server"):
        redis_server.find_redis_server()


def test_each_task_is_published_at_its_own_pace() -> None:
    """
    Everything at once at first, then what is due.
    """
    last: dict[str, float] = {}

    assert "demo.crashing" in due(last, 100.0)
    assert ["demo.fast"] == due(last, 100.21)


def test_a_quantile_is_estimated_inside_its_bucket() -> None:
    """
    As Prometheus does it, so that the table agrees with a dashboard.
    """
    assert 0.75 == quantile(0.5, {0.5: 0.0, 1.0: 10.0, float("inf"): 10.0})
    assert 1.0 == quantile(0.95, {1.0: 1.0, float("inf"): 10.0})
    assert quantile(0.95, {}) is None


def test_what_was_not_read_is_shown_as_a_dash() -> None:
    """
    Absent is not zero.
    """
    lines = joined(sections(read(ONE_TASK), now=0.0))

    assert ["demo.fast", "3", "-", "-", "-", "-", "-", "-"] == next(line for line in lines if "demo.fast" in line).split()


def test_a_channel_is_one_line_of_breaker_syncs_drift_accounts_and_tokens() -> None:
    """
    The token that expires next, and all drifted days together.
    """
    page = ONE_SYNC + "".join(
        [
            f'{circuit_breaker.STATE.name}{{channel_type="airbnb"}} 2\n',
            f'{connections.TOTAL.name}{{channel_type="airbnb",status="error"}} 1\n',
            f'{reconciliation.DRIFT_DAYS.name}{{channel_type="airbnb",connection_id="a"}} 3\n',
            f'{reconciliation.DRIFT_DAYS.name}{{channel_type="airbnb",connection_id="b"}} 1\n',
            f'{tokens.EXPIRES_AT.name}{{channel_type="airbnb",connection_id="a"}} 130\n',
            f'{tokens.EXPIRES_AT.name}{{channel_type="airbnb",connection_id="b"}} 120\n',
        ]
    )

    (line,) = [line for line in joined(sections(read(page), now=100.0)) if line.startswith("airbnb")]

    assert ["airbnb", "half_open", "7", "-", "4", "d", "1", "in", "error", "in", "20", "s"] == line.split()


def test_a_token_endpoint_is_one_line_of_its_own_and_no_channel() -> None:
    """
    What came of its refreshes, and the breaker or the pause that it has for itself.
    """
    refreshed = tokens.REFRESH_TOTAL.name
    page = ONE_SYNC + "".join(
        [
            f'{refreshed}{{channel_type="fitbit",status="success"}} 3\n',
            f'{refreshed}{{channel_type="fitbit",status="refused"}} 1\n',
            f'{circuit_breaker.STATE.name}{{channel_type="fitbit"}} 0\n',
            f'{circuit_breaker.STATE.name}{{channel_type="fitbit.token"}} 0\n',
            f'{connections.PAUSED.name}{{channel_type="fitbit.token"}} 1\n',
        ]
    )

    lines = [line for line in joined(sections(read(page), now=100.0)) if line.startswith("fitbit")]

    assert [["fitbit", "paused", "3", "-", "1", "-", "-", "-"]] == [line.split() for line in lines]


def test_a_paused_channel_says_so_and_what_is_unknown_is_a_dash() -> None:
    """
    That is why its syncs stand still.
    """
    paused = f'{connections.PAUSED.name}{{channel_type="airbnb"}} 1\n'

    lines = [joined(sections(read(page), now=0.0)) for page in (ONE_SYNC + paused, ONE_SYNC)]
    states = [next(line for line in each if line.startswith("airbnb")).split()[1] for each in lines]

    assert ["paused", "-"] == states


def test_the_story_is_told_in_order_and_begins_anew() -> None:
    """
    Each act once a round, also when none was asked for a while.
    """
    story = Story((Act(1, print), Act(5, repr)), length=10, began=100)

    told = [[act.does for act in story.due(now)] for now in (100, 101, 104, 112, 115, 115)]

    assert [[], [print], [], [repr, print], [repr], []] == told
