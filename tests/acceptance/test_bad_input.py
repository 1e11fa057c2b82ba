"""
Bad input: at start one paragraph that says what is wrong and what to do; at run time a count; never a lost task.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RabbitMQServer, free_port, kombu_connection, wait_until
from tests.workers import settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

WORKER = (sys.executable, "-m", "celery", "-A", "census", "worker", "--concurrency=1", "-n", "bad@test")
BEAT = (sys.executable, "-m", "celery", "-A", "census", "beat", "--pidfile=", "-l", "ERROR")
EXPORTER = (sys.executable, "-m", "celery_obs.cli", "exporter")


def paragraph(said: str, start: str) -> str:
    """
    Return the one line that begins with *start*, what a log puts before it aside; there is no second one, and no traceback.
    """
    assert "Traceback" not in said
    found = [line for line in said.splitlines() if line.startswith(start) or f"Process] {start}" in line]
    assert 1 == len(found), said
    return found[0]


# --- settings -------------------------------------------------------------------------------------------------------------------------

SETTINGS = [
    pytest.param(
        {"CENSUS_CONF": "{'celery_obs': {'metrics_dri': '/x'}}"}, ["metrics_dri", "Did you mean metrics_dir?"], id="unknown in the dict"
    ),
    pytest.param({"CENSUS_CONF": "{'obs_lable_limit': 5}"}, ["lable_limit", "Did you mean label_limit?"], id="unknown key"),
    pytest.param({"CENSUS_CONF": "{'celery_obs': 'yes'}"}, ["'yes'", "Expected a dict"], id="no dict"),
    pytest.param(
        {"CENSUS_CONF": "{'celery_obs': {'label_limit': 'many'}}"}, ["label_limit", "'many'", "whole number"], id="wrong type in the dict"
    ),
    pytest.param({"CENSUS_CONF": "{'obs_metrics': 'maybe'}"}, ["metrics", "'maybe'", "a boolean"], id="wrong type in a key"),
    pytest.param({"CELERY_OBS_HEARTBEAT_INTERVAL": "-1"}, ["heartbeat_interval", "'-1'", "above 0"], id="wrong type in a variable"),
    pytest.param({"CELERY_OBS_REDIS_URL": "http://:secret@host"}, ["redis_url", "redis://"], id="no Redis"),
]


@pytest.mark.parametrize("command", [pytest.param(WORKER, id="worker"), pytest.param(BEAT, id="beat")])
@pytest.mark.parametrize(("environ", "words"), SETTINGS)
def test_a_wrong_setting_ends_the_start_with_one_paragraph(
    stage: Stage, command: tuple[str, ...], environ: dict[str, str], words: list[str]
) -> None:
    """
    Worker and beat refuse a setting that is unknown or of the wrong type, and say which, where, and what is expected.
    """
    code, said = stage.run(*command, name="bad", **environ)

    line = paragraph(said, "celery_obs: ")
    assert 0 != code
    assert [] == [word for word in words if word not in line]
    assert "secret" not in said


def test_a_wrong_setting_is_told_in_the_log_file_and_on_the_terminal(stage: Stage) -> None:
    """
    With ``--logfile`` the person at the terminal reads it as well as the one who looks into the file later.
    """
    code, said = stage.run(*WORKER, f"--logfile={stage.folder}/worker.log", name="bad", CELERY_OBS_LABEL_LIMIT="many")

    assert 0 != code
    for text in (said, (stage.folder / "worker.log").read_text()):
        assert "The setting label_limit is 'many'" in paragraph(text, "celery_obs: ")


def test_a_wrong_argument_of_setup_ends_the_start(stage: Stage) -> None:
    """
    What is wrong in the app's own call is told there, with the same words.
    """
    code, said = stage.run(
        sys.executable, "-c", "import celery, celery_obs; celery_obs.setup(celery.Celery('x'), lable_limit=5)", name="bad"
    )

    assert 0 != code
    assert "celery_obs.exceptions.ConfigurationError: Unknown setting 'lable_limit' (argument of setup())" in said
    assert "Did you mean label_limit?" in said


@pytest.mark.parametrize("command", [pytest.param(WORKER, id="worker"), pytest.param(BEAT, id="beat")])
@pytest.mark.parametrize(
    ("where", "words"),
    [("a file", "is not a directory"), ("below a file", "cannot be made by uid"), ("/proc/none", "cannot be made by uid")],
)
def test_an_impossible_metrics_directory_ends_the_start(stage: Stage, command: tuple[str, ...], where: str, words: str) -> None:
    """
    Worker and beat name the directory, the user and what to do.
    """
    file = stage.folder / "file"
    file.touch()
    place = {"a file": str(file), "below a file": str(file / "metrics")}.get(where, where)

    code, said = stage.run(*command, name="bad", CELERY_OBS_METRICS_DIR=place)

    line = paragraph(said, "celery_obs: ")
    assert 0 != code
    assert f"CELERY_OBS_METRICS_DIR is {place}, which {words}" in line


def test_a_publisher_with_a_wrong_setting_publishes(stage: Stage) -> None:
    """
    A program with work of its own is not stopped by a setting of ours: it is told in its log, and its task is sent.
    """
    code, said = stage.run(
        sys.executable, "-c", "from census import count; count.delay(); print('sent')", name="bad", CELERY_OBS_LABEL_LIMIT="many"
    )

    assert 0 == code
    assert "sent" in said
    assert "The setting label_limit is 'many'" in said


# --- the sidecar ----------------------------------------------------------------------------------------------------------------------

OPTIONS = [
    pytest.param(["--broker-url=rabit://localhost"], ["'rabit'", "Known are"], id="unknown transport"),
    pytest.param(["--broker-url=localhost:6379"], ["no scheme", "redis://"], id="no scheme"),
    pytest.param(["--broker-url=amqp://rabbit.example.org//"], ["no credentials", "CELERY_OBS_BROKER_URL"], id="no credentials"),
    pytest.param(
        ["--redis-url=amqp://:secret@localhost", "--broker-url=redis://localhost"], ["is not a Redis URL"], id="Redis that is none"
    ),
    pytest.param(["--web.listen-address=localhost"], ["Expected host:port"], id="no port"),
    pytest.param(["--web.listen-address=127.0.0.1:99999"], ["Expected host:port"], id="port too high"),
    pytest.param(["--web.listen-address=no.such.host.invalid:1"], ["not known"], id="unknown host"),
    pytest.param(["--web.config.file=/no/such/file.yml"], ["/no/such/file.yml"], id="no web configuration"),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS)
def test_a_wrong_option_ends_the_sidecar_with_one_paragraph(stage: Stage, options: list[str], words: list[str]) -> None:
    """
    The sidecar refuses what cannot work, says why, and ends with code 2.
    """
    address = [] if any("listen" in option for option in options) else [f"--web.listen-address=127.0.0.1:{free_port()}"]

    code, said = stage.run(*EXPORTER, *address, *options, name="bad")

    line = paragraph(said, "Error: ")
    assert 2 == code
    assert [] == [word for word in words if word not in line]
    assert "secret" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("basic_auth_users: [", "YAML"),
        ("basic_auth_user: {}", "Did you mean basic_auth_users?"),
        ("basic_auth_users: {anna: secret}", "basic_auth_users.anna"),
        ("tls_server_config: {cert_file: none.pem, key_file: none.key}", "none.pem"),
        ("- just a list", "mapping"),
    ],
)
def test_a_malformed_web_configuration_ends_the_sidecar(stage: Stage, text: str, words: str) -> None:
    """
    A security setting that cannot be honoured is refused, by its key, and without showing what is secret.
    """
    config = stage.folder / "web.yml"
    config.write_text(text)

    code, said = stage.run(*EXPORTER, f"--web.listen-address=127.0.0.1:{free_port()}", f"--web.config.file={config}", name="bad")

    assert 2 == code
    assert words in paragraph(said, "Error: ")
    assert "secret" not in said


@pytest.fixture
def taken() -> Iterator[int]:
    """
    A port that is in use.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_ends_the_sidecar(stage: Stage, taken: int) -> None:
    """
    The sidecar says which address is taken.
    """
    code, said = stage.run(*EXPORTER, f"--web.listen-address=127.0.0.1:{taken}", name="bad")

    assert 2 == code
    assert f"Cannot listen on 127.0.0.1:{taken} (Address already in use). Another program is listening there" in paragraph(said, "Error: ")


