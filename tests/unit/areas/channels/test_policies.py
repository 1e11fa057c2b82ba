"""
Policies of channels: what people may write, what is said when it is wrong, and which limit holds when.
"""

from __future__ import annotations

import json

from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.policies import (
    DAYS,
    PRESETS,
    BreakerPolicy,
    ChannelPolicy,
    PolicyError,
    RateLimit,
    limit_at,
    limits_at,
    policies,
    policy_of,
)
from celery_obs.exceptions import ConfigurationError
from celery_obs.settings import Settings, load


OFFICE = {"limit": "100/60s", "hours": "09:00-17:00", "days": "mon-fri", "timezone": "Europe/Berlin"}


def loaded(value: Any, **environ: str) -> Settings:
    return load({"celery_obs": {"channels": value}} if value is not None else {}, {"CELERY_OBS_METRICS_DIR": "/run/obs", **environ}, {})


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("name", "failures", "successes", "timeout"), [("withings", 3, 2, 30.0), ("fitbit", 3, 2, 30.0), ("fhir", 5, 3, 60.0)]
)
def test_the_presets_are_those_of_the_health_exchange(name: str, failures: int, successes: int, timeout: float) -> None:
    """
    A provider's breaker opens and closes as its operators know it.
    """
    preset = PRESETS[name]

    assert (failures, successes, timeout) == (preset.failure_threshold, preset.success_threshold, preset.timeout)


def test_a_channel_has_its_own_policy_or_that_of_all_others_or_the_preset_of_its_name() -> None:
    """
    The nearest that is set wins.
    """
    own, others = ChannelPolicy(breaker=None), ChannelPolicy(breaker=PRESETS["fhir"])

    assert own is policy_of({"airbnb": own, "*": others}, "airbnb")
    assert others is policy_of({"airbnb": own, "*": others}, "fitbit")
    assert PRESETS["fitbit"] == policy_of({"airbnb": own}, "fitbit").breaker
    assert PRESETS["default"] == policy_of({"airbnb": own}, "booking").breaker


