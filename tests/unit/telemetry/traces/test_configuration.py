"""
What the environment asks for, in OpenTelemetry's own words; and what messages go through.
"""

from __future__ import annotations

import importlib.util
import logging

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.telemetry.traces.broker import Broker, broker
from celery_obs.telemetry.traces.configuration import Batching, Plan, plan


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": " TRUE "},
    ],
)
def test_opentelemetry_can_be_switched_off(environ: dict[str, str]) -> None:
    """
    Its own switch is ours, too.
    """
    assert plan(environ) is None


@pytest.mark.parametrize(
    ("environ", "exporters"),
    [
        (ENDPOINT, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console, otlp"}, ("otlp", "console")),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, ()),
        ({}, ()),
    ],
)
def test_exporters_are_those_that_are_named(environ: dict[str, str], exporters: tuple[str, ...]) -> None:
    """
    An endpoint alone means OTLP; without one, a provider of the program's own may come yet.
    """
    assert Plan(exporters, Batching(), ()) == plan(environ)


@pytest.mark.parametrize(
    ("environ", "advised"),
    [
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ""),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "Expected http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "as a rule 4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:port", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "http/json"),
    ],
)
def test_a_protocol_that_forks_break_is_told(environ: dict[str, str], advised: str) -> None:
    """
    gRPC is not used, and a user who asked for it is told what to set instead.
    """
    found = plan(environ)

    assert found is not None
    assert ("otlp",) == found.exporters
    assert advised in " ".join(found.advice)
    assert bool(advised) == bool(found.advice)


def test_batches_are_as_the_user_wants_them(caplog: pytest.LogCaptureFixture) -> None:
    """
    The SDK's variables for its batch processor are ours, too; what is no number is told and left out.
    """
    with caplog.at_level(logging.WARNING):
        found = plan(
            {**ENDPOINT, "OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "250", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "many"}
        )

    assert found is not None
    assert Batching(100, 100, 0.25) == found.batching
    assert "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is 'many'. Expected a whole number above 0; 512 is used instead." in caplog.text


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_a_missing_package_is_named_with_what_installs_it(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    An endpoint without the packages means no traces, and one line that says why.
    """

    def find_spec(name: str) -> object:
        if name == missing:
            raise ImportError(name)
        return found(name)

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    with caplog.at_level(logging.WARNING):
        assert plan(ENDPOINT) is None

    assert "pip install 'celery_obs[tracing]'" in caplog.text


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "OTEL_TRACES_EXPORTER",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "OTEL_BSP_SCHEDULE_DELAY",
                "OTEL_BSP_MAX_QUEUE_SIZE",
                "OTEL_SDK_DISABLED",
            ]
        ),
        st.text(max_size=40),
    )
)
def test_any_environment_makes_a_plan(environ: dict[str, str]) -> None:
    """
    These variables are others' as well: whatever they hold, no program fails to start for it.
    """
    found = plan(environ)

    assert found is None or (0 < found.batching.batch <= found.batching.queue and found.batching.delay > 0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:secret@localhost:6379/0", Broker("redis", "localhost", 6379)),
        ("rediss://cache.example.com", Broker("redis", "cache.example.com")),
        ("sentinel://a:26379;sentinel://b:26379", Broker("redis")),
        (["amqp://me:secret@rabbit:5672//"], Broker("rabbitmq", "rabbit", 5672)),
        ("pyamqp://guest@localhost//", Broker("rabbitmq", "localhost")),
        ("amqp", Broker("rabbitmq")),
        ("sqs://key:secret@", Broker("aws_sqs")),
        ("sqla+postgresql://u:p@db/x", Broker("unknown")),
        ("memory://", Broker("memory")),
        ("redis+socket:///run/redis.sock", Broker("redis")),
        ("redis://host:port/0", Broker("redis")),
        (None, Broker("rabbitmq")),
        ([], Broker("rabbitmq")),
    ],
)
def test_the_broker_is_named_as_what_it_is(url: Any, expected: Broker) -> None:
    """
    The conventions want the system that the messages go through, which is not Celery; never a password.
    """
    assert expected == broker(url)


@given(st.one_of(st.text(max_size=60), st.lists(st.text(max_size=30), max_size=3)))
def test_any_broker_url_is_read(url: Any) -> None:
    """
    What cannot be read is unknown, and attributes are what spans can hold.
    """
    attributes = broker(url).attributes

    assert attributes["messaging.system"]
    assert all(isinstance(value, (str, int)) for value in attributes.values())
