"""
The README and the pages on health and on many nodes, followed to the letter by a shell; only their addresses are other ones.
"""

from __future__ import annotations

import re
import signal

from pathlib import Path

import pytest

from tests.conftest import NeedServer
from tests.pages import DOCS
from tests.servers import free_port, wait_until
from tests.workers import Process

from .conftest import Stage
from .reader import Reader


pytestmark = pytest.mark.integration

README = DOCS.parent / "README.md"
TASK = """

@app.task
def order(number):
    return number
"""


@pytest.fixture
def shop(stage: Stage) -> Reader:
    """
    The README's reader, who has written the app.
    """
    closed = f"127.0.0.1:{free_port()}"
    reader = Reader(stage, README, {"localhost:4318": closed, "https://key@sentry.example.com": f"http://key@{closed}"})
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    (stage.folder / "shop.py").write_text(reader.here(block[1]) + TASK)
    return reader


def serve(shop: Reader) -> Process:
    """
    Start the README's sidecar, and its worker, which is returned.
    """
    shop.start("celery-obs", "exporter", says="Serving on")
    return shop.start("celery", "worker", says=" ready.")


def another(reader: Reader, page: Path, here: dict[str, str]) -> Reader:
    """
    Return the same reader, on another page.
    """
    made = Reader(reader.stage, page, {"localhost:19540": reader.address, **here})
    made.environ = reader.environ
    return made


def test_the_readmes_commands_work(shop: Reader) -> None:
    """
    A worker and a sidecar that serves its tasks; two variables more, and the doctor says where traces and errors go, or that nobody is there.
    """
    worker = serve(shop)
    code, said = shop.type("celery -A shop call shop.order --args='[7]'")
    assert 0 == code, said

    done = re.compile(r'celery_task_finished_total\{(?=[^}]*task="shop.order")(?=[^}]*state="success")[^}]*\} 1\b')
    wait_until(lambda: done.search(shop.type(f"curl -fsS {shop.address}/metrics")[1]), what="the sidecar to show the task")
    shop.export()
    worker.stop(signal.SIGTERM)
    shop.start("celery", "worker", says=" ready.")
    code, said = shop.run("celery", "doctor")

    assert 1 == code
    assert re.search(r"FAIL traces: on, to http://127", said), said
    assert re.search(r"FAIL errors: on, to http://\*\*\*@127", said), said

    code, said = shop.run("celery-obs", "deploy", "monitoring")

    assert 0 == code, said
    assert (shop.stage.folder / "monitoring/deploy/grafana/dashboards/celery-tasks.json").is_file()
    # These two are what a fresh clone is tried with.
    assert ["python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/celery-obs demo", "./tests/run"] == shop.left()


def test_the_page_on_health_works(shop: Reader, need_server: NeedServer) -> None:
    """
    Every way of asking gives the same answer, and the doctor's JSON has what each node said of itself.
    """
    need_server("jq")
    serve(shop)
    reader = another(shop, DOCS / "how-to" / "check-health.md", {"worker-7:19540": shop.address, "-A proj": "-A shop"})

    plain, documented, asked = reader.run("celery-obs", "health"), reader.run("health", "--json"), reader.run("curl")
    doctor, nodes = reader.run("obs", "doctor"), reader.run("doctor", "--json")

    said = (plain, documented, asked, doctor, nodes)
    assert [0] * 5 == [code for code, _ in said], said
    assert '"status": "healthy"' in documented[1]
    assert '"healthy"' in asked[1]
    assert re.search(r"OK +worker", doctor[1]), doctor[1]
    assert '"name": "metrics"' in nodes[1]
    assert [] == reader.left()


def test_the_page_on_many_nodes_works(stage: Stage) -> None:
    """
    The doctor has nothing to say of limits, and a node that was killed is forgotten by its name.
    """
    worker = stage.worker(name="celery@web-3")
    reader = Reader(stage, DOCS / "how-to" / "many-tasks-and-nodes.md")
    reader.environ["CELERY_OBS_BROKER_URL"] = stage.redis.url
    code, said = reader.run("doctor")
    assert 0 == code, said
    worker.stop(signal.SIGKILL)

    code, said = reader.run("forget-node")

    assert 0 == code, said
    assert "celery@web-3" in said
    assert not [path for path in stage.metrics_dir.iterdir() if "web-3" in path.name]
    assert [] == reader.left()