def test_the_environment_says_it_in_json() -> None:
    """
    What a dict says in the configuration, JSON says in the environment.
    """
    written = {
        "airbnb": {"circuit_breaker": {"preset": "fitbit", "timeout": 5}, "rate_limits": [OFFICE, "250/60s"]},
        "old": {"circuit_breaker": "off"},
    }

    channels = loaded(None, CELERY_OBS_CHANNELS=json.dumps(written)).channels

    assert loaded(written).channels == channels
    assert BreakerPolicy(failure_threshold=3, success_threshold=2, timeout=5.0) == channels["airbnb"].breaker
    assert [(100, 60.0), (250, 60.0)] == [(each.requests, each.seconds) for each in channels["airbnb"].rate_limits]
    assert channels["old"].breaker is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            {"a": {"circuit_breaker": {"timeout": -3}}},
            "channels['a']['circuit_breaker']['timeout'] is -3; expected a number of seconds above 0",
        ),
        ({"a": {"circuit_breaker": {"timeout": 1e300}}}, "['timeout'] is 1e+300; expected"),
        ({"a": {"circuit_breaker": {"failure_threshold": True}}}, "['failure_threshold'] is True; expected a whole number from 1"),
        (
            {"a": {"circuit_breaker": {"failures": 3}}},
            "channels['a']['circuit_breaker'] has the key 'failures'; expected some of caller_timeout, failure_rate, failure_threshold",
        ),
        (
            {"a": {"circuit_breaker": "fitbt"}},
            "channels['a']['circuit_breaker'] is 'fitbt'; expected a preset (default, fhir, fitbit, withings), off,",
        ),
        ({"a": {"circuit_breaker": {"failure_rate": 50}}}, "['failure_rate'] is 50; expected a part of the calls above 0, up to 1"),
        ({"a": {"circuit_breaker": {"failure_threshold": "off"}}}, "['circuit_breaker'] never opens: failure_threshold is off"),
        ({"a": {"circuit_breaker": {"window": 0.5}}}, "['window'] is 0.5; expected a number of seconds from 1 up to an hour"),
        ({"a": {"circuit_breaker": {"probes": 101}}}, "['probes'] is 101; expected a whole number from 1 to 100"),
        ({"a": {"circuit_breaker": {"per": "hotel"}}}, "['per'] is 'hotel'; expected one of channel, endpoint, connection"),
        ({"a": {"circuit_breaker": {"caller_timeout": 0}}}, "['caller_timeout'] is 0; expected a number of seconds above 0"),
        ({"a": {"told_limits": "yes"}}, "['told_limits'] is 'yes'; expected one of auto, connection, channel, off"),
        ({"a": {"rate_limits": {**OFFICE, "algorithm": "gcra"}}}, "['algorithm'] is 'gcra'; expected sliding_window or leaky_bucket"),
        ({"a": {"rate_limits": {**OFFICE, "burst": 5}}}, "has a burst, which only a leaky_bucket has"),
        ({"a": {"limits": "1/s"}}, "channels['a'] has the key 'limits'; expected some of circuit_breaker, rate_limits"),
        (
            {"a": {"rate_limits": "100 per minute"}},
            "channels['a']['rate_limits'] is '100 per minute'; expected calls per time such as '100/60s'",
        ),
        ({"a": {"rate_limits": ["1/s", {"limit": "0/1s"}]}}, "channels['a']['rate_limits'][1]['limit'] is '0/1s'; expected calls"),
        ({"a": {"rate_limits": {**OFFICE, "hours": "9-17"}}}, "['hours'] is '9-17'; expected hours of the day such as '09:00-17:00'"),
        ({"a": {"rate_limits": {**OFFICE, "hours": "09:00-09:00"}}}, "['hours'] is '09:00-09:00'"),
        ({"a": {"rate_limits": {**OFFICE, "days": "mon-fry"}}}, "['days'] is 'mon-fry'; expected days such as 'mon-fri'"),
        ({"a": {"rate_limits": {**OFFICE, "timezone": "Mars/Olympus"}}}, "['timezone'] is 'Mars/Olympus'; expected a time zone"),
        ({"a": {"rate_limits": {**OFFICE, "timezone": "../etc/passwd"}}}, "['timezone'] is '../etc/passwd'; expected a time zone"),
        ({"a": {"rate_limits": {**OFFICE, "per": "hotel"}}}, "['per'] is 'hotel'; expected connection or channel"),
        ({"a": 3}, "channels['a'] is 3; expected a dict with circuit_breaker and rate_limits"),
        ({"": {}}, "channels has the key ''; expected a channel's name, or * for all others"),
        (["a"], "channels is ['a']; expected a dict of channels"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(written: Any, said: str) -> None:
    """
    The message leads to the one value among many.
    """
    with pytest.raises(ConfigurationError) as caught:
        loaded(written)

    assert str(caught.value).startswith("The setting channels is ")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "NaN", "3", '{"a": NaN}', '{"a": {"circuit_breaker": {"timeout": Infinity}}}'])
def test_json_that_is_no_policy_is_refused(text: str) -> None:
    """
    Whatever stands in the variable, it is refused with a sentence.
    """
    with pytest.raises(ConfigurationError, match="The setting channels is "):
        loaded(None, CELERY_OBS_CHANNELS=text)


@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["fhir", "off", "1/s", "mon", "00:00-24:00"])
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["a", "circuit_breaker", "rate_limits", "limit", "hours", "days", "timezone", "per", "preset", "timeout"]),
                inner,
                max_size=4,
            ),
        ),
    )
)
def test_whatever_is_written_is_a_policy_or_is_refused(written: Any) -> None:
    """
    No input makes anything but policies or a PolicyError with the place.
    """
    refusal = ""
    read: dict[str, ChannelPolicy] = {}
    try:
        read = policies(written)
    except PolicyError as refused:
        refusal = str(refused)

    assert refusal.startswith("channels") or not refusal
    assert all(isinstance(policy, ChannelPolicy) for policy in read.values())


@given(
    st.integers(1, 100_000),
    st.sampled_from([("s", 1), ("second", 1), ("m", 60), ("minutes", 60), ("h", 3600), ("DAY", 86400)]),
    st.integers(1, 9),
)
def test_a_rate_is_read_in_any_unit(requests: int, unit: tuple[str, int], number: int) -> None:
    """
    Calls per second, minute, hour or day, or several of them.
    """
    word, seconds = unit

    (limit,) = policies({"a": {"rate_limits": f"{requests} / {number}{word}"}})["a"].rate_limits

    assert (requests, number * seconds) == (limit.requests, limit.seconds)