def test_a_sidecar_without_a_metrics_directory_serves_and_says_so(stage: Stage) -> None:
    """
    The worker may come later: the sidecar answers, is not ready, and says which directory it misses.
    """
    stage.metrics_dir.rmdir()
    page = stage.exporter()

    assert 0 == page.find("celery_obs_collector_success", collector="workers")
    answer = page.exporter.get("/-/ready")
    assert 503 == answer.status
    assert str(stage.metrics_dir) in answer.body

    stage.metrics_dir.mkdir()

    settle_at(1, lambda: page.find("celery_obs_collector_success", collector="workers"))
    settle_at(200, lambda: page.exporter.get("/-/ready").status)


def test_a_broker_that_refuses_the_password_is_told_on_the_page(stage: Stage) -> None:
    """
    A RabbitMQ that refuses a wrong password: the collector failed, everything else is served, and the log hides the password.
    """
    with RabbitMQServer() as broker:
        page = stage.exporter(f"--broker-url=amqp://guest:wrong-secret@127.0.0.1:{broker.port}//", "--queues=work")

        settle_at(0, lambda: page.find("celery_obs_collector_success", collector="queues"))

        settle_at(1, lambda: page.find("celery_obs_collector_success", collector="ourselves"))
        wait_until(lambda: "The collector queues failed" in page.exporter.log.read_text(), what="the word in the log")
        assert "wrong-secret" not in page.exporter.log.read_text()


