"""
Redaction hides secrets wherever they stand, leaves everything else, and cannot be made slow.
"""

from __future__ import annotations

import json
import time

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.telemetry.redaction import DEEPEST, HIDDEN, LONGEST, WIDEST, Redactor


REDACTOR = Redactor(["pin", "tax number"])

SECRETS = st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=12, max_size=40).map(lambda text: f"Zq{text}7")
"""
What is not written by chance.
"""

CARRIERS: list[Callable[[str], str]] = [
    lambda secret: f"redis://:{secret}@host:6379/0",
    lambda secret: f"amqp://user:{secret}@host//",
    lambda secret: f"https://{secret}@o1.ingest.sentry.io/4",
    lambda secret: f"https://public:{secret}@sentry.example.com/4",
    lambda secret: f"GET https://api.example.com/v1?access_token={secret}&page=2",
    lambda secret: f"https://example.com/callback?code={secret}&x=1",
    lambda secret: f"https://store.example.com/blob?X-Amz-Signature={secret}",
    lambda secret: f"Authorization: Bearer {secret}",
    lambda secret: f"authorization: Digest username={secret}, realm={secret}",
    lambda secret: f"bearer {secret}",
    lambda secret: f"Basic {secret}==",
    lambda secret: f"{{'Cookie': 'session={secret}'}}",
    lambda secret: f"Set-Cookie: a={secret}; Path=/",
    lambda secret: f"X-API-Key: {secret}",
    lambda secret: f"password={secret}",
    lambda secret: f"Config(host='h', password='{secret}', port=1)",
    lambda secret: f"client_secret => {secret}",
    lambda secret: json.dumps({"nested": {"refresh_token": secret}}),
    lambda secret: json.dumps(json.dumps({"api_key": secret})),
    lambda secret: repr({"private_key": secret.encode()}),
    lambda secret: repr([(b"authorization", b"Bearer " + secret.encode())]),
    lambda secret: f"grant_type=authorization_code&code={secret}&client_id=me",
    lambda secret: f"redis-cli --pass-phrase x --password {secret} ping",
    lambda secret: f"eyJ{secret}.eyJ{secret}.{secret}",
    lambda secret: f"-----BEGIN RSA PRIVATE KEY-----\n{secret}\n{secret}\n-----END RSA PRIVATE KEY-----",
    lambda secret: f"-----BEGIN PRIVATE KEY-----\n{secret}",
    lambda secret: f"https://hooks.slack.com/services/T000/B000/{secret}",
    lambda secret: f"ghp_{secret}{secret}",
    lambda secret: f"card_pin={secret}",
    lambda secret: f"taxNumber: {secret}",
    lambda secret: f"token='{secret} is not closed",
]

NOISE = st.text(max_size=60).filter(lambda text: not any(character in text for character in "\"'\\"))


@given(SECRETS, NOISE, NOISE)
def test_a_secret_is_hidden_wherever_it_stands_in_a_text(secret: str, before: str, after: str) -> None:
    """
    URLs, headers, forms, JSON, reprs and keys: what is in them does not come out, whatever stands around them.
    """
    for carrier in CARRIERS:
        hidden = REDACTOR.text(f"{before} {carrier(secret)} {after}")

        assert secret not in hidden
        assert HIDDEN in hidden


@given(SECRETS)
def test_hiding_twice_changes_nothing(secret: str) -> None:
    """
    What went through one redaction may go through another.
    """
    for carrier in CARRIERS:
        once = REDACTOR.text(carrier(secret))

        assert once == REDACTOR.text(once)


@given(st.text(), st.integers(0, 3))
def test_any_text_can_be_redacted(text: str, times: int) -> None:
    """
    No text makes it raise.
    """
    assert isinstance(REDACTOR.text(text * 10**times), str)


