"""
No secret gets out: secrets are planted wherever people have them, and every byte that leaves the processes is looked through.

Where a task's data has to be by its nature (its message at the broker, its result in the backend) the test does not look.
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
from redis import Redis

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
    "ask": 7,
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
    for what in ("kombu", "urlsplit", "redis", "redis url", "sentinel", "oauth", "yaml"):
        send("ask", what)
    send("fail", "pair", kwargs={"password": canary("keyword of what fails"), "note": canary("keyword of what fails")})
    send("fail_with", canary("positional argument of what fails"), kwargs={"options": {"token": canary("nested argument of what fails")}})
    send("refresh")
    send("hang", canary("argument of what hangs"), kwargs={"password": canary("keyword of what hangs")})
    send("die", canary("argument of what dies"), kwargs={"password": canary("keyword of what dies")})
    send("succeed", canary("argument of what expired"), expires=-10)
    send("succeed", argsrepr=repr([canary("argsrepr")]), kwargsrepr=repr({"note": canary("kwargsrepr")}))
    send("unregistered", canary("argument of an unknown task"), kwargs={"password": canary("keyword of an unknown task")})
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
    # A Redis that quotes what it is sent, as one does to which AUTH is no command.
    (folder / "deaf.conf").write_text("rename-command AUTH nothing\n")
    with (
        RedisServer(password=canary("password of the broker")) as redis,
        RedisServer(options={"include": str(folder / "deaf.conf")}) as deaf,
        Collector() as collector,
        SentryServer() as sentry,
    ):
        stage = Stage(redis, folder)
        try:
            yield _harvest(stage, deaf, collector, sentry)
        finally:
            stage.close()


def state_of(redis: RedisServer) -> str:
    """
    Make a user of Redis' ACLs, and return the URL of the cluster's state as that user.
    """
    password = canary("password of an ACL user")
    with Redis.from_url(redis.url) as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", f">{password}", "~*", "&*", "+@all")
    return f"redis://shop:{password}@127.0.0.1:{redis.port}/0"


def _harvest(stage: Stage, deaf: RedisServer, collector: Collector, sentry: SentryServer) -> Mapping[str, bytes]:
    state = state_of(stage.redis)
    environ = {
        "TEST_STATE": state,
        "TEST_DEAF": str(deaf.port),
        "TEST_DSN": sentry.dsn.replace(PUBLIC_KEY, canary("DSN")),
        "SENTRY_DSN": sentry.dsn.replace(PUBLIC_KEY, canary("DSN")),
        "TEST_HTTP": collector.url,
        "CELERY_OBS_LOGS": "1",
        **collector.environ,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {canary('OTLP headers')}",
    }
    worker = stage.worker(app="canaries", **environ)
    metrics = Metrics(worker.metrics_dir)
    page = stage.exporter(f"--broker-url={stage.redis.url}", f"--redis-url={state}", "--log-level=debug")
    refused = stage.exporter(
        f"--broker-url=redis://shop:{canary('password that is refused')}@127.0.0.1:{stage.redis.port}/0",
        f"--broker-url=redis://shop:{canary('argument of AUTH, of the broker')}@127.0.0.1:{deaf.port}/0",
        f"--redis-url=redis://shop:{canary('argument of AUTH, of the state')}@127.0.0.1:{deaf.port}/1",
        "--log-level=debug",
        "--log-format=json",
    )
    plant(stage)
    stage.client.send_task("canaries.control", args=[WORD])
    questions = [*_questions(stage, state), *_mistakes(stage, deaf)]
    asked = [stage.process(sys.executable, "-m", *words, name=f"asked-{number}", **environ) for number, words in enumerate(questions)]
    wait_until(lambda: _is_done(metrics, sentry), within=60, what="all tasks to end, and Sentry to hear of those that were lost")
    pages = [
        each.exporter.get(path, accept=accept).body for each in (page, refused) for path in PATHS for accept in ("text/html", OPENMETRICS)
    ]
    # The doctor says what is wrong here: the program that publishes is not observed.
    assert [0, 0, 0, 0, 1] == [process.wait(60) for process in asked[:5]]
    assert all(process.wait(60) for process in asked[5:])
    worker.stop()
    return {
        "logs": worker.log.read_bytes() + (stage.folder / "exporter.log").read_bytes(),
        "spans": b"\n".join(collector.bodies),
        "envelopes": b"\n".join(sentry.raw).replace(_addressee(), b""),
        "pages": "\n".join(pages).encode(),
        "terminal": b"\n".join(process.log.read_bytes() for process in asked),
    }


def _questions(stage: Stage, state: str) -> Iterator[tuple[str, ...]]:
    """
    What people ask a system whose settings they want to see.
    """
    celery = ("celery", "-A", "canaries")
    yield *celery, "report"
    for what in ("conf", "report", "stats"):
        yield *celery, "inspect", what, "--destination=w1@test", "--timeout=30"
    yield "celery_obs.cli", "doctor", f"--broker-url={stage.redis.url}", f"--redis-url={state}"


def _mistakes(stage: Stage, deaf: RedisServer) -> Iterator[tuple[str, ...]]:
    """
    What people get wrong, so that it is told what they gave.
    """
    ours = "celery_obs.cli"
    semicolon = f"{canary('before a semicolon')};{canary('behind a semicolon')}"
    question = f"{canary('before a question mark')}?{canary('behind a question mark')}"
    space = f"{canary('before a space')} {canary('behind a space')}"
    slash = f"12/{canary('behind a slash')}#{canary('behind a hash')}"
    at = f"{canary('before an at')}@{canary('behind an at')}%zz:{canary('behind a colon')}"
    for password in (semicolon, question, space, slash, at):
        yield ours, "doctor", f"--broker-url=amqp://shop:{password}@127.0.0.1:1//", f"--redis-url=redis://shop:{password}@127.0.0.1:1/0"
        yield ours, "breaker", "status", f"--redis-url=redis://shop:{password}@127.0.0.1:1/0"
        yield ours, "exporter", f"--broker-url=qpid://shop:{password}@127.0.0.1:1/x", "--web.listen-address=127.0.0.1:0"
        yield ours, "health", f"redis://shop:{password}@127.0.0.1:1/0"
    yield ours, "doctor", f"--redis-url=redis://shop:{canary('argument of AUTH, of doctor')}@127.0.0.1:{deaf.port}/0"
    yield ours, "health", f"--redis-url=redis://shop:{canary('argument of AUTH, of health')}@127.0.0.1:{deaf.port}/0"
    sentinel = f"sentinel://:{canary('password of Redis behind Sentinel')}@127.0.0.1:{deaf.port}/0?master_name=mine"
    for command in ("doctor", "health"):
        yield ours, command, f"--redis-url={sentinel}&sentinel_password={canary('password of the sentinels')}"
    objectives = stage.folder / "objectives.yml"
    objectives.write_text(f"- {{name: x, password: *{canary('file that is no YAML')}")
    yield ours, "generate", f"--slo={objectives}", f"--out={stage.folder}/out"


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
    assert len(places()) >= 80


@pytest.mark.parametrize("way", ["logs", "spans", "envelopes", "pages", "terminal"])
def test_what_was_said_aloud_is_found(harvest: Mapping[str, bytes], way: str) -> None:
    """
    A search through what left the processes finds what is there, whichever way it took.
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
