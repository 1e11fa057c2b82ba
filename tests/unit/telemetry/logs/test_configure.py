"""
Setting up logging: what a line looks like in each format, and that nothing is left behind.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from celery import Celery
from celery.signals import setup_logging
from hypothesis import given
from hypothesis import strategies as st

from celery_obs.settings import load
from celery_obs.telemetry.logs.configure import LogSetup
from celery_obs.telemetry.logs.lines import TASK, direct, write, write_text


LOGGERS = (None, "celery", "celery.task", "celery.redirected", "celery.app.trace", "shop")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """
    Leave logging as it was.
    """
    before = [(log, list(log.handlers), log.level, log.propagate) for log in map(logging.getLogger, LOGGERS)]
    yield
    for log, handlers, level, propagate in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
    structlog.reset_defaults()


def set_up(stream: Any, *, level: int = logging.INFO, **chosen: Any) -> LogSetup:
    """
    Set up logging as a worker does, to *stream*.
    """
    app = Celery("shop", set_as_current=False)
    app.conf.worker_redirect_stdouts = False
    setup = LogSetup(app, load({}, {}, {"metrics_dir": "metrics", **chosen}))
    setup.receive(loglevel=level, logfile=stream)
    return setup


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """
    Where lines go; logging is ours for the test.
    """
    stream = io.StringIO()
    setup = set_up(stream)
    yield stream
    setup.disconnect()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_loggers_of_both_kinds_write_the_same_lines(stream: io.StringIO) -> None:
    """
    structlog's and the standard library's: message, extras, context, in JSON, without secrets.
    """
    structlog.contextvars.bind_contextvars(task="shop.sell")
    try:
        structlog.get_logger("shop").info("sold", hotel=7, token="swordfish")
        logging.getLogger("shop").info("sold %s", "one", extra={"hotel": 7, "token": "swordfish"})
    finally:
        structlog.contextvars.clear_contextvars()

    first, second = lines(stream)
    same = {"level": "info", "logger": "shop", "task": "shop.sell", "hotel": 7, "token": "***"}
    assert {**same, "event": "sold"} == {name: value for name, value in first.items() if name != "timestamp"}
    assert {**same, "event": "sold one"} == {name: value for name, value in second.items() if name != "timestamp"}


def test_an_exception_is_a_text_without_secrets(stream: io.StringIO) -> None:
    """
    Tracebacks are one field, and what they quote is redacted.
    """
    try:
        raise ValueError("password=swordfish")
    except ValueError:
        logging.getLogger("shop").exception("oh")
        structlog.get_logger("shop").exception("oh")

    for line in lines(stream):
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ValueError: password=***")
        assert "swordfish" not in json.dumps(line)


def test_json_of_the_programs_own_is_taken_apart(stream: io.StringIO) -> None:
    """
    What a renderer of the program's has made JSON of is not put into a text in ours.
    """
    logging.getLogger("shop").info('{"event": "sold", "hotel": 7, "api_key": "swordfish", "_record": 1}')
    logging.getLogger("shop").info('{"not json}')

    first, second = lines(stream)
    assert ("sold", 7, "***", False) == (first["event"], first["hotel"], first["api_key"], "_record" in first)
    assert '{"not json}' == second["event"]


def test_our_line_is_the_same_by_the_short_way_and_the_long_one(stream: io.StringIO) -> None:
    """
    A handler that a program adds gets our lines, too, and ours goes on.
    """
    other = logging.StreamHandler(extra := io.StringIO())
    log = logging.getLogger(TASK)
    write_text(log, logging.INFO, "task_finished", time.time(), '"task": "shop.sell"')
    logging.getLogger().addHandler(other)
    write_text(log, logging.INFO, "task_finished", time.time(), '"task": "shop.sell"')

    first, second = lines(stream)
    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    assert {"event": "task_finished", "task": "shop.sell"} == json.loads(extra.getvalue())


def test_the_console_has_lines_for_people() -> None:
    """
    The same facts, for eyes, and tracebacks without local variables.
    """
    setup = set_up(stream := io.StringIO(), log_format="console")
    try:
        swordfish = "swordfish"
        write(TASK, logging.INFO, "task_finished", {"task": "shop.sell", "state": "success"})
        try:
            raise ValueError(len(swordfish))
        except ValueError:
            logging.getLogger("shop").exception("oh")
    finally:
        setup.disconnect()

    text = stream.getvalue()
    assert "task_finished" in text
    assert "shop.sell" in text
    assert "ValueError: 9" in text
    assert "'swordfish'" not in text.replace('swordfish = "swordfish"', "")
    assert not text.startswith("{")


def test_levels_of_single_loggers(stream: io.StringIO) -> None:
    """
    log_levels makes single loggers quiet or talkative, whatever -l says.
    """
    setup = set_up(talkative := io.StringIO(), log_levels={"shop.quiet": "ERROR", "shop.loud": "DEBUG"})
    for name in ("quiet", "loud", "other"):
        logging.getLogger(f"shop.{name}").debug("debug")
        logging.getLogger(f"shop.{name}").info("info")
    setup.disconnect()
    for name in ("quiet", "loud"):
        logging.getLogger(f"shop.{name}").setLevel(logging.NOTSET)

    assert [("shop.loud", "debug"), ("shop.loud", "info"), ("shop.other", "info")] == [
        (line["logger"], line["event"]) for line in lines(talkative)
    ]


def test_tasks_without_a_line_of_ours_keep_celerys() -> None:
    """
    Celery's tracer is kept quiet only where every task has a line of ours.
    """
    tracer = logging.getLogger("celery.app.trace")

    levels = []
    for chosen in ({}, {"ignore_tasks": ["reports.*"]}, {"log_levels": {"celery.app.trace": "INFO"}}, {"log_levels": {TASK: "ERROR"}}):
        setup = set_up(io.StringIO(), **chosen)
        levels.append(tracer.getEffectiveLevel())
        setup.disconnect()
        logging.getLogger(TASK).setLevel(logging.NOTSET)
        tracer.setLevel(logging.NOTSET)

    assert [logging.WARNING, logging.INFO, logging.INFO, logging.INFO] == levels


def test_disconnecting_leaves_nothing() -> None:
    """
    After teardown there is no handler, no receiver and no short way of ours.
    """
    setup = set_up(io.StringIO())
    setup.connect()

    setup.disconnect()

    assert [] == logging.getLogger().handlers
    assert (None, False) == (direct.handler, direct.is_ours)
    assert not setup_logging.receivers
    assert logging.NOTSET == logging.getLogger("celery.app.trace").level


class Broken(io.StringIO):
    """
    Cannot be written to.
    """

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_harms_nobody(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A full disk is told in a sentence that shows nothing of the line, and the task goes on.
    """
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    setup = set_up(Broken())
    try:
        write_text(logging.getLogger(TASK), logging.INFO, "task_finished", time.time(), '"task": "swordfish"')
        logging.getLogger("shop").info("hello %s", "swordfish")
    finally:
        setup.disconnect()

    told = capsys.readouterr().err.splitlines()
    assert [f"celery_obs: a line of {name} could not be written: OSError" for name in (TASK, "shop")] == told


class Hostile:
    """
    Raises when it is looked at.
    """

    def __repr__(self) -> str:
        raise RuntimeError


VALUES = st.none() | st.floats() | st.text(max_size=20) | st.binary(max_size=20) | st.builds(Hostile) | st.dates()


@given(st.dictionaries(st.text(max_size=10), VALUES | st.lists(VALUES, max_size=3), max_size=4))
def test_whatever_is_logged_is_one_line_of_json(facts: dict[str, Any]) -> None:
    """
    Any value under any name: one object on one line, which any parser takes.
    """
    setup = set_up(stream := io.StringIO())
    try:
        structlog.get_logger("shop").info("said", facts=facts)
    finally:
        setup.disconnect()

    (line,) = stream.getvalue().splitlines()
    assert "said" == json.loads(line, parse_constant=pytest.fail)["event"]
