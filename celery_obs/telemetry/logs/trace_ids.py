"""
The ids of the span that is current, for lines to be found from a trace and a trace from a line.
"""

from __future__ import annotations

import sys

from collections.abc import Mapping


__all__ = ["trace_ids"]


_NONE: Mapping[str, str] = {}


def trace_ids() -> Mapping[str, str]:
    """
    Return ``trace_id`` and ``span_id`` in hexadecimal; nothing where no span is current.

    OpenTelemetry is asked only where the program has loaded it.
    """
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return _NONE
    try:
        span = opentelemetry.get_current_span().get_span_context()
    except Exception:  # noqa: BLE001 -- half imported, or a user's own kind of span: the line matters more.
        return _NONE
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else _NONE
