"""
Who sets up a worker's logging, and that everything that Celery lets one say about it still counts.
"""

from __future__ import annotations

import os

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from celery import Celery

from tests.clients import client_of
from tests.integration.test_logs import QUIET, lines_in
from tests.servers import RedisServer, wait_until
from tests.workers import Worker, celery_version


pytestmark = pytest.mark.integration

SOLO = ("-P", "solo", *QUIET)


def run(
    redis: RedisServer,
    folder: Path,
    *arguments: str,
    environ: Mapping[str, str],
    log: Path | None = None,
    then: Callable[[Celery], bool] | None = None,
) -> str:
    """
    Let a worker do one task, and return what it wrote.
    """
    worker = Worker(
        *arguments, redis=redis.url, folder=folder, app="logged", **{"CELERY_OBS_LOGS": "1", "CELERY_OBS_METRICS": "0", **environ}
    )
    worker.log = log or worker.log
    with worker, client_of(redis.url) as client:
        client.send_task("logged.say", args=(5,), ignore_result=True)
        wait_until(lambda: any("task_finished" in path.read_text() for path in folder.iterdir() if path.is_file()), what="the line")
        if then is not None:
            wait_until(lambda: then(client), what="what was asked for then")
    worker.redis.close()
    return worker.log.read_text()


def test_a_programs_own_receiver_is_in_charge_and_told(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Where the program sets up logging itself, its lines stay its own, and it is told once what it can add.
    """
    text = run(redis_server, tmp_path, *SOLO, "-l", "INFO", environ={"TEST_RECEIVER": "1"})

    assert "MINE celery.apps.worker w1@test ready." in text
    assert 1 == text.count("logging is set up by logged.set_up_logging. To have our context in its lines")
    assert "MINE logged.plain after 5 [logged.say " in text
    assert 'MINE celery_obs.task {"event": "task_finished", "task": "logged.say"' in text
    assert "celery.app.trace Task logged.say" not in text
    assert "received [logged.say " in text


def test_a_root_logger_that_is_not_to_be_hijacked_is_not(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    worker_hijack_root_logger=False with handlers of one's own counts as being in charge.
    """
    (tmp_path / "sitecustomize.py").write_text("import logging; logging.basicConfig(level='INFO', format='MINE %(name)s %(message)s')\n")
    environ = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent / "apps"), os.environ.get("PYTHONPATH", "")])}

    text = run(redis_server, tmp_path, *SOLO, "-l", "INFO", environ={"TEST_HIJACK": "0", **environ})

    assert "MINE celery.apps.worker w1@test ready." in text
    assert "logging is set up by worker_hijack_root_logger=False" in text


def test_level_file_processes_and_receivers_count_as_before(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    -l, --logfile with %i for each process, rotation of these, single loggers' levels, and receivers of after_setup_logger.
    """
    log, rotated = tmp_path / "w1-1.log", tmp_path / "w1-1.log.1"

    def is_rotated(client: Celery) -> bool:
        if not rotated.exists():
            log.rename(rotated)
        client.send_task("logged.say", args=(6,), ignore_result=True)
        return log.exists() and "task_finished" in log.read_text()

    text = run(
        redis_server,
        tmp_path,
        "-c",
        "1",
        *QUIET,
        "-l",
        "INFO",
        "--logfile",
        str(tmp_path / "%n-%i.log"),
        log=tmp_path / "w1-0.log",
        then=is_rotated,
        environ={"TEST_AMEND": "1", "CELERY_OBS_LOG_LEVELS": "logged=ERROR,celery.worker.strategy=WARNING"},
    )
    of_child = lines_in(rotated.read_text()) + lines_in(log.read_text())

    main = lines_in(text)
    assert {"amended", "w1@test ready."} <= {line["event"] for line in main}
    assert {"task_finished"} == {line["event"] for line in of_child if line["logger"] == "celery_obs.task"}
    assert not {"logged", "logged.plain", "celery.worker.strategy"} & {line["logger"] for line in [*main, *of_child]}
    assert {"info", "warning"} >= {line["level"] for line in main}


@pytest.mark.skipif(celery_version() < (5, 7), reason="worker_pool_start_method came with Celery 5.7.")
def test_one_line_of_configuration_is_enough_also_where_processes_are_spawned(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    With imports alone, main process and spawned children write the same lines.
    """
    environ = {"TEST_SETUP": "imports", "TEST_START_METHOD": "spawn"}

    lines = lines_in(run(redis_server, tmp_path, "-c", "1", *QUIET, "-l", "INFO", environ=environ))

    said = {line["event"]: line for line in lines}
    assert "w1@test ready." in said
    assert ("logged.say", 5, "logged.say") == (said["task_finished"]["task"], said["task_finished"]["number"], said["before"]["task"])
