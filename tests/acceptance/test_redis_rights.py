"""
Redis users with exactly the rights that the page on them gives: nothing is refused, and nothing is missing.
"""

from __future__ import annotations

import re
import sys

from collections.abc import Iterator

import pytest

from redis import Redis
from redis.exceptions import NoPermissionError

from celery_obs.areas.sidecar.metrics import COLLECTOR_SUCCESS
from celery_obs.state import keys
from tests.pages import DOCS
from tests.servers import RedisServer, missing, wait_until

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

PAGE = DOCS / "how-to" / "give-redis-rights.md"
OURS = (sys.executable, "-m", "celery_obs.cli")


def rights() -> dict[str, str]:
    """
    Return what the page says, by user.
    """
    return {line.split()[2]: line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("ACL SETUSER")}


def give(redis: RedisServer, *users: str) -> None:
    with Redis.from_url(redis.url) as client:
        if int(client.info("server")["redis_version"].partition(".")[0]) < 7:
            missing("Redis 7, whose rights tell reading from writing, first on the PATH")
        client.flushall()
        client.execute_command("ACL", "LOG", "RESET")
        for user in users:
            client.execute_command(*rights()[user].split())


def url_of(redis: RedisServer, user: str) -> str:
    return f"redis://{user}:{user}-password@127.0.0.1:{redis.port}/0"


def refused(redis: RedisServer) -> list[str]:
    """
    Return what Redis refused since its users have their rights.
    """
    with Redis.from_url(redis.url, decode_responses=True) as client:
        return [f"{each['username']}: {each['reason']} {each['object']}" for each in client.acl_log()]


@pytest.fixture
def state() -> Iterator[RedisServer]:
    """
    A Redis for the cluster's state alone.
    """
    with RedisServer() as redis:
        yield redis


def page_of(stage: Stage, *, state: str) -> Page:
    return stage.exporter(f"--broker-url={url_of(stage.redis, 'watcher')}", f"--redis-url={state}", "--queues=work")


def run_everything(stage: Stage, *, broker: str, state: str) -> Page:
    """
    Have worker, beat and exporter do all that they do with Redis, and wait until it is seen.
    """
    environ = {"TEST_BROKER": broker, "CELERY_OBS_REDIS_URL": state, "CELERY_OBS_BEAT_SCHEDULE": "1"}
    stage.worker(app="permitted", **environ)
    stage.beat(app="permitted", **environ)
    page = page_of(stage, state=state.replace("worker", "exporter").replace("celery", "watcher"))
    stage.client.send_task("permitted.fail", args=["c-2"])
    return page


def is_stored(redis: RedisServer) -> bool:
    """
    Tell whether all kinds of state are there: of connections, breakers, limits, queues and the lease.
    """
    with Redis.from_url(redis.url, decode_responses=True) as client:
        found = [client.hget(keys.LAST_SYNCS, "c-1"), client.hget(keys.ERRORS, "c-2"), client.zcard(keys.CHANNELS), client.get(keys.LEASE)]
        return all(found) and all(next(client.scan_iter(pattern), None) for pattern in ("circuit_breaker:*", "rate_limit:*"))


def works(page: Page) -> bool:
    success = page.by("collector", COLLECTOR_SUCCESS.name)
    return len(success) >= 4 and page.exporter.get("/-/ready").status == 200


def test_a_state_of_its_own_needs_the_rights_on_the_page(stage: Stage, state: RedisServer) -> None:
    """
    Worker, beat, exporter, doctor and the commands for operators work, and Redis refuses none of what they ask.
    """
    give(stage.redis, "celery", "watcher")
    give(state, "worker", "exporter")

    page = run_everything(stage, broker=url_of(stage.redis, "celery"), state=url_of(state, "worker"))

    wait_until(lambda: is_stored(state), within=60, what="all kinds of state")
    wait_until(lambda: works(page), within=30, what="all collectors to succeed")
    assert 200 == page.exporter.get("/api/v1/channels/status").status
    for command in (
        ("doctor", f"--redis-url={url_of(state, 'exporter')}", f"--broker-url={url_of(stage.redis, 'watcher')}"),
        ("health", f"--redis-url={url_of(state, 'exporter')}", f"--exporter-url=http://127.0.0.1:{page.exporter.port}"),
        ("breaker", "status", f"--redis-url={url_of(state, 'worker')}"),
        ("channel", "pause", "airbnb", "--reason=a look", f"--redis-url={url_of(state, 'worker')}"),
        ("channel", "resume", "airbnb", f"--redis-url={url_of(state, 'worker')}"),
    ):
        _, said = stage.run(*OURS, *command, name=command[0])
        assert not re.search(r"NOPERM|permission|cannot use|does not do", said), said
    assert ([], []) == (refused(state), refused(stage.redis))


def test_a_state_in_the_broker_needs_the_rights_on_the_page(stage: Stage) -> None:
    """
    Where `redis_url` is not set, worker and beat have the broker's user, and the exporter one that may read the queues only.
    """
    give(stage.redis, "celery", "watcher")

    page = run_everything(stage, broker=url_of(stage.redis, "celery"), state=url_of(stage.redis, "celery"))

    wait_until(lambda: is_stored(stage.redis), within=60, what="all kinds of state")
    wait_until(lambda: works(page), within=30, what="all collectors to succeed")
    assert [] == refused(stage.redis)


def test_the_exporter_cannot_touch_a_queue(redis_server: RedisServer) -> None:
    """
    The rights on the page are no more than needed: no key but ours is written, and nothing dangerous is done.
    """
    give(redis_server, "watcher", "worker")

    with Redis.from_url(url_of(redis_server, "watcher")) as watcher, Redis.from_url(url_of(redis_server, "worker")) as worker:
        assert 0 == watcher.llen("work")
        for forbidden in (
            lambda: watcher.delete("work"),
            watcher.flushall,
            lambda: watcher.config_get("*"),
            lambda: worker.get("work"),
            worker.client_list,
        ):
            with pytest.raises(NoPermissionError):
                forbidden()
