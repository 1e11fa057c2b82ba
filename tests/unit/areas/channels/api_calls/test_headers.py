"""
What headers say about when to ask again: every form of a time, every family of rate limit headers, and nothing that breaks the reading.
"""

from __future__ import annotations

import email.message
import time

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
import requests

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.api_calls.headers import lowered, moment_of
from celery_obs.areas.channels.errors import RateLimitAnswer, header, rate_limit_answer, seconds_of
from celery_obs.testing import FakeClock


NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC, a Friday.
CLOCK = FakeClock(NOW)


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/St_Johns"])
def _local_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    The machine's own time zone, which no answer depends on.
    """
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


FORMS = [
    ("30", 30.0),
    (" 30 ", 30.0),
    ("30.5", 30.5),
    ("+30", 30.0),
    ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
    ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),
    ("Fri Jan 15 08:00:30 2027", 30.0),
    ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
    ("Fri, 15 Jan 2027 09:00:30 +0100", 30.0),
    ("2027-01-15T08:00:30Z", 30.0),
    ("2027-01-15T08:00:30+00:00", 30.0),
    ("2027-01-15 08:00:30", 30.0),
    ("2027-01-15T08:00:30.5Z", 30.5),
    ("2027-01-15T08:00:30.123456789Z", 30.123456),
    ("1800000030", 30.0),
    ("1800000030.5", 30.5),
    ("1800000030000", 30.0),
    ("1800000030000000", 30.0),
    ("1800000030000000000", 30.0),
    ("1m30s", 90.0),
    ("6m0s", 360.0),
    ("250ms", 0.25),
    ("1h", 3600.0),
    ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
    ("1799999000", 0.0),
    ("0", 0.0),
    ("90000", 86400.0),
    ("1900000000", 86400.0),
    ("1e400", 86400.0),
    ("9" * 60, 86400.0),
    ("-30", None),
    ("-1800000030", None),
    ("nan", None),
    ("inf", None),
    ("soon", None),
    ("", None),
    ("Fri, 32 Foo 2027 99:99:99 GMT", None),
    ("2027-13-45T99:00:00Z", None),
    ("9" * 10_000, None),
    ("٣٠", None),
]


@pytest.mark.usefixtures("_local_zone")
@pytest.mark.parametrize(("value", "expected"), FORMS, ids=[f"{n} {value[:30]!a}" for n, (value, _) in enumerate(FORMS)])
def test_a_time_is_read_in_every_form_and_wherever_the_machine_is(value: str, expected: float | None) -> None:
    """
    Seconds, the three dates of HTTP, ISO 8601, and times since the epoch in four units; within a day, and nothing of what makes no sense.
    """
    found = seconds_of(value, clock=CLOCK)

    assert expected == (found if found is None else pytest.approx(found, abs=1e-3))


@given(seconds=st.integers(0, 86_400), form=st.sampled_from(["imf", "850", "asctime", "iso", "s", "ms", "us"]))
def test_all_forms_of_one_moment_are_the_same_number_of_seconds(seconds: int, form: str) -> None:
    """
    However a channel writes it.
    """
    moment = datetime.fromtimestamp(NOW, timezone.utc) + timedelta(seconds=seconds)
    written = {
        "imf": moment.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "850": moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        "asctime": moment.ctime(),
        "iso": moment.isoformat(),
        "s": str(int(moment.timestamp())),
        "ms": str(int(moment.timestamp() * 1000)),
        "us": str(int(moment.timestamp() * 1_000_000)),
    }[form]

    assert seconds == pytest.approx(seconds_of(written, clock=CLOCK), abs=1e-3)
    assert moment.timestamp() == pytest.approx(moment_of(written), abs=1e-3)


@given(
    value=st.text(max_size=80) | st.binary(max_size=80) | st.from_regex(r"[-+]?[0-9.eE]{1,30}", fullmatch=True) | st.none() | st.integers()
)
def test_no_value_breaks_the_reading(value: Any) -> None:
    """
    Whatever a channel sends, it is a number of seconds within a day, or nothing.
    """
    seconds = seconds_of(value, clock=CLOCK)

    assert seconds is None or 0 <= seconds <= 86_400


def of_message(pairs: dict[str, str]) -> email.message.Message:
    message = email.message.Message()
    for name, value in pairs.items():
        message[name] = value
    return message


@pytest.mark.parametrize(
    "hold",
    [
        dict,
        lambda pairs: {name.upper(): value for name, value in pairs.items()},
        lambda pairs: list(pairs.items()),
        lambda pairs: [(name.encode(), value.encode()) for name, value in pairs.items()],
        httpx.Headers,
        requests.structures.CaseInsensitiveDict,
        of_message,
    ],
    ids=["dict", "capitals", "pairs", "bytes", "httpx", "requests", "email"],
)
def test_headers_are_found_however_a_client_holds_them(hold: Any) -> None:
    """
    In any case, as a mapping of any kind, as pairs, as bytes.
    """
    held = hold({"Retry-After": "7", "X-Other": "1"})

    assert "7" == header(held, "retry-AFTER")
    assert 7.0 == rate_limit_answer(held, clock=CLOCK).retry_after


@pytest.mark.parametrize("what", [None, 5, "Retry-After: 7", object(), [1, 2], {"Retry-After": None}, [("a",)]])
def test_what_is_no_headers_holds_none(what: Any) -> None:
    """
    And raises nothing.
    """
    assert rate_limit_answer(what, clock=CLOCK) == (None, None, None, None)
    assert isinstance(lowered(what), dict)


FAMILIES = [
    ({"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "12", "X-RateLimit-Reset": "1800000030"}, (60, 12, 30.0, None)),
    ({"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800000030000"}, (60, 0, 30.0, None)),
    ({"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "0.45"}, (5, 0, 0.45, None)),
    ({"X-Rate-Limit-Limit": "15", "X-Rate-Limit-Remaining": "1", "X-Rate-Limit-Reset": "1800000900"}, (15, 1, 900.0, None)),
    ({"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "50", "RateLimit-Reset": "5"}, (100, 50, 5.0, None)),
    ({"RateLimit": "limit=100, remaining=50, reset=5"}, (100, 50, 5.0, None)),
    ({"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'}, (None, 50, 30.0, None)),
    ({"RateLimit": '"hour";r=500;t=1800, "minute";r=3;t=20'}, (None, 3, 20.0, None)),
    (
        {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1m1s"},
        (60, 59, 61.0, None),
    ),
    ({"Fitbit-Rate-Limit-Limit": "150", "Fitbit-Rate-Limit-Remaining": "0", "Fitbit-Rate-Limit-Reset": "1411"}, (150, 0, 1411.0, None)),
    ({"X-RateLimit-Limit": "100,1000", "X-RateLimit-Usage": "34,997"}, (1000, 3, None, None)),
    ({"X-Shopify-Shop-Api-Call-Limit": "39/40"}, (40, 1, None, None)),
    ({"X-HubSpot-RateLimit-Max": "100", "X-HubSpot-RateLimit-Remaining": "99"}, (100, 99, None, None)),
    ({"Retry-After": "7", "X-RateLimit-Remaining": "0"}, (None, 0, None, 7.0)),
    ({"Retry-After": "nonsense", "Retry-After-Ms": "1500"}, (None, None, None, 1.5)),
    ({"X-RateLimit-Remaining": "-3", "X-RateLimit-Reset": "-3"}, (None, 0, None, None)),
    ({"X-RateLimit-Remaining": "many", "X-RateLimit-Limit": "few"}, (None, None, None, None)),
    ({"X-RateLimit-Remaining": "9" * 15}, (None, 10**9, None, None)),
    ({"Content-Type": "text/html"}, (None, None, None, None)),
]


@pytest.mark.parametrize(("headers", "expected"), FAMILIES, ids=[f"{n} {next(iter(headers))}" for n, (headers, _) in enumerate(FAMILIES)])
def test_what_is_left_of_a_limit_is_read_in_every_family_of_headers(headers: dict[str, str], expected: tuple[Any, ...]) -> None:
    """
    Of several limits the one counts of which the least is left.
    """
    assert RateLimitAnswer(*expected) == rate_limit_answer(headers, clock=CLOCK)


NAMES = st.sampled_from(
    ["Retry-After", "RateLimit", "RateLimit-Reset", "X-RateLimit-Remaining", "X-RateLimit-Usage", "X-RateLimit-Limit", "X-RateLimit-Reset"]
)


@given(st.dictionaries(NAMES, st.text(max_size=60) | st.from_regex(r"[-0-9,;=rtq\" .]{1,40}", fullmatch=True)))
def test_no_headers_break_the_reading(headers: dict[str, str]) -> None:
    """
    Whatever a channel says, what is told is within its bounds.
    """
    limit, remaining, reset_after, retry_after = rate_limit_answer(headers, clock=CLOCK)

    assert all(count is None or 0 <= count <= 10**9 for count in (limit, remaining))
    assert all(seconds is None or 0 <= seconds <= 86_400 for seconds in (reset_after, retry_after))
