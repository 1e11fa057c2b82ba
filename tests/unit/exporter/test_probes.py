"""
Broker URLs, what is read off a message, and what is made of readings.
"""

from __future__ import annotations

import json
import math
import time

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.queues.announcements import QueueAnnouncement, decode_queue, encode_queue
from celery_obs.areas.queues.collector import QueuesCollector, page_of
from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.discovery import Discovery
from celery_obs.exporter.probes import QueueReading, probe_for
from celery_obs.exporter.probes.redis import connect, due_at
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.telemetry.redaction import redact_url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "no scheme"),
        ("rediss3://h", "Did you mean"),
        ("carrier-pigeon://h", "Known are"),
        ("redis://u:se/cret@h:port/0", "port is not a number"),
        ("redis://:secret@h:99999/0", "port is not a number"),
        ("redis://:secret@h:6379/zero", "names a database that is not a number"),
        ("amqp://:secret@", "names no host"),
        ("amqp://rabbit.example.com//", "no credentials"),
        ("sentinel://:secret@h:26379", "master_name"),
        ("rediss://:secret@h/0?ssl_cert_reqs=perhaps", "ssl_cert_reqs"),
        ("qpid://u:secret@h", "cannot"),
    ],
)
def test_a_broker_url_that_cannot_work_is_refused_in_one_paragraph(url: str, says: str) -> None:
    """
    The message says what is wrong and never shows a password.
    """
    with pytest.raises(ConfigurationError, match=says) as caught:
        probe_for(url)

    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:pass@h", "redis://:***@h"),
        ("amqp://u:p@ss/w@h//v", "amqp://u:***@h//v"),
        ("sentinel://u:p@a:1;sentinel://u:p@b:2", "sentinel://u:***@a:1;sentinel://u:***@b:2"),
        ("rediss://h?password=x", "rediss://h?password=***"),
    ],
)
def test_masks(url: str, shown: str) -> None:
    """
    Passwords of all hosts are hidden, also those that hold an @.
    """
    assert shown == redact_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "127.0.0.1", "port": 6379, "db": 0}),
        ("redis://u:p%40@h:7/3", {"host": "h", "port": 7, "db": 3, "username": "u", "password": "p@"}),
        ("redis+socket:///run/r.sock?virtual_host=2", {"path": "/run/r.sock", "db": 2}),
        ("unix:///run/r.sock", {"path": "/run/r.sock", "db": 0}),
        ("valkey://h", {"host": "h"}),
        ("rediss://h?ssl_cert_reqs=none", {"host": "h"}),
    ],
)
def test_redis_urls_are_read_as_kombu_reads_them(url: str, expected: dict[str, object]) -> None:
    """
    Host, port, database, user, password and socket arrive in the client.
    """
    used: dict[str, Any] = connect(url).connection_pool.connection_kwargs

    assert expected == {key: used[key] for key in expected}


def _message(headers: dict[str, object], body: str = "W10=") -> bytes:
    return json.dumps({"body": body, "content-type": "application/json", "headers": headers, "properties": {"priority": 0}}).encode()


def test_the_publish_stamp_is_found() -> None:
    """
    A plain message with our stamp is due when it was published.
    """
    assert 1.7e9 == due_at(_message({"task": "t", "celery_obs_published": 1.7e9, "eta": None}))


@pytest.mark.parametrize("stamp", [None, "1700000000", True, math.nan, math.inf, -5, 0, 12.0, 1e300, [1], {"a": 1}])
def test_an_impossible_stamp_is_no_stamp(stamp: object) -> None:
    """
    Whatever a foreign publisher puts there, nothing breaks and nothing is made up.
    """
    assert due_at(_message({"task": "t", "celery_obs_published": stamp})) is None


@pytest.mark.parametrize("eta", ["soon", "", "9999-99-99T00:00:00", 5, ["x"]])
def test_an_eta_that_is_none_is_ignored(eta: object) -> None:
    """
    The stamp alone decides then.
    """
    assert 1.7e9 == due_at(_message({"task": "t", "celery_obs_published": 1.7e9, "eta": eta}))


def test_a_stamp_inside_of_a_text_is_no_stamp() -> None:
    """
    Arguments that look like our header are arguments.
    """
    argument = '"headers": {"task": "t", "celery_obs_published": 1700000000.0}, '

    assert due_at(_message({"task": "t", "argsrepr": argument}, body=argument)) is None


def test_the_ends_of_a_cut_message_are_enough() -> None:
    """
    With its middle gone, the headers at the end are read all the same, also when they themselves are cut.
    """
    whole = _message({"task": "t", "celery_obs_published": 1.7e9}, body="x" * 10_000)
    cut_headers = _message({"argsrepr": "y" * 10_000, "celery_obs_published": 1.7e9, "eta": "2100-01-01T00:00:00Z"})

    assert 1.7e9 == due_at(whole[:100] + b"\0" + whole[-300:])
    assert 4102444800 == due_at(cut_headers[:50] + b"\0" + cut_headers[-200:])


@given(st.binary(max_size=200))
def test_any_bytes_can_lie_in_a_queue(content: bytes) -> None:
    """
    What is no message has no age.
    """
    assert due_at(content) is None


@given(
    st.builds(
        QueueAnnouncement,
        seen=st.floats(min_value=0, max_value=1e14),
        exchange=st.text(),
        priority_steps=st.lists(st.integers(-10, 300), min_size=1, max_size=20).map(tuple),
        sep=st.text(),
        global_keyprefix=st.text(),
        unacked_key=st.text(),
    )
)
def test_an_announcement_survives_the_way_through_redis(announcement: QueueAnnouncement) -> None:
    """
    Encode, then decode, is identity.
    """
    assert announcement == decode_queue(encode_queue(announcement))


@pytest.mark.parametrize(
    "written",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"seen": "x"}',
        '{"seen": true}',
        '{"seen": NaN}',
        '{"seen": 1e400}',
        '{"seen": 1, "sep": 3}',
        '{"seen": 1, "priority_steps": []}',
        "[" * 100_000,
    ],
)
def test_what_is_no_announcement_is_passed_over(written: str) -> None:
    """
    Any client can write to Redis.
    """
    assert decode_queue(written) is None


def test_unknown_numbers_are_absent_and_ages_never_negative() -> None:
    """
    A reading without consumers has no sample of them; a message from the future has waited 0 s.
    """
    text = page_of({"q": QueueReading(depth=2, oldest_due_at=150.0)}, now=100.0).text

    assert 'celery_queue_depth{queue="q"} 2.0\n' in text
    assert 'celery_queue_oldest_message_age_seconds{queue="q"} 0.0\n' in text
    assert "consumers" not in text
    assert "unacked" not in text


def test_without_the_announcements_the_known_queues_are_still_read() -> None:
    """
    When the Redis of the announcements is down and the broker is not, the depths go on.
    """

    class Deaf(Discovery):
        def refresh(self) -> None:
            raise ConnectionError

    class Probe:
        def probe(self, queues: Any) -> Any:
            return {queue: QueueReading(depth=1) for queue in queues}

        def close(self) -> None:
            raise NotImplementedError

    errors = InternalErrors()
    page = QueuesCollector(Probe(), Deaf(["q"]), errors=errors, clock=time.time).collect()

    assert 'celery_queue_depth{queue="q"} 1.0\n' in page.text
    assert {"discovery": 1} == errors.snapshot()
