"""
Removal: nothing of ours is left in schedulers, queues, Redis and directories, and the app goes on without us.
"""

from __future__ import annotations

import json
import re
import signal
import sys

from pathlib import Path
from typing import Any

import pytest

from redis import Redis

from celery_obs.areas.channels.state import Channels
from celery_obs.state import keys
from tests.servers import wait_until
from tests.workers import Process

from .conftest import Stage


pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "remove-it.md"


class Departing:
    """
    The app, with us and without.
    """

    def __init__(self, stage: Stage, scheduler: str) -> None:
        self.stage = stage
        self.environ = {
            "SCHEDULER": scheduler,
            "DATABASE": str(stage.folder / "db.sqlite3"),
            "SCHEDULE_FILE": str(stage.folder / "schedule"),
            "CELERY_OBS_BEAT_SCHEDULE": "1",
            "CELERY_OBS_METRICS_DIR": str(stage.metrics_dir),
        }
        if scheduler == "django":
            code, told = self.run(
                "-c", "import departing; from django.core.management import call_command; call_command('migrate', verbosity=0)"
            )
            assert 0 == code, told

    def run(self, *words: str, observed: bool = True, name: str = "run") -> tuple[int, str]:
        return self.stage.run(sys.executable, *words, name=name, OBSERVED=str(int(observed)), **self.environ)

    def uninstall(self, *words: str) -> tuple[int, str]:
        return self.run("-m", "celery", "-A", "departing", "obs", "uninstall", *words, name="uninstall")

    def start(self, *, observed: bool) -> tuple[Process, Process]:
        """
        Start a worker and beat.
        """
        base = (sys.executable, "-m", "celery", "-A", "departing")
        more = {"OBSERVED": str(int(observed)), **self.environ}
        word = "with" if observed else "without"
        worker = self.stage.process(*base, "worker", "--pool=solo", "-l", "INFO", "-n", "w1@test", name=f"worker-{word}", **more)
        beat = self.stage.process(*base, "beat", "-l", "INFO", "--pidfile=", name=f"beat-{word}", **more)
        return worker, beat

    def run_for_a_while(self, *, observed: bool, sent: str = "departing.work") -> str:
        """
        Run worker and beat until *sent* was sent and messages were taken; return the worker's log.
        """
        worker, beat = self.start(observed=observed)
        wait_until(lambda: beat.log.read_text().count(sent) >= 1, what=f"beat to send {sent}", within=40)
        wait_until(lambda: worker.log.read_text().count("departing.work") >= 2, what="the worker to take messages", within=40)
        for process in (beat, worker):
            process.stop(signal.SIGTERM)
        return worker.log.read_text()


def seed(redis: Any) -> None:
    """
    Leave what people type by hand, and what is another program's.
    """
    Channels(redis).touch(["airbnb"])
    redis.hset(keys.breaker("airbnb"), "state", "open")
    redis.set(keys.paused("airbnb"), "true")
    redis.rpush(keys.rate_limit("airbnb", "c1"), 1)
    redis.set("circuit_breaker:of-another-program:state", "x")
    redis.set("theirs", "x")
    for key in redis.scan_iter():
        redis.persist(key)  # What would end by itself meanwhile could not be counted twice.


def left_of_us(redis: Any) -> set[str]:
    found = {key.decode() for key in redis.scan_iter()}
    return {key for key in found if "celery_obs" in key or "airbnb" in key}


def steps() -> list[str]:
    """
    Read the commands of the page, in their order.
    """
    return [
        line.strip() for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines() if line.strip()
    ]


@pytest.mark.parametrize(
    "scheduler", ["django", pytest.param("redbeat", marks=pytest.mark.faults), pytest.param("celery", marks=pytest.mark.faults)]
)
def test_after_the_page_no_task_is_unknown(stage: Stage, scheduler: str) -> None:
    """
    The commands of the page as they are written: nothing is left, twice is once, and worker and beat go on without us and without a complaint.
    """
    app = Departing(stage, scheduler)
    app.run_for_a_while(observed=True, sent="channel_manager.take_census")
    with Redis.from_url(stage.redis.url) as redis:
        seed(redis)
        stage.client.send_task("channel_manager.take_census", queue="work")
        stage.client.send_task("departing.work", queue="work")
        dry, remove, package = steps()
        assert ["celery -A proj obs uninstall --dry-run", "celery -A proj obs uninstall", "pip uninstall celery_obs"] == [
            dry,
            remove,
            package,
        ]

        told = app.uninstall("--dry-run", "--json")
        before = left_of_us(redis)
        removed = app.uninstall("--yes", "--json")
        again = app.uninstall("--yes")

        found = {part["name"]: part for part in json.loads(told[1])["parts"]}
        assert (0, "would_remove") == (told[0], json.loads(told[1])["status"])
        assert before
        assert found["keys in Redis"]["found"] == len({key for key in before if not key.startswith("rb:")})  # RedBeat's are told by it.
        assert 1 <= found["waiting messages of our tasks"]["found"]
        assert (0, "removed") == (removed[0], json.loads(removed[1])["status"]), removed[1]
        assert all(part["found"] == (part["removed"] or 0) for part in json.loads(removed[1])["parts"])
        assert (0, "Nothing of celery_obs is left.\n") == again
        assert not left_of_us(redis)
        assert {b"theirs", b"circuit_breaker:of-another-program:state", b"work"} <= set(redis.scan_iter())
        assert not list(stage.metrics_dir.rglob("*"))

    place = {"django": "rows of django-celery-beat", "redbeat": "entries of RedBeat", "celery": f"entries in {stage.folder}/schedule"}[
        scheduler
    ]
    assert found[place]["found"] >= 2
    assert "celery_obs.take_census" in " ".join(found[place]["examples"])
    said = app.run_for_a_while(observed=False)
    assert "unregistered task" not in said
    assert "channel_manager" not in said


@pytest.mark.faults
def test_without_it_beat_goes_on_sending_what_nobody_knows(stage: Stage) -> None:
    """
    What the command is for: rows of django-celery-beat outlive the package.
    """
    app = Departing(stage, "django")
    app.run_for_a_while(observed=True, sent="channel_manager.take_census")

    said = app.run_for_a_while(observed=False, sent="channel_manager.take_census")

    assert "unregistered task" in said


def test_what_runs_is_not_taken_away_under_its_feet(stage: Stage) -> None:
    """
    While a worker runs the command refuses and says who; without a yes it removes nothing; with force it does.
    """
    worker = stage.worker()
    url = stage.redis.url
    base = (sys.executable, "-m", "celery_obs.cli", "uninstall", "--redis-url", url, "--metrics-dir", str(stage.metrics_dir))

    refused = stage.run(*base, "--yes", name="refused")
    worker.stop(signal.SIGTERM)
    wait_until(
        lambda: "w1@test" not in stage.run(*base, "--dry-run", name="stopped")[1].partition("Still running")[2], what="it to be gone"
    )
    declined = stage.run(*base, "--force", name="declined")  # Without an answer.
    kept = list(stage.metrics_dir.rglob("slot-0"))
    forced = stage.run(*base, "--force", "--yes", name="forced")

    assert (1, True) == (refused[0], "Still running: w1@test" in refused[1])
    assert "Nothing was removed: they would write it again." in refused[1]
    assert (1, True) == (declined[0], bool(kept))
    assert 0 == forced[0], forced[1]
    assert not list(stage.metrics_dir.rglob("*"))
