"""
Scrubbing: a secret leaves with no report, wherever it stands, and what is none stays.
"""

from __future__ import annotations

import json

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.telemetry.errors.scrub import Scrubber
from celery_obs.telemetry.redaction import Redactor


SECRET = "zq-7f3e9a-hunter2"

NAMES = st.sampled_from(["password", "Authorization", "client_secret", "X-Api-Key", "refresh_token", "sentry_dsn", "Set-Cookie"])
PLACES = st.sampled_from(["extra", "contexts", "request", "user", "breadcrumbs"])
WORDS = st.text("abcdefgh ", max_size=7)
SECRETS = (
    st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=6, max_size=24)
    .filter(lambda text: not text.startswith("<") and not set(text) & set("'\"\\"))
    .map(lambda text: f"{text}7#")  # No word of a report itself.
)


def scrubbed(event: dict[str, Any], *keys: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    """
    Do what is done to a report on its way: learn of it as it was made, and scrub what JSON makes of it.
    """
    scrubber = Scrubber(Redactor(keys), known)
    return scrubber.scrub(json.loads(json.dumps(event, default=repr)), scrubber.learned(event))


def frames(**variables: object) -> dict[str, Any]:
    return {"exception": {"values": [{"type": "E", "stacktrace": {"frames": [{"module": "shop.tasks", "vars": variables}]}}]}}


def nested(depth: int, value: object) -> object:
    """
    Return *value* in so many levels of dicts and lists.
    """
    for level in range(depth):
        value = [value] if level % 2 else {"level": value}
    return value


@given(NAMES, PLACES, SECRETS, st.integers(0, 12), st.tuples(WORDS, WORDS))
def test_what_goes_under_a_secrets_name_is_nowhere_in_the_report(
    name: str, place: str, secret: str, depth: int, around: tuple[str, str]
) -> None:
    """
    At any depth, in any part, and wherever else the same text stands, such as in the exception's message.
    """
    before, after = around
    event = {
        place: nested(depth, {name: secret, "harmless": before}),
        "exception": {"values": [{"value": f"{before}{secret}{after}", "stacktrace": {"frames": [{"context_line": f"login({secret})"}]}}]},
    }

    sent = json.dumps(scrubbed(event), ensure_ascii=False)

    assert secret not in sent
    assert f'"harmless": "{before}"' in sent


@given(NAMES, SECRETS)
def test_local_variables_are_representations_and_known_without_their_quotes(name: str, secret: str) -> None:
    """
    sentry-sdk has the representation of a variable, and the message has the text.
    """
    event = frames(**{name: repr(secret), "message": repr(f"refused: {secret}")})

    assert secret not in json.dumps(scrubbed(event), ensure_ascii=False)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_nothing_makes_it_fail(value: object) -> None:
    """
    A report may hold anything.
    """
    scrubbed({"extra": {"value": value}, "breadcrumbs": value, "exception": value, "tags": value, "logentry": value, "logger": "celery.x"})


@given(st.dictionaries(st.text("abcdefgh", min_size=1), st.text("abcdefgh ") | st.integers() | st.none()))
def test_what_is_no_secret_stays(extra: dict[str, object]) -> None:
    """
    A report without secrets is sent as it is.
    """
    event = {"event_id": "1f", "level": "error", "extra": extra, "tags": {"task": "shop.pay"}}

    assert event == scrubbed(dict(event))


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"request": {"headers": [["Authorization", SECRET]]}}, id="pairs"),
        pytest.param({"extra": {"field": {"name": "password", "value": SECRET}}}, id="name and value"),
        pytest.param({"extra": {"sys.argv": ["celery", "--redis-password", SECRET]}}, id="command line"),
        pytest.param({"message": f"redis://:{SECRET}@host/0 refused {SECRET}"}, id="URL"),
        pytest.param({"message": f"Bearer {SECRET}"}, id="bearer"),
        pytest.param({"contexts": {"a": {"dsn": f"https://{SECRET}@host/1"}}}, id="DSN"),
        pytest.param(frames(headers={"'Cookie'": f"'{SECRET}'"}), id="representations of keys"),
        pytest.param({"extra": {"api_key": SECRET.encode(), "said": SECRET}}, id="bytes"),
        pytest.param({"extra": {"password": f"a'b\\{SECRET}", "said": repr({"x": f"a'b\\{SECRET}"})}}, id="escaped"),
        pytest.param({"extra": {f"token={SECRET}": 1}}, id="key"),
        pytest.param({"extra": {"pin_code": SECRET, "said": SECRET}}, id="a name of the user's"),
        pytest.param(
            {"threads": {"values": [{"stacktrace": {"frames": [{"module": "celery.app.trace", "vars": {"args": SECRET}}]}}]}},
            id="Celery's frames",
        ),
        pytest.param(
            {"logger": "celery.worker.consumer.consumer", "logentry": {"message": f"Unknown\nbody: {SECRET}"}}, id="Celery's bodies"
        ),
        pytest.param(
            {"breadcrumbs": {"values": [{"category": "celery.app.trace", "data": {"data": {"args": SECRET}}}]}}, id="Celery's records"
        ),
    ],
)
def test_a_secret_is_found_in_all_its_places(event: dict[str, Any]) -> None:
    """
    Headers as pairs, fields as name and value, options of commands, and what Celery writes of messages.
    """
    assert SECRET not in json.dumps(scrubbed(event, "pin_code"))


def test_our_own_secrets_are_known_from_the_start() -> None:
    """
    The DSN and the keys of the settings need not be found first.
    """
    assert {"message": "it is ***"} == scrubbed({"message": f"it is {SECRET}"}, known=(SECRET,))


def test_short_and_common_words_are_left_alone() -> None:
    """
    A password called "admin" does not blacken every other word.
    """
    event = {"extra": {"password": "admin", "token": "default"}, "message": "admin took the default"}

    assert "admin took the default" == scrubbed(event)["message"]


def test_a_secret_that_is_a_word_of_sentrys_leaves_the_report_whole() -> None:
    """
    A user's token may be called "stacktrace": its text is hidden, and the report can still be read.
    """
    event = frames(token="'stacktrace'", said="'a stacktrace'")

    (exception,) = scrubbed(event)["exception"]["values"]

    assert {"token": "***", "said": "'a ***'"} == exception["stacktrace"]["frames"][0]["vars"]
