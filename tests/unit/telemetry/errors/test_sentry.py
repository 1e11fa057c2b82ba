"""
The client: when there is one, whose it is, and what is said when there cannot be one.
"""

from __future__ import annotations

import logging
import sys

from typing import Any

import pytest
import sentry_sdk

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.exceptions import ConfigurationError, MissingExtraError
from celery_obs.settings import Settings, load
from celery_obs.telemetry.errors.crons import monitor_of, slug_of
from celery_obs.telemetry.errors.sentry import Sentry, is_traced
from tests.sentry import PUBLIC_KEY, SentryServer

from .conftest import Make


DSN = f"http://{PUBLIC_KEY}@127.0.0.1:9/42"


def settings(**given: Any) -> Settings:
    return load({}, {}, {"metrics_dir": "/nowhere", **given})


def sentry(environ: dict[str, str] | None = None, *, traced: bool = False, **given: Any) -> Sentry:
    return Sentry(settings(**given), environ=environ or {}, dropped=lambda _: None, failed=lambda _: None, traced=traced)


def test_without_a_dsn_there_is_no_client() -> None:
    """
    Nothing is started, and nothing is said.
    """
    assert not sentry().start()


def test_a_wrong_dsn_is_refused_without_being_shown() -> None:
    """
    What is expected, and where to find it; what was given may be half a secret.
    """
    with pytest.raises(ConfigurationError, match=r"SENTRY_DSN is not the DSN of a project\. Expected something like https://") as caught:
        sentry({"SENTRY_DSN": "https://half-a-secret"}).start()

    assert "half-a-secret" not in str(caught.value)


@pytest.mark.parametrize("given", ["", "sentry.example.com/42", "https://sentry.example.com/42", "https://key@sentry.example.com/shop", 42])
def test_the_setting_takes_a_dsn_only(given: object) -> None:
    """
    The same holds for the setting.
    """
    with pytest.raises(ConfigurationError, match="Expected the DSN of a project"):
        settings(sentry_dsn=given)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who sets sentry_dsn wants reports.
    """
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'celery_obs\[sentry\]'"):
        sentry(sentry_dsn=DSN).start()


def test_a_missing_package_is_a_warning_where_only_the_environment_speaks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    SENTRY_DSN may be meant for another program.
    """
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)

    with caplog.at_level(logging.WARNING, "celery_obs"):
        started = sentry({"SENTRY_DSN": DSN}).start()

    assert (False, True) == (started, "pip install 'celery_obs[sentry]'" in caplog.text)