@pytest.mark.parametrize(
    "text",
    [
        "Task channel_manager.refresh_single_token[5c6e2f0a] succeeded in 0.2s",
        "token_type=Bearer",
        "max_tokens: 4096",
        "expired_tokens=12",
        "https://host:8080/path?email=a@b.example",
        "https://example.com/@user/page",
        "basic authentication failed",
        "keyJsonSerializer",
        "primary key: 5",
        "shipping=1 spinner: 3",
        "exit code: 3",
        "2026-01-01 12:00:00 INFO nothing to see",
        "redis://host:6379/0",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """
    A log that hides everything is no help.
    """
    assert text == REDACTOR.text(text)


NAMES = [
    *("authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "X-Api-Key", "apiKey", "access_token", "refreshToken", "csrftoken"),
    *("client_secret", "password", "db_password", "passwd", "SENTRY_DSN", "private_key", "credentials", "aws_secret_access_key", "cardPin"),
]


def nested(leaf: object) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "data", "headers", "items", "0"])
    return st.recursive(
        st.just(leaf),
        lambda inner: st.one_of(st.dictionaries(names, inner, min_size=1), st.lists(inner, min_size=1, max_size=3)),
        max_leaves=6,
    )


@given(name=st.sampled_from(NAMES), data=st.data(), secret=SECRETS)
def test_a_secret_is_hidden_under_its_name_at_any_depth(name: str, data: st.DataObject, secret: str) -> None:
    """
    Whatever goes under the name of a secret is one: texts, numbers, lists and dicts of them.
    """
    value = data.draw(nested({name: data.draw(st.sampled_from([secret, [secret], {"x": secret}, secret.encode(), (secret, 1)]))}))

    assert secret not in json.dumps(REDACTOR.value(value))


def test_what_a_name_says_about_a_secret_stays() -> None:
    """
    That there is a token, how many and until when is no secret.
    """
    facts = {"token": None, "password": "", "has_token": True, "tokens": 3, "token_type": "bearer", "token_expires_at": 17.5}

    assert facts == REDACTOR.value(facts)


def test_pairs_are_headers() -> None:
    """
    Headers come as lists of pairs, too, of text or of bytes.
    """
    assert [["cookie", HIDDEN], ["accept", "*/*"]] == REDACTOR.value([("cookie", "a=b"), (b"accept", b"*/*")])


class Hostile(Mapping[str, object]):
    """
    Raises when one looks at it.
    """

    def __getitem__(self, key: str) -> object:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class Unspeakable:
    """
    Raises when it is asked what it is.
    """

    def __repr__(self) -> str:
        raise RuntimeError


def test_hostile_objects_are_named() -> None:
    """
    An object that raises when one looks at it is shown by its type.
    """
    assert {"a": "<Hostile>", "b": ["<Unspeakable>"]} == REDACTOR.value({"a": Hostile(), "b": [Unspeakable()]})


def test_what_json_does_not_know_becomes_text() -> None:
    """
    Dates read as dates, errors with their type, and what an object says of itself has its secrets hidden.
    """

    class Connection:
        def __repr__(self) -> str:
            return "<Connection token=abc>"

    value = [date(2026, 1, 2), ValueError("password=abc"), {3: Connection()}, frozenset({1})]

    assert ["2026-01-02", "ValueError: password=***", {"3": "<Connection token=***"}, [1]] == REDACTOR.value(value)


def test_size_is_bounded() -> None:
    """
    However deep, wide or long something is, a line stays a line.
    """
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    around: dict[str, Any] = {}
    around["around"] = around

    assert DEEPEST + 1 == json.dumps(REDACTOR.value(deep)).count("[")
    assert len(json.dumps(REDACTOR.value(around))) < 20 * (DEEPEST + 1)
    assert WIDEST + 1 == len(REDACTOR.value(list(range(10_000))))  # type: ignore[arg-type] # a list of that length.
    assert LONGEST + 1 == len(REDACTOR.text("x" * 10**6))
    assert len(json.dumps(REDACTOR.value([[["x"] * 200] * 30] * 30))) < 10**6


def test_a_secret_at_the_cut_is_hidden() -> None:
    """
    Where a long text is cut, half a secret is a secret, too.
    """
    text = "x" * (LONGEST - 30) + " redis://user:swordfish7swordfish@host"

    assert "swordfish7" not in REDACTOR.text(text)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "password",
            "a://",
            "a://b:",
            "token=",
            'token=\\"',
            "token='\\",
            "eyJ_",
            "_eyJ",
            "--",
            "--token",
            "BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
        ),
        *(
            "authorization:",
            "authorization ",
            "bearer ",
            "token\\\\\\\\",
            "token    ",
            "token\\\\\\\\'",
            "&code=",
            "key-",
            "pin",
            "pin_",
            "a" * 80,
        ),
    ],
)
def test_no_text_makes_it_slow(piece: str) -> None:
    """
    The work grows no faster than the text, whatever it holds: the worst of the longest takes a fraction of a second.
    """
    text = (piece * LONGEST)[:LONGEST]

    began = time.process_time()
    REDACTOR.text(text)

    assert time.process_time() - began < 1.0
