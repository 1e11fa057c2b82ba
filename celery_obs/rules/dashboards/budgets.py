"""
Objectives and error budgets: do we keep what we promised, and for how long will we go on doing so?

All of it is recorded by the rules of :mod:`celery_obs.rules.slo`.
"""

from __future__ import annotations

from typing import Final

from .model import WIDTH, Dashboard, Link, Panel, Query, Row, Step, Variable
from .parts import higher_is_better, higher_is_worse


__all__ = ["SLO"]


_TO_OBJECTIVE: Final = Link("This objective", "celery-obs-slo", "slo")


def _recorded(name: str) -> str:
    return f'max by (slo) ({name}{{slo=~"$slo"}})'


def _errors(window: str) -> Query:
    return Query(expr=_recorded(f"slo:sli_error:ratio_rate{window}"), legend=f"{{{{slo}}}} over {window}")


_SUMMARY = Row(
    "Promises",
    (
        Panel(
            kind="stat",
            title="Budgets overdrawn",
            question="How many objectives are missed for this period?",
            queries=(Query(expr=f"sum ({_recorded('slo:error_budget_remaining:ratio')} < bool 0)", legend="Overdrawn"),),
            unit="none",
            steps=(Step(None, "green"), Step(1, "red")),
            width=6,
        ),
        Panel(
            kind="stat",
            title="Budgets that burn too fast",
            question="How many budgets would not last for their period, at the rate of the last hour?",
            queries=(Query(expr=f"sum ({_recorded('slo:current_burn_rate:ratio')} > bool 1)", legend="Too fast"),),
            unit="none",
            steps=(Step(None, "green"), Step(1, "yellow")),
            width=6,
        ),
        Panel(
            kind="bargauge",
            title="Error budget remaining",
            question="How much error budget is left for this period? Negative: the objective is missed.",
            queries=(Query(expr=_recorded("slo:error_budget_remaining:ratio"), legend="{{slo}}"),),
            unit="percentunit",
            minimum=0,
            maximum=1,
            steps=higher_is_better(0.1, 0.5),
            width=12,
            height=8,
            links=(_TO_OBJECTIVE,),
        ),
        Panel(
            kind="table",
            title="Objectives",
            question="What is the objective, what was reached, and how long will the budget last?",
            keys=(("slo", "Objective"),),
            queries=(
                Query(expr=_recorded("slo:objective:ratio"), legend="Promised", unit="percentunit", decimals=2),
                Query(expr=f"1 - {_recorded('slo:period_error:ratio')}", legend="Kept", unit="percentunit", decimals=2),
                Query(
                    expr=_recorded("slo:error_budget_remaining:ratio"),
                    legend="Budget left",
                    unit="percentunit",
                    steps=(Step(None, "red"), Step(0, "yellow"), Step(0.5, "green")),
                ),
                Query(expr=_recorded("slo:current_burn_rate:ratio"), legend="Burn rate now", unit="short", steps=higher_is_worse(1, 6)),
                Query(expr=_recorded("slo:time_period:days"), legend="Days", unit="none"),
            ),
            sort_by="Budget left",
            ascending=True,
            width=WIDTH,
            height=10,
            links=(_TO_OBJECTIVE,),
        ),
    ),
)

_BURN = Row(
    "Burning",
    (
        Panel(
            kind="timeseries",
            title="Error ratio, short windows",
            question="What goes wrong right now? These windows page.",
            queries=(_errors("5m"), _errors("1h")),
            unit="percentunit",
            links=(_TO_OBJECTIVE,),
        ),
        Panel(
            kind="timeseries",
            title="Error ratio, long windows",
            question="What has gone wrong for hours or days? These windows wait for the morning.",
            queries=(_errors("6h"), _errors("1d"), _errors("3d")),
            unit="percentunit",
            links=(_TO_OBJECTIVE,),
        ),
        Panel(
            kind="timeseries",
            title="Burn rate",
            question="How fast is the budget burnt? At 1 the budget lasts exactly for its period; 14.4 for an hour takes 2 % of a month's budget.",
            queries=(
                Query(expr=_recorded("slo:current_burn_rate:ratio"), legend="{{slo}} now"),
                Query(expr=_recorded("slo:period_burn_rate:ratio"), legend="{{slo}} over the period"),
            ),
            links=(_TO_OBJECTIVE,),
        ),
        Panel(
            kind="timeseries",
            title="Budget remaining over time",
            question="When was the budget spent? What is overdrawn by more than a whole budget is below the picture.",
            queries=(Query(expr=_recorded("slo:error_budget_remaining:ratio"), legend="{{slo}}"),),
            unit="percentunit",
            negative=True,
            ascending=True,
            minimum=-1,
            maximum=1,
            links=(_TO_OBJECTIVE,),
        ),
        Panel(
            kind="timeseries",
            title="Events per second, good and bad",
            question="Is there enough traffic to judge, and how much of it went wrong?",
            queries=(
                Query(expr=_recorded("slo:events:rate5m"), legend="{{slo}} all"),
                Query(expr=_recorded("slo:bad_events:rate5m"), legend="{{slo}} bad"),
            ),
            unit="ops",
            width=WIDTH,
            links=(_TO_OBJECTIVE,),
        ),
    ),
)

SLO: Final = Dashboard(
    uid="celery-obs-slo",
    title="Objectives and Error Budgets",
    question="Are the objectives met, and how long will their budgets last?",
    rows=(_SUMMARY, _BURN),
    variables=(Variable("slo", "Objective", "slo:objective:ratio"),),
    tags=("slo",),
    since="now-7d",
)
