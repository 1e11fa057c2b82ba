"""
The way into this room: an observer where there is something to trace with, and nothing loaded where there is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celery_obs.telemetry.redaction import Redactor

from .broker import broker
from .configuration import plan, say


if TYPE_CHECKING:
    from .observer import TraceObserver


__all__ = ["trace_observer"]


def trace_observer(
    environ: Mapping[str, str],
    emit: Callable[[object], object],
    *,
    broker_url: object,
    service: str,
    leave: Callable[[type, Callable[[Any], object]], object],
    keys: Iterable[str] = (),
) -> TraceObserver | None:
    """
    Make the observer; None where there is nothing to trace with.

    Args:
        environ: The environment, for ``OTEL_…``.

        emit: Tells of what is dropped.

        broker_url: What the app's messages go through.

        service: What the program is called, where the environment does not say.

        leave: Unsubscribes the observer from one event, where spans are not exported.

        keys: Names that secrets go under, besides those that everybody uses.
    """
    found = plan(environ)
    if found is None:
        return None
    for message in found.advice:
        say(message)
    from .observer import TraceObserver  # noqa: PLC0415 -- only a process that traces loads OpenTelemetry.
    from .provider import Tracing  # noqa: PLC0415

    redact = Redactor(keys).text
    tracing = Tracing(found, emit, service=service, redact=redact)
    tracing.prepare()
    return TraceObserver(tracing, broker=broker(broker_url), redact=redact, leave=leave)
