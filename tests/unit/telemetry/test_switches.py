"""
The switches: what is on, where it goes, and what is missing for the rest.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from celery.signals import setup_logging
from click.testing import CliRunner

from celery_obs.cli.doctor import doctor
from celery_obs.settings import Settings, load
from celery_obs.telemetry.switches import Finding, reaches, switches
from tests.servers import free_port


DSN = "https://0c5ffee@sentry.example.com/42"
HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:hunter2@collector:4318"}


def found(
    environ: dict[str, str] | None = None, *, installed: bool = True, problem: str = "", settings: dict[str, object] | None = None
) -> dict[str, Finding]:
    """
    Look, and return the findings by name.
    """
    made: Settings = load({"celery_obs": settings or {}}, {}, {"metrics_dir": "/run/obs"})
    every = switches(made, environ or {}, installed=lambda module: installed, unreachable=lambda url: problem)
    return {finding.name: finding for finding in every}


def test_without_an_endpoint_and_a_dsn_the_line_says_what_to_set() -> None:
    """
    Traces and errors are off until they are told where to go; metrics and logs are on.
    """
    seen = found()

    assert ["OK", "OK", "--", "--"] == [seen[name].verdict for name in ("metrics", "logs", "traces", "errors")]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=" in seen["traces"].text
    assert "SENTRY_DSN" in seen["errors"].text


@pytest.mark.parametrize("name", ["metrics", "logs", "traces", "errors"])
def test_what_a_setting_switched_off_says_so(name: str) -> None:
    """
    An observer that is switched off names the setting that did it.
    """
    assert Finding("--", name, f"off, by the setting {name}.") == found({**HERE, "SENTRY_DSN": DSN}, settings={name: False})[name]


def test_where_traces_and_errors_go_is_shown_without_secrets() -> None:
    """
    What is on says where it goes; keys and passwords stay hidden.
    """
    seen = found({**HERE, "SENTRY_DSN": DSN})

    assert Finding("OK", "traces", "on, to http://***@collector:4318.", "http://***@collector:4318") == seen["traces"]
    assert Finding("OK", "errors", "on, to https://***@sentry.example.com/42, full.", "https://***@sentry.example.com/42") == seen["errors"]


def test_a_dsn_of_the_settings_counts() -> None:
    """
    The DSN may stand in Celery's configuration, too.
    """
    assert "OK" == found(settings={"sentry_dsn": DSN})["errors"].verdict


def test_an_extra_that_is_asked_for_and_missing_is_a_failure() -> None:
    """
    Traces and errors are asked for and not made: the line names the command that helps.
    """
    seen = found({**HERE, "SENTRY_DSN": DSN}, installed=False)

    assert ("FAIL", True) == (seen["traces"].verdict, "pip install 'celery_obs[tracing]'" in seen["traces"].text)
    assert ("FAIL", True) == (seen["errors"].verdict, "pip install 'celery_obs[sentry]'" in seen["errors"].text)


def test_an_endpoint_that_does_not_answer_is_a_failure() -> None:
    """
    A collector and a Sentry that do not answer are told with the reason.
    """
    seen = found({**HERE, "SENTRY_DSN": DSN}, problem="Connection refused")

    for name in ("traces", "errors"):
        assert ("FAIL", True, False) == (seen[name].verdict, "Connection refused" in seen[name].text, "hunter2" in seen[name].text)


@pytest.mark.parametrize(
    ("environ", "verdict", "said"),
    [
        ({**HERE, "OTEL_SDK_DISABLED": "true"}, "--", "OTEL_SDK_DISABLED"),
        ({**HERE, "OTEL_TRACES_EXPORTER": "none"}, "--", "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OK", "to console"),
        ({**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "FAIL", "http/protobuf"),
    ],
)
def test_the_variables_of_opentelemetry_are_understood(environ: dict[str, str], verdict: str, said: str) -> None:
    """
    The line says which of the variables that everybody knows decided.
    """
    seen = found(environ)["traces"]

    assert (verdict, True) == (seen.verdict, said in seen.text)


def test_a_dsn_that_is_none_is_a_failure() -> None:
    """
    A typing error in SENTRY_DSN is told, without what was typed.
    """
    seen = found({"SENTRY_DSN": "hunter2"})["errors"]

    assert ("FAIL", False) == (seen.verdict, "hunter2" in seen.text)


def test_reaching_says_why_not() -> None:
    """
    A port that no process listens on, and a URL that is none, are answers, not errors.
    """
    assert "refused" in reaches(f"http://127.0.0.1:{free_port()}")
    assert reaches("http://127.0.0.1:nonsense")


def test_the_doctor_names_who_else_sets_up_logging(tmp_path: Path) -> None:
    """
    A receiver of the app's own is left in charge, and the doctor says that it is.
    """

    def set_up_everything(**_: object) -> None:
        return

    conf = _Conf(celery_obs={"metrics_dir": str(tmp_path)})
    app = SimpleNamespace(conf=conf)
    setup_logging.connect(set_up_everything)
    try:
        output = CliRunner().invoke(doctor, [], obj=SimpleNamespace(app=app)).output
    finally:
        setup_logging.disconnect(set_up_everything)

    assert "--   logs: left to" in output
    assert "set_up_everything" in output


class _Conf(dict[str, object]):
    """
    As much of Celery's configuration as the doctor looks at.
    """

    broker_url = ""
    broker_transport_options: ClassVar[dict[str, object]] = {}
