"""
Recording rules of syncs: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import one_of, quantile, rate, ratio, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import DURATION, RECORDS, TOTAL


__all__ = ["RULES"]


_SETTLED: Final = one_of("success", "partial", "failure")
"""
Runs that are over: those that will be tried again, or had nothing to do, say neither that syncs work nor that they do not.
"""

_QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def _rules() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type_status:channel_sync:rate5m",
        help="How many syncs end, and how? Runs per second by outcome.",
        expr=sum_by(rate(TOTAL, "5m"), *by, "status"),
        by=(*by, "status"),
    )
    for window in ("5m", "1h", "1d"):
        yield RecordingRule(
            name=f"channel_type:channel_sync_success:ratio_rate{window}",
            help=f"Do syncs succeed? Share of the runs that ended within {window} and succeeded.",
            expr=ratio(
                sum_by(rate(TOTAL, window, status="success"), *by),
                sum_by(rate(TOTAL, window, status=_SETTLED), *by),
            ),
            by=by,
        )
    yield RecordingRule(
        name="channel_sync_success:ratio_rate1d",
        help="Do syncs succeed, all together? Share of the runs of a day that succeeded.",
        expr=ratio(sum_by(rate(TOTAL, "1d", status="success")), sum_by(rate(TOTAL, "1d", status=_SETTLED))),
    )
    for part, name in _QUANTILES:
        yield RecordingRule(
            name=f"channel_type:channel_sync_duration_seconds:{name}_15m",
            help=f"How long does a sync take? {name} of the last fifteen minutes.",
            expr=quantile(part, DURATION, "15m", *by),
            by=by,
        )
    yield RecordingRule(
        name="channel_type_result:channel_sync_records:rate5m",
        help="How many records are processed? Records per second, by what became of them.",
        expr=sum_by(rate(RECORDS, "5m"), *by, "result"),
        by=(*by, "result"),
    )


RULES: Final = tuple(_rules())
