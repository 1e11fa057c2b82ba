"""
Asking only looks, and the doctor tells what the running nodes say of themselves.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys

from pathlib import Path
from typing import Any

import pytest

from redis import Redis

from tests.servers import free_port, wait_until

from .conftest import Stage


pytestmark = pytest.mark.integration

OBS = (sys.executable, "-m", "celery_obs.cli")
DSN = "https://s3cr3tkey@sentry.example.invalid/42"


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """
    Take down all that is under *folder*: modes, times, contents.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
    return found


def keys_of(redis: Any) -> dict[bytes, bytes]:
    """
    Take down all that is in a Redis.
    """
    return {key: redis.dump(key) for key in redis.scan_iter()}


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "missing"])
def test_no_question_changes_anything(stage: Stage, is_there: bool) -> None:
    """
    No command that asks makes a directory, writes a file or a key, or declares a queue, where everything is there and where nothing is.
    """
    if is_there:
        worker = stage.worker()
        stage.client.send_task("observed.succeed")
        wait_until(lambda: worker.ran("succeed") == 1, what="a task to run")
        worker.stop(signal.SIGTERM)
    metrics_dir = stage.metrics_dir if is_there else stage.folder / "nowhere" / "metrics"
    url = stage.redis.url
    with Redis.from_url(url) as redis:
        redis.hset("circuit_breaker:airbnb:state", "state", "open")
        before = (tree(stage.metrics_dir), keys_of(redis))

        for number, words in enumerate(
            (
                ("doctor", "--redis-url", url, "--broker-url", url),
                ("doctor", "--redis-url", url, "--broker-url", url, "--json"),
                ("probe", "liveness"),
                ("probe", "readiness"),
                ("health", "--redis-url", url, "--exporter-url", f"http://127.0.0.1:{free_port()}"),
                ("breaker", "list", "--redis-url", url),
                ("tokens", "expiring", "--redis-url", url),
                ("reconciliation", "pending", "--redis-url", url),
                ("generate", "--check", "--out", str(stage.folder / "nothing")),
            )
        ):
            code, told = stage.run(*OBS, *words, name=f"ask-{number}", CELERY_OBS_METRICS_DIR=str(metrics_dir))
            assert code in {0, 1, 2}, told
            assert "Traceback" not in told

        assert before == (tree(stage.metrics_dir), keys_of(redis))
    assert not (stage.folder / "nowhere").exists()
    assert not (stage.folder / "nothing").exists()


def test_an_exporter_that_starts_makes_no_directory(stage: Stage) -> None:
    """
    It waits for the workers to make it, and is not ready until then.
    """
    missing = stage.folder / "nowhere" / "metrics"

    page = stage.exporter("--broker-url=", f"--metrics-dir={missing}")

    assert 503 == page.exporter.get("/-/ready").status
    assert not missing.parent.exists()


def test_the_doctor_tells_what_the_worker_said(stage: Stage) -> None:
    """
    Asked from a shell that has none of the worker's environment, it tells where the worker's traces and errors go, without secrets.
    """
    collector = f"http://user:pa55word@127.0.0.1:{free_port()}"
    worker = stage.worker(OTEL_EXPORTER_OTLP_ENDPOINT=collector, SENTRY_DSN=DSN, CELERY_OBS_LABEL_LIMIT="77")
    bare = {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "SENTRY_DSN": "", "CELERY_OBS_METRICS_DIR": str(stage.metrics_dir)}

    code, told = stage.run(*OBS, "doctor", "--json", name="doctor", **bare)
    worker.stop(signal.SIGTERM)
    _, after = stage.run(*OBS, "doctor", name="after", **bare)

    document = json.loads(told)
    checks = {each["name"]: each for each in document["checks"]}
    (node,) = document["nodes"]
    about = stage.metrics_dir / "w1@test.v1" / "about"
    assert (1, "fail") == (code, document["status"])  # The collector does not answer.
    assert ("fail", "w1@test") == (checks["traces"]["status"], checks["traces"]["node"])
    assert checks["traces"]["text"].startswith("on, to http://***@")
    assert "does not answer" in checks["traces"]["text"]
    assert "sentry.example.invalid/42" in checks["errors"]["text"]
    assert ("w1@test", "worker", True) == (node["node"], node["role"], node["ready"])
    assert 77 == node["announced"]["settings"]["label_limit"]
    assert {"heard_by": "tracer", "because": ""} == node["announced"]["attempts"]
    assert "Celery's tracer calls us directly. (as w1@test announced)" == checks["attempts"]["text"]
    assert stage.redis.url == node["announced"]["redis"]
    assert stat.S_IMODE(about.stat().st_mode) == 0o600
    for text in (told, about.read_text()):
        assert "pa55word" not in text
        assert "s3cr3tkey" not in text
    assert "off. To have them, set the endpoint of your collector" in after
    assert "by this shell's environment, because no running node has announced anything" in after


def test_publishers_and_beat_announce_themselves(stage: Stage) -> None:
    """
    Each process that records says which it is: beat with its logs, a publisher without any, each once for its node.
    """
    stage.beat()
    publish = "import observed, time; observed.succeed.delay(); print('sent', flush=True); time.sleep(60)"
    publisher = stage.process(sys.executable, "-c", publish, name="publisher")
    wait_until(lambda: "sent" in publisher.log.read_text(), what="the publisher")
    wait_until(lambda: len(list(stage.metrics_dir.glob("*/about"))) == 2, what="both to have said who they are")

    _, told = stage.run(*OBS, "doctor", "--json", name="doctor", CELERY_OBS_METRICS_DIR=str(stage.metrics_dir))

    nodes = {each["role"]: each["announced"] for each in json.loads(told)["nodes"]}
    assert {"beat", "publisher"} == nodes.keys()
    assert ["metrics", "logs", "traces", "errors"] == [each["name"] for each in nodes["beat"]["switches"]]
    assert ["metrics", "traces"] == [each["name"] for each in nodes["publisher"]["switches"]]
    assert (None, None) == (nodes["beat"]["attempts"], nodes["publisher"]["attempts"])
    assert os.uname().nodename in nodes["publisher"]["node"]