@pytest.mark.parametrize(
    ("when", "requests"),
    [
        ("2026-03-06T08:59:59", 250),  # A Friday.
        ("2026-03-06T09:00:00", 100),
        ("2026-03-06T16:59:59", 100),
        ("2026-03-06T17:00:00", 250),
        ("2026-03-07T12:00:00", 250),
        ("2026-07-06T09:00:00", 100),  # In summer the clock is another.
    ],
)
def test_business_hours_have_a_limit_of_their_own(when: str, requests: int) -> None:
    """
    Careful while people work, faster at night and at weekends.
    """
    limits = policies({"a": {"rate_limits": [OFFICE, "250/60s"]}})["a"].rate_limits

    found = limit_at(limits, at(when))

    assert found is not None
    assert requests == found.requests


@pytest.mark.parametrize(
    ("when", "applies"),
    [("2026-03-06T23:00:00", True), ("2026-03-07T05:59:00", True), ("2026-03-07T06:00:00", False), ("2026-03-06T05:00:00", False)],
)
def test_hours_past_midnight_belong_to_the_day_on_which_they_began(when: str, applies: bool) -> None:
    """
    Friday night ends on Saturday morning.
    """
    (limit,) = policies({"a": {"rate_limits": {"limit": "1/s", "hours": "22:00-06:00", "days": ["fri"]}}})["a"].rate_limits

    assert applies == limit.applies(at(when, "UTC"))


@given(st.integers(0, 1439), st.integers(1, 1440), st.sets(st.integers(0, 6), min_size=1), st.integers(0, 7 * 1440 - 1))
def test_every_minute_of_a_week_is_inside_or_outside_as_counted_by_hand(begin: int, end: int, days: set[int], minute: int) -> None:
    """
    The hours of a day that belongs to the limit, and no others.
    """
    if begin == end:
        end = begin + 1
    limit = RateLimit(requests=1, seconds=1.0, hours=(begin, end), days=tuple(sorted(days)))
    length = end - begin if begin < end else end + 1440 - begin
    inside = {(day * 1440 + begin + more) % (7 * 1440) for day in days for more in range(length)}

    assert (minute in inside) == limit.applies(at("2026-03-02T00:00:00", "UTC") + minute * 60)  # A Monday.


@given(st.lists(st.sampled_from(DAYS), min_size=1))
def test_days_may_be_listed(days: list[str]) -> None:
    """
    In any order, with commas or as a list.
    """
    (one,) = policies({"a": {"rate_limits": {"limit": "1/s", "days": days}}})["a"].rate_limits
    (other,) = policies({"a": {"rate_limits": {"limit": "1/s", "days": ", ".join(days)}}})["a"].rate_limits

    assert {DAYS.index(day) for day in days} == set(one.days)
    assert one == other


def test_all_limits_hold_that_count_something_else() -> None:
    """
    Of those that count the same calls in windows of the same length, it is the first that applies; the others hold besides.
    """
    limits = policies({"a": {"rate_limits": [OFFICE, "250/60s", "5/1s", {"limit": "900/60s", "per": "channel"}]}})["a"].rate_limits
    friday, saturday = at("2026-03-06T12:00:00"), at("2026-03-07T12:00:00")

    assert [100, 5, 900] == [limit.requests for limit in limits_at(limits, friday)]
    assert [250, 5, 900] == [limit.requests for limit in limits_at(limits, saturday)]
    assert ((), ()) == (limits_at((), friday), limits_at(limits[:1], saturday))


LIMITS = st.builds(
    RateLimit,
    requests=st.integers(1, 9),
    seconds=st.sampled_from([1.0, 60.0]),
    hours=st.tuples(st.integers(0, 1439), st.integers(0, 1440)),
    days=st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Auckland"]),
    per=st.sampled_from(["connection", "channel"]),
)


