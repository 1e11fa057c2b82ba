"""
No secret gets out: secrets are planted wherever people have them, and every byte that leaves the processes is looked through.

Where a task's data has to be by its nature (its message at the broker, its result in the backend) nobody looks.
"""

from __future__ import annotations

import base64
import re
import sys

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from celery import chain, group
from kombu import Producer

from tests.otlp import Collector
from tests.sentry import PUBLIC_KEY, SentryServer
from tests.servers import RedisServer, kombu_connection, wait_until
from tests.workers import Metrics

from .apps.planting import canary
from .conftest import OUR_APPS, Stage


pytestmark = pytest.mark.integration

OPENMETRICS = "application/openmetrics-text"
WORD = canary("said aloud")
PATHS = ("/metrics", "/", "/health", "/api/v1/channels/status", "/openapi.json")


ENDS = {
    "succeed": 6,
    "follow": 1,
    "retry": 2,
    "ignore": 1,
    "write": 1,
    "fail": 8,
    "fail_with": 1,
    "refresh": 1,
    "hang": 1,
    "die": 1,
    "control": 1,
}
"""
How often each task comes to an end.
"""


def places() -> list[str]:
    """
    Where canaries are planted, by the sources of the app and of this test.
    """
    sources = (Path(__file__), OUR_APPS / "canaries.py")
    found = re.findall(r"""(?:canary|jwt)\(["']([^"']+)["']\)""", "".join(source.read_text() for source in sources))
    return sorted(set(found) - {"said aloud"})


def forms(word: str) -> Iterator[bytes]:
    """
    The ways in which a word may be written: as it is, and in base64 wherever it begins there.
    """
    yield word.encode()
    for before in range(3):
        text = base64.b64encode(b"x" * before + word.encode()).decode().rstrip("=")
        inner = text[0 if before == 0 else before + 1 : -2]
        yield inner.encode()
        yield inner.replace("+", "-").replace("/", "_").encode()


def plant(stage: Stage) -> None:
    """
    Send secrets along with every kind of task and message.
    """
    client = stage.client

    def send(name: str, *args: object, **options: object) -> None:
        client.send_task(f"canaries.{name}", args=args, **options)

    def signature(name: str, *args: object) -> object:
        return client.signature(f"canaries.{name}", args=args)

    send(
        "succeed",
        canary("positional argument"),
        {"db": [{"password": canary("nested argument")}]},
        kwargs={"answer": canary("result"), "note": canary("keyword"), "password": canary("keyword with a secret's name")},
    )
    send("succeed", kwargs={"token": canary("result with a secret's name")})
    chain(signature("succeed", canary("first of a chain")), signature("follow", canary("second of a chain"))).apply_async()
    group([signature("succeed", canary("member of a group"))]).apply_async()
    send("retry", canary("argument of a retry"), kwargs={"note": canary("keyword of a retry")})
    send("ignore", canary("argument of what is ignored"))
    send("write", kwargs={"password": canary("keyword in a request's repr")}, headers={"x-api-key": canary("header in a request's repr")})
    for how in ("url", "pair", "bearer", "json", "cause", "locals", "breadcrumbs"):
        send("fail", how, headers={"authorization": f"Bearer {canary('header')}", "cookie": f"session={canary('cookie')}"})
    send("fail", "pair", kwargs={"password": canary("keyword of what fails"), "note": canary("keyword of what fails")})
    send("fail_with", canary("positional argument of what fails"), kwargs={"options": {"token": canary("nested argument of what fails")}})
    send("refresh")
    send("hang", canary("argument of what hangs"), kwargs={"password": canary("keyword of what hangs")})
    send("die", canary("argument of what dies"), kwargs={"password": canary("keyword of what dies")})
    send("succeed", canary("argument of what expired"), expires=-10)
    send("succeed", argsrepr=repr([canary("argsrepr")]), kwargsrepr=repr({"note": canary("kwargsrepr")}))
    send("nobody", canary("argument of an unknown task"), kwargs={"password": canary("keyword of an unknown task")})
    with kombu_connection(stage.redis.url) as connection:
        producer = Producer(connection)
        publish = {"routing_key": "work", "exchange": ""}
        producer.publish({"no": "task", "data": canary("message that is no task")}, **publish)
        broken = f'{{"password": "{canary("message that is broken")}'
        producer.publish(broken, content_type="application/json", content_encoding="utf-8", **publish)