# --- messages of strangers ------------------------------------------------------------------------------------------------------------

STAMPS: list[Any] = ["soon", "", float("nan"), float("inf"), -1, 0, 1e300, 10**400, True, {}, [], {"a": 1}, [1.0], "1" * 100]
HEADERS: list[dict[str, Any]] = [
    *({"celery_obs_published": stamp} for stamp in STAMPS),
    *({"celery_obs_due": stamp, "celery_obs_published": stamp} for stamp in STAMPS),
    {"retries": -5},
    {"retries": 10**30, "celery_obs_published": "soon"},
    {"celery_obs_entry": {"a": 1}},
    {"celery_obs_entry": "x" * 10_000},
    {"celery_obs_entry": 5, "celery_obs_due": None},
    {"headers": {"celery_obs_published": "soon"}},
]


def send_raw(connection: Any, *, task: str, **headers: Any) -> None:
    """
    Send a protocol 2 message as a stranger would write it.
    """
    task_id = str(uuid.uuid4())
    with connection.SimpleQueue("work") as queue:
        queue.put(
            ([], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}),
            headers={"lang": "py", "task": task, "id": task_id, "root_id": task_id, "parent_id": None, "group": None, **headers},
            correlation_id=task_id,
            content_encoding="utf-8",
        )


def test_headers_that_make_no_sense_are_counted_and_the_task_runs(stage: Stage) -> None:
    """
    Whatever a foreign publisher writes into our headers, its task runs and is counted once, and no waiting time is made up.
    """
    worker = stage.worker()
    page = stage.exporter()

    with kombu_connection(stage.redis.url) as connection:
        for headers in HEADERS:
            send_raw(connection, task="observed.succeed", **headers)

    settle_at({"success": len(HEADERS)}, lambda: page.states("succeed"))
    assert len(HEADERS) == worker.ran("succeed")
    assert len(HEADERS) == page.find("celery_task_started_total", task="observed.succeed")
    assert (page.find("celery_obs_dropped_total", reason="bad_header") or 0) >= len(STAMPS)
    assert (page.find("celery_task_queue_wait_seconds_sum", task="observed.succeed") or 0) < 3600
    assert (page.find("celery_task_latency_seconds_sum", task="observed.succeed") or 0) < 3600
    assert page.find("celery_obs_internal_errors_total") is None
    assert "celery_obs/" not in worker.log.read_text()


def test_messages_that_celery_refuses_are_counted_as_rejected(stage: Stage) -> None:
    """
    An ETA that is no time, a body that is none and an unregistered task end without an attempt; each is counted, and the worker goes on.
    """
    worker = stage.worker()
    page = stage.exporter()

    with kombu_connection(stage.redis.url) as connection:
        send_raw(connection, task="observed.succeed", eta="garbage")
        send_raw(connection, task="observed.nobody_knows_me")
        with connection.SimpleQueue("work") as queue:
            queue.put({"no": "task"})
    stage.client.send_task("observed.succeed")

    settle_at({"success": 1}, lambda: page.states("succeed"))
    settle_at(1, lambda: page.find("celery_task_finished_total", task="_unregistered", state="rejected"))
    wait_until(lambda: (page.find("celery_task_finished_total", task="_malformed", state="rejected") or 0) >= 1, what="the malformed ones")
    assert 1 == worker.ran("succeed")
    assert page.find("celery_obs_internal_errors_total") is None
    assert "celery_obs/" not in worker.log.read_text()


def test_a_directory_with_garbage_in_it_is_served(stage: Stage) -> None:
    """
    Files and folders that are none of ours, damaged ones and such of another version do not spoil the page.
    """
    (stage.metrics_dir / "notes.txt").write_text("hello")
    (stage.metrics_dir / "old@test.v0").mkdir()
    broken = stage.metrics_dir / "broken@test.v1"
    broken.mkdir()
    (broken / "layout").write_bytes(os.urandom(300))
    (broken / "slot-0").write_bytes(os.urandom(300))
    stage.worker()
    page = stage.exporter()
    stage.client.send_task("observed.succeed")

    settle_at({"success": 1}, lambda: page.states("succeed"))
    assert 1 == page.find("celery_obs_metric_files", state="unsupported")
    assert (page.find("celery_obs_metric_files", state="corrupt") or 0) >= 1
    assert 3 == page.find("celery_obs_metric_files", state="live")
    assert Path(broken / "layout").exists()
