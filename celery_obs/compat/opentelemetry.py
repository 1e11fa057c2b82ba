"""
OpenTelemetry's SDK: the mark that suppresses instrumentations, and what a sampler says of itself.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


__all__ = ["SPAN_ARGUMENTS", "SamplerRules", "sampler_rules", "suppress_key"]


def suppress_key() -> str:
    """
    Return the key in a context that tells instrumentations of HTTP clients to be silent, lest they trace the sending of traces.

    Assumes: ``opentelemetry.context._SUPPRESS_INSTRUMENTATION_KEY``.
    Seen on: opentelemetry-api 1.30 to 1.45.
    Lost: where the key is another, instrumented HTTP clients trace our export of traces, too.
    """
    from opentelemetry import context

    return str(getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"))


class SamplerRules(NamedTuple):
    """
    What a sampler would answer, where that is certain.

    Attributes:
        drops_unsampled: Whether it drops a span whose parent was not sampled.

        records_sampled: Whether it records a span whose parent was sampled.

        drops_roots: Whether it drops a span without a parent.

        need_no_attributes: Whether it decides without a span's attributes.
    """

    drops_unsampled: bool
    records_sampled: bool
    drops_roots: bool
    need_no_attributes: bool


def sampler_rules(tracer: Any) -> SamplerRules:
    """
    Return what the sampler of *tracer* would answer: to ask it costs more than the rest of a span that is dropped.

    Assumes: a tracer of the SDK has ``sampler``, whose ``get_description()`` begins with its class's name and has those that it delegates to in braces.
    Seen on: opentelemetry-sdk 1.30 to 1.45.
    Lost: nothing but time: a sampler that describes itself otherwise is asked for each span.
    """
    try:
        description = str(tracer.sampler.get_description())
    except AttributeError:  # No tracer of the SDK's.
        description = ""
    follows_parents = description.startswith("ParentBased{")
    drops_unsampled = follows_parents and all(f"{whose}ParentNotSampled:AlwaysOffSampler" in description for whose in ("remote", "local"))
    records_sampled = follows_parents and all(f"{whose}ParentSampled:AlwaysOnSampler" in description for whose in ("remote", "local"))
    root = description.removeprefix("ParentBased{root:")
    return SamplerRules(
        drops_unsampled,
        records_sampled,
        drops_roots=description.startswith("ParentBased{root:AlwaysOffSampler,") or description == "AlwaysOffSampler",
        need_no_attributes=root.startswith(("AlwaysOnSampler", "AlwaysOffSampler", "TraceIdRatioBased{"))
        and (not follows_parents or (drops_unsampled and records_sampled)),
    )


SPAN_ARGUMENTS: Final = (
    "name",
    "context",
    "parent",
    "resource",
    "attributes",
    "events",
    "links",
    "kind",
    "instrumentation_info",
    "status",
    "start_time",
    "end_time",
    "instrumentation_scope",
)
"""
What ``ReadableSpan`` takes by place, in this order; our spans pass them so where they end, since keywords cost more.

Assumes: ``opentelemetry.sdk.trace.ReadableSpan`` has these parameters, in this order.
Seen on: opentelemetry-sdk 1.30 to 1.45.
Lost: spans are not sent, and ``celery_obs_observations_dropped_total`` counts them.
"""
