"""
What we assume of OpenTelemetry holds on the version that is installed.
"""

from __future__ import annotations

import inspect

from types import SimpleNamespace

import pytest

from opentelemetry import context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from celery_obs.compat import opentelemetry as compat


def test_the_mark_that_suppresses_is_known() -> None:
    """
    It is the one that instrumentations look at.
    """
    assert compat.suppress_key() == context._SUPPRESS_INSTRUMENTATION_KEY


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (ALWAYS_ON, compat.SamplerRules(False, False, False, True)),
        (ALWAYS_OFF, compat.SamplerRules(False, False, True, True)),
        (TraceIdRatioBased(0.5), compat.SamplerRules(False, False, False, True)),
        (ParentBased(ALWAYS_ON), compat.SamplerRules(True, True, False, True)),
        (ParentBased(ALWAYS_OFF), compat.SamplerRules(True, True, True, True)),
        (ParentBased(TraceIdRatioBased(0.5)), compat.SamplerRules(True, True, False, True)),
        (ParentBased(ALWAYS_ON, local_parent_not_sampled=ALWAYS_ON), compat.SamplerRules(False, True, False, False)),
        (ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF), compat.SamplerRules(True, False, False, False)),
    ],
    ids=lambda each: each.get_description() if isinstance(each, Sampler) else "",
)
def test_a_samplers_description_says_what_it_answers(sampler: Sampler, expected: compat.SamplerRules) -> None:
    """
    Each of the SDK's samplers is known by its description.
    """
    assert compat.sampler_rules(TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("compat")) == expected


def test_a_tracer_without_a_sampler_is_asked_each_time() -> None:
    """
    Nothing is certain of it.
    """
    assert compat.sampler_rules(SimpleNamespace()) == (False, False, False, False)


def test_a_span_takes_its_parts_in_this_order() -> None:
    """
    The parameters have the names and places that our spans pass them in.
    """
    assert tuple(inspect.signature(ReadableSpan).parameters)[: len(compat.SPAN_ARGUMENTS)] == compat.SPAN_ARGUMENTS