@given(st.lists(LIMITS, max_size=6).map(tuple), st.floats(0, 4e9))
def test_whatever_applies_is_held_or_stands_behind_one_that_counts_the_same(limits: tuple[RateLimit, ...], when: float) -> None:
    """
    No window is counted twice, none is left out, and what is shown is one of them.
    """
    held = limits_at(limits, when)

    assert {(limit.per, limit.seconds) for limit in limits if limit.applies(when)} == {(limit.per, limit.seconds) for limit in held}
    assert len({(limit.per, limit.seconds) for limit in held}) == len(held)
    assert limit_at(limits, when) == (held[0] if held else None)


def in_berlin(moment: datetime) -> datetime:
    """
    Tell the time in Berlin by the law: two hours ahead from the last Sunday of March to that of October, at one o'clock in the morning of UTC.
    """

    def last_sunday(month: int) -> datetime:
        last = datetime(moment.year, month, 31, 1, tzinfo=timezone.utc)
        return last - timedelta(days=(last.weekday() + 1) % 7)

    return moment + timedelta(hours=2 if last_sunday(3) <= moment < last_sunday(10) else 1)


@given(
    st.sampled_from(range(2000, 2037)),
    st.sampled_from([0, 60 * 24 * 84, 60 * 24 * 298]),
    st.integers(0, 60 * 24 * 10),
    st.tuples(st.integers(0, 1439), st.integers(1, 1440)),
    st.sets(st.integers(0, 6), min_size=1),
)
def test_summer_time_moves_the_hours_as_it_moves_the_people(
    year: int, begins: int, minutes: int, hours: tuple[int, int], days: set[int]
) -> None:
    """
    Around the nights in which an hour is missing or comes twice, and past midnight, the clock on the wall decides.
    """
    moment = datetime(year, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=begins + minutes)
    (begin, end), limit = hours, RateLimit(requests=1, seconds=1.0, hours=hours, days=tuple(sorted(days)), timezone="Europe/Berlin")
    wall = in_berlin(moment)
    minute, today = wall.hour * 60 + wall.minute, wall.weekday()

    if begin < end:
        expected = today in days and begin <= minute < end
    else:
        expected = (today in days and begin <= minute) or ((today - 1) % 7 in days and minute < end)

    assert expected == limit.applies(moment.timestamp())


DEFAULTS = {
    each.name: "off" if default == 0 else f"{default:g}" if isinstance(default, (int, float)) else default
    for each in fields(BreakerPolicy)
    for default in [getattr(BreakerPolicy(), each.name)]
}


def test_the_example_of_the_docs_is_a_policy() -> None:
    """
    What the how-to page configures can be configured, and its table of presets is true.
    """
    page = (Path(__file__).parents[4] / "docs" / "how-to" / "protect-a-channel.md").read_text()
    app = SimpleNamespace(conf=SimpleNamespace())
    exec(page.split("```python\n")[1].split("```")[0], {"app": app})  # noqa: S102 -- our own page.

    channels = loaded(app.conf.celery_obs["channels"]).channels

    assert {"withings", "airbnb", "booking", "legacy", "*"} == set(channels)
    booking = channels["booking"].breaker
    assert booking is not None
    assert ("endpoint", 3, 0.5) == (booking.per, booking.probes, booking.failure_rate)
    for name, default in DEFAULTS.items():
        assert any(line.startswith(f"| `{name}` |") and line.endswith(f"| {default} |") for line in page.splitlines()), name
    assert "channel" == channels["*"].rate_limits[0].per
    for name, preset in PRESETS.items():
        numbers = f"| {preset.failure_threshold} | {preset.success_threshold} | {preset.timeout:.0f} |"
        assert any(f"`{name}`" in line and line.endswith(numbers) for line in page.splitlines()), name


@pytest.mark.parametrize("name", ["limit-calls", "move-from-pybreaker"])
def test_what_the_pages_configure_can_be_configured(name: str) -> None:
    """
    Each block that sets the app's channels is a policy.
    """
    page = (Path(__file__).parents[4] / "docs" / "how-to" / f"{name}.md").read_text()
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:] if "app.conf.celery_obs" in block.split("```")[0]]

    assert blocks
    for block in blocks:
        app = SimpleNamespace(conf=SimpleNamespace())
        exec(block, {"app": app})  # noqa: S102 -- our own page.
        assert loaded(app.conf.celery_obs["channels"]).channels