def test_an_old_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its threads could block a pool process.
    """
    monkeypatch.setattr(sentry_sdk, "VERSION", "2.58.0")

    with pytest.raises(ConfigurationError, match=r"sentry-sdk 2\.58\.0 is installed, and 2\.59 or newer is needed"):
        sentry(sentry_dsn=DSN).start()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("production", None)),
        ({"ENVIRONMENT": "staging", "GIT_SHA": "0123abc"}, ("staging", "0123abc")),
        (
            {"ENVIRONMENT": "staging", "GIT_SHA": "0123abc", "SENTRY_ENVIRONMENT": "blue", "SENTRY_RELEASE": "shop@1.2"},
            ("blue", "shop@1.2"),
        ),
    ],
)
def test_environment_and_release_come_from_the_environment(environ: dict[str, str], expected: tuple[str, str | None], make: Make) -> None:
    """
    Sentry's own variables win over the usual ones.
    """
    make(environ=environ)

    options = sentry_sdk.get_client().options
    assert expected[0] == options["environment"]
    assert expected[1] in {None, options["release"]}


def test_the_light_mode_leaves_sentrys_own_integration_out(make: Make) -> None:
    """
    Also where an earlier client had it.
    """
    make(sentry_mode="full").sentry.stop()

    assert not make(sentry_mode="light").sentry.is_full


def test_a_client_of_the_programs_is_left_as_it_was() -> None:
    """
    Its options are those that it had, once we are gone.
    """

    def theirs(event: Any, _: Any) -> Any:
        return event

    sentry_sdk.init(dsn=DSN, before_send=theirs, sample_rate=0.5)
    ours = sentry(sentry_sample_rate=0.25)
    ours.start()
    amended = dict(sentry_sdk.get_client().options)
    ours.stop()

    options = sentry_sdk.get_client().options
    sentry_sdk.get_global_scope().set_client(None)
    assert (0.25, False) == (amended["sample_rate"], amended["before_send"] is theirs)
    assert (0.5, True) == (options["sample_rate"], options["before_send"] is theirs)


@pytest.mark.parametrize("given", [{"traces_sample_rate": 1.0}, {"traces_sampler": lambda _: 1.0}, {"traces_sample_rate": 0.0}])
def test_where_opentelemetry_traces_sentry_does_not(given: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """
    The program's own sampling is switched off while we are there, the person who set it is told which setting, and it comes back.
    """
    sentry_sdk.init(dsn=DSN, **given)
    [name] = given
    client, ours = sentry_sdk.get_client(), sentry(traced=True)

    with caplog.at_level(logging.WARNING, "celery_obs"):
        ours.start()
    during = client.options[name]
    ours.stop()
    sentry_sdk.get_global_scope().set_client(None)

    assert (None, given[name]) == (during, client.options[name])
    assert f"Sentry does not: {name} of sentry_sdk.init" in caplog.text


@pytest.mark.parametrize("given", [{}, {"traces_sample_rate": 1.0, "instrumenter": "otel"}])
def test_one_tracer_is_left_as_it_is(given: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """
    Sentry that does not trace, or that gets its spans from OpenTelemetry, is nothing to warn of.
    """
    sentry_sdk.init(dsn=DSN, **given)
    client, ours = sentry_sdk.get_client(), sentry(traced=True)

    ours.start()
    during = client.options["traces_sample_rate"]
    ours.stop()
    sentry_sdk.get_global_scope().set_client(None)

    assert given.get("traces_sample_rate") == during
    assert "Sentry does not" not in caplog.text


@pytest.mark.parametrize("status", [429, 500, 413])
def test_every_refusal_is_counted_once(status: int) -> None:
    """
    Whatever the endpoint answers, a report that it does not take is one that was dropped.
    """
    dropped: list[int] = []
    with SentryServer(status=status) as endpoint:
        client = Sentry(settings(sentry_dsn=endpoint.dsn), environ={}, dropped=dropped.append, failed=lambda _: None)
        client.start()

        sentry_sdk.capture_message("said once")
        client.flush(5.0)
        client.stop()

    assert [1] == dropped


def test_what_is_under_way_at_the_end_is_counted() -> None:
    """
    A flush ends after its time, and what it leaves is known to the report; the queue takes no more than it has room for.
    """
    dropped: list[int] = []
    with SentryServer(delay=60.0) as endpoint:
        client = Sentry(settings(sentry_dsn=endpoint.dsn), environ={}, dropped=dropped.append, failed=lambda _: None)
        client.start()

        for number in range(150):
            sentry_sdk.capture_message(f"said {number}")
        client.flush(0.05)
        client.flush(0.05)
        client.stop()

    assert 150 == sum(dropped)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
    ],
)
def test_opentelemetry_traces_where_its_variables_say_so(environ: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An endpoint or an exporter is what its users set.
    """
    # Another test of this process may have set up a provider, which cannot be taken back.
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)

    assert expected is is_traced(environ)


@given(st.text())
def test_a_slug_is_one_that_sentry_takes(entry: str) -> None:
    """
    Whatever an entry is called.
    """
    slug = slug_of(entry)

    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert 0 < len(slug) <= 50
    assert not slug.isdigit()


def schedules() -> list[tuple[Any, Any]]:
    from celery.schedules import crontab, schedule

    return [
        (crontab(minute="*/15", hour="7,19", day_of_week="mon-fri"), ("crontab", "*/15 7,19 * * mon-fri", None)),
        (crontab(minute=[0, 30], hour=4), ("crontab", "0,30 4 * * *", None)),
        (schedule(60), ("interval", 1, "minute")),
        (schedule(5400), ("interval", 90, "minute")),
        (schedule(7200), ("interval", 2, "hour")),
        (schedule(172800), ("interval", 2, "day")),
        (schedule(30), None),
        (schedule(90), None),
        (object(), None),
    ]


@pytest.mark.parametrize(("when", "expected"), schedules())
def test_a_schedule_is_said_in_sentrys_words(when: Any, expected: Any) -> None:
    """
    Crontabs and whole minutes can be watched.
    """
    monitor = monitor_of(when)

    found = None if monitor is None else tuple(monitor["schedule"].get(key) for key in ("type", "value", "unit"))
    assert expected == found