@pytest.fixture(scope="module")
def harvest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, bytes]]:
    """
    All that left the processes, by the way that it took.
    """
    folder = tmp_path_factory.mktemp("canaries")
    with RedisServer(password=canary("password of the broker")) as redis, Collector() as collector, SentryServer() as sentry:
        stage = Stage(redis, folder)
        try:
            yield _harvest(stage, collector, sentry)
        finally:
            stage.close()


def _harvest(stage: Stage, collector: Collector, sentry: SentryServer) -> Mapping[str, bytes]:
    environ = {
        "TEST_DSN": sentry.dsn.replace(PUBLIC_KEY, canary("DSN")),
        "SENTRY_DSN": sentry.dsn.replace(PUBLIC_KEY, canary("DSN")),
        "TEST_HTTP": collector.url,
        "CELERY_OBS_LOGS": "1",
        **collector.environ,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {canary('OTLP headers')}",
    }
    worker = stage.worker(app="canaries", **environ)
    metrics = Metrics(worker.metrics_dir)
    page = stage.exporter(f"--broker-url={stage.redis.url}", f"--redis-url={stage.redis.url}")
    plant(stage)
    stage.client.send_task("canaries.control", args=[WORD])
    asked = [
        stage.process(sys.executable, "-m", *words, name=f"asked-{number}", **environ) for number, words in enumerate(_questions(stage))
    ]
    wait_until(lambda: _is_done(metrics, sentry), within=60, what="all tasks to end, and Sentry to hear of those that were lost")
    pages = [page.exporter.get(path, accept=accept).body for path in PATHS for accept in ("text/html", OPENMETRICS)]
    # The doctor says what is wrong here: the program that publishes is not observed.
    assert [0, 0, 0, 0, 1] == [process.wait(60) for process in asked]
    worker.stop()
    return {
        "logs": worker.log.read_bytes() + (stage.folder / "exporter.log").read_bytes(),
        "spans": b"\n".join(collector.bodies),
        "envelopes": b"\n".join(sentry.raw).replace(_addressee(), b""),
        "pages": "\n".join(pages).encode(),
        "terminal": b"\n".join(process.log.read_bytes() for process in asked),
    }


def _questions(stage: Stage) -> Iterator[tuple[str, ...]]:
    """
    What people ask a system whose settings they want to see.
    """
    celery = ("celery", "-A", "canaries")
    yield *celery, "report"
    for what in ("conf", "report", "stats"):
        yield *celery, "inspect", what, "--destination=w1@test", "--timeout=30"
    yield "celery_obs.cli", "doctor", f"--broker-url={stage.redis.url}", f"--redis-url={stage.redis.url}"


def _addressee() -> bytes:
    """
    Whom an envelope is for: the key of the project that it is sent to stands on it, as it does in its address.
    """
    return f'"public_key":"{canary("DSN")}"'.encode()


def _is_done(metrics: Metrics, sentry: SentryServer) -> bool:
    ends = metrics.by("task", "celery_task_finished_total")
    told = {str((event.get("tags") or {}).get("task")) for event in sentry.events()}
    return all(ends.get(f"canaries.{task}", 0) >= times for task, times in ENDS.items()) and {"canaries.hang", "canaries.die"} <= told


def test_more_than_forty_canaries_are_planted() -> None:
    """
    Secrets are planted in arguments, results, headers, URLs, exceptions, variables, log lines, OAuth bodies and settings.
    """
    assert len(places()) >= 40


@pytest.mark.parametrize("way", ["logs", "spans", "envelopes", "pages", "terminal"])
def test_what_was_said_aloud_is_found(harvest: Mapping[str, bytes], way: str) -> None:
    """
    Whoever looks through what left the processes finds what is there, whichever way it took.
    """
    assert any(form in harvest[way] for form in forms(WORD))


@pytest.mark.parametrize("way", ["logs", "spans", "envelopes", "pages", "terminal"])
def test_no_canary_is_out(harvest: Mapping[str, bytes], way: str) -> None:
    """
    Nothing that was planted is found, in plain text or in base64.
    """
    out = {place: _around(harvest[way], form) for place in places() for form in forms(canary(place)) if form in harvest[way]}

    assert {} == out


def _around(data: bytes, form: bytes) -> bytes:
    """
    What stands around a canary, to see where it got out.
    """
    at = data.index(form)
    return data[max(0, at - 200) : at + 60]


@pytest.mark.parametrize("before", range(7))
def test_a_word_is_found_wherever_it_begins_in_base64(before: int) -> None:
    """
    What is encoded along with something else is not hidden from this test.
    """
    data = base64.b64encode(b"?" * before + WORD.encode() + b"and more")

    assert any(form in data for form in forms(WORD))
