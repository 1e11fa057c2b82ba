"""
Rules of the service level objectives: how fast the error budget burns, and how much of it is left.

Two things that are often done otherwise.  The period is the quotient of two sums of events, not the mean of ratios, so that a quiet night does not weigh
as much as a busy day.  And while nothing happens the rate of events is 0 and the ratio is absent, so that no NaN spoils the whole period.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

from .changes import NOTHING, Changes
from .links import Links
from .objectives import DEFAULT, WINDOWS, BurnWindow, Objective, read
from .render import Output
from .rules import Alert, Group, RecordingRule, Severity, rule_file


__all__ = ["ALERT_NAMES", "CHANNELS_PATH", "PATH", "build", "groups"]


PATH: Final = "deploy/prometheus/rules/slo.yml"
CHANNELS_PATH: Final = "deploy/prometheus/rules/slo-channels.yml"
"""
In a file of their own, so that an app without channels can do without them.
"""

ALERT_NAMES: Final = ("SLOErrorBudgetBurnFast", "SLOErrorBudgetBurnSlow", "SLOErrorBudgetExhausted", "SLOEventsAbsent")

_SHORT: Final = ("5m", "30m", "1h", "2h", "6h")
_LONG: Final = ("1d", "3d")
_BY: Final = ("slo",)


def build(links: Links, path: Path = DEFAULT, changes: Changes = NOTHING) -> Iterator[Output]:
    """
    Write the rules of the objectives in the file at *path*, with their alerts as a team has them; those about channels in a second file.
    """
    source = "celery_obs/rules/slo.yml" if path == DEFAULT else path.name
    objectives = read(path)
    general = [*_groups(_general(objectives)), *_alerts_on_all(objectives)]
    for place, made in ((PATH, general), (CHANNELS_PATH, list(_groups(_of_channels(objectives), "channels_")))):
        if made or path != DEFAULT:  # Of objectives of one's own, a file that is empty takes the place of the one before.
            yield Output(place, rule_file(changes.sources(source), map(changes.in_group, made), links))


def groups(objectives: tuple[Objective, ...]) -> Iterator[Group]:
    """
    Make the groups of all objectives: for each what happened lately, long ago and in its period; then what is to be alerted on.
    """
    yield from _groups(_of_channels(objectives), "channels_")
    yield from _groups(_general(objectives))
    yield from _alerts_on_all(objectives)


def _general(objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
    return tuple(each for each in objectives if not each.is_about_channels)


def _of_channels(objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
    return tuple(each for each in objectives if each.is_about_channels)


def _groups(objectives: tuple[Objective, ...], prefix: str = "") -> Iterator[Group]:
    for each in objectives:
        word = each.name.replace("-", "_")
        yield Group(name=f"celery_obs_slo_{word}", comment=_comment(each), rules=tuple(_recent(each)))
        yield Group(
            name=f"celery_obs_slo_{word}_period",
            comment=f"the same over {each.period_days} days.",
            rules=tuple(_period(each)),
            interval="2m",
        )
    if objectives:
        yield Group(
            name=f"celery_obs_slo_{prefix}alerts",
            comment="budgets that burn too fast.",
            rules=tuple(_alerts(objectives)),
        )


def _alerts_on_all(objectives: tuple[Objective, ...]) -> Iterator[Group]:
    """
    Make the group of what is alerted on for every objective at once, whichever file has it.
    """
    if objectives:
        yield Group(
            name="celery_obs_slo_budget_alerts",
            comment="budgets that are exhausted, or are not measured, of all objectives.",
            rules=tuple(_alerts_by_label()),
        )


def _comment(each: Objective) -> str:
    return f"{each.description} Origin: {each.origin}." if each.origin else each.description


def _recent(each: Objective) -> Iterator[RecordingRule]:
    for window in _SHORT:
        yield from _of_window(each, window)


def _period(each: Objective) -> Iterator[RecordingRule]:
    for window in _LONG:
        yield from _of_window(each, window)
    yield _record(each, "slo:objective:ratio", "What is the objective?", f"vector({_text(each.objective)})")
    yield _record(each, "slo:error_budget:ratio", "How much may go wrong?", f"vector({_text(each.budget)})")
    yield _record(each, "slo:time_period:days", "Over how many days?", f"vector({each.period_days})")
    bad, events = (f"sum_over_time({_series(each, name)}[{each.period_days}d])" for name in ("slo:bad_events:rate5m", "slo:events:rate5m"))
    yield _record(each, "slo:period_error:ratio", "Which share of events was bad?", f"{bad}\n/\n({events} > 0)")
    burnt = f"{_series(each, 'slo:period_error:ratio')} / {_text(each.budget)}"
    yield _record(each, "slo:period_burn_rate:ratio", "How fast was the budget burnt? At 1 it lasts exactly for the period.", burnt)
    yield _record(
        each, "slo:error_budget_remaining:ratio", "How much of the budget is left? Negative once it is overdrawn.", f"1 - {burnt}"
    )
    now = f"{_series(each, 'slo:sli_error:ratio_rate1h')} / {_text(each.budget)}"
    yield _record(each, "slo:current_burn_rate:ratio", "How fast is the budget burnt now? By the last hour.", now)


def _of_window(each: Objective, window: str) -> Iterator[RecordingRule]:
    events, bad = f"slo:events:rate{window}", f"slo:bad_events:rate{window}"
    yield _record(each, events, f"How much happened within {window}? Events per second.", each.events.all_of(window))
    yield _record(each, bad, f"How much of it went wrong within {window}? Events per second.", each.events.bad_of(window))
    ratio = f"{_series(each, bad)}\n/\n({_series(each, events)} > 0)"
    yield _record(
        each, f"slo:sli_error:ratio_rate{window}", f"Which share went wrong within {window}? Absent while nothing happens.", ratio
    )


def _alerts(objectives: tuple[Objective, ...]) -> Iterator[Alert]:
    for each in objectives:
        yield _burning(
            each,
            "critical",
            "SLOErrorBudgetBurnFast",
            "{{ $value | humanizePercentage }} of the events of {{ $labels.slo }} are bad. At this rate the budget of its whole period is gone within days.",
        )
        yield _burning(
            each,
            "warning",
            "SLOErrorBudgetBurnSlow",
            "{{ $value | humanizePercentage }} of the events of {{ $labels.slo }} have been bad for hours or days. At this rate the budget will not last for its period.",
        )


def _alerts_by_label() -> Iterator[Alert]:
    yield Alert(
        name="SLOErrorBudgetExhausted",
        severity="warning",
        expr="slo:error_budget_remaining:ratio < 0",
        for_="15m",
        by=_BY,
        summary="The error budget of {{ $labels.slo }} is exhausted",
        description="{{ $value | humanizePercentage }} of the error budget of {{ $labels.slo }} is left.",
        dashboard="celery-obs-slo",
    )
    yield Alert(
        name="SLOEventsAbsent",
        severity="warning",
        # Not absent(), which would tell of every objective on a metric that an application has not got.
        expr="slo:period_error:ratio\nunless on (slo)\nslo:events:rate5m",
        for_="15m",
        by=_BY,
        summary="{{ $labels.slo }} is no longer measured",
        description="The metric that {{ $labels.slo }} counts had series within its period, and has had none for $for. Its error budget stays as it is, whatever happens.",
        dashboard="celery-obs-slo",
    )


def _burning(each: Objective, severity: Severity, name: str, description: str) -> Alert:
    parts = [_too_fast(each, window) for window in WINDOWS if window.severity == severity]
    return Alert(
        name=name,
        severity=severity,
        expr="\nor\n".join(parts),
        by=_BY,
        labels={"slo": each.name},
        summary="The error budget of {{ $labels.slo }} burns too fast",
        description=description,
        dashboard="celery-obs-slo",
    )


def _too_fast(each: Objective, window: BurnWindow) -> str:
    above = f"{_text(window.factor(each.period_days).quantize(Decimal('1.0000')))} * {_text(each.budget)}"
    return (
        f"(\n  {_series(each, f'slo:sli_error:ratio_rate{window.long}')} > {above}\n  and\n"
        f"  {_series(each, f'slo:sli_error:ratio_rate{window.short}')} > {above}\n  and\n"
        f"  {_text(window.hours * 3600)} * {_series(each, f'slo:events:rate{window.long}')} >= {each.min_events}\n)"
    )


def _record(each: Objective, name: str, help_text: str, expr: str) -> RecordingRule:
    return RecordingRule(name=name, help=help_text, expr=expr, by=_BY, labels={"slo": each.name})


def _series(each: Objective, name: str) -> str:
    return f'{name}{{slo="{each.name}"}}'


def _text(number: Decimal) -> str:
    return f"{number.normalize():f}"
