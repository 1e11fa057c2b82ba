"""
How Grafana asks Prometheus: its variables in the queries, a window of rates that suits the zoom, a course or what is now.
"""

from __future__ import annotations

import math
import re

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx

from .pages import Page, Target, Variable


__all__ = ["Moment", "Prometheus", "Series", "filled"]


POINTS: Final = 400
"""
How many points a course has at most: about as many as a panel is wide.
"""


class Series(NamedTuple):
    """
    One row of an answer: a number for each of the times that were asked for, NaN where there was none.
    """

    labels: Mapping[str, str]
    values: tuple[float, ...]


class Moment(NamedTuple):
    """
    What the reader looks at.

    Attributes:
        start, end: In seconds since the epoch.

        every: Seconds between two scrapes, as the data source has it.
    """

    start: float
    end: float
    every: float

    @property
    def step(self) -> float:
        """
        Seconds between two points of a course.
        """
        return max(self.every, math.ceil((self.end - self.start) / POINTS))

    @property
    def times(self) -> tuple[float, ...]:
        """
        The times of a course's points.
        """
        return tuple(self.start + number * self.step for number in range(int((self.end - self.start) / self.step) + 1))


def filled(expr: str, moment: Moment, chosen: Mapping[str, str]) -> str:
    """
    Put what is looked at, and what was chosen, in the place of Grafana's variables.

    Raises:
        ValueError: for a variable that nothing was chosen for.
    """
    known = {
        "__rate_interval": f"{max(moment.step + moment.every, 4 * moment.every):.0f}s",
        "__interval": f"{moment.step:.0f}s",
        "__range": f"{moment.end - moment.start:.0f}s",
        **chosen,
    }

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            message = f"Nothing is chosen for ${match[1]} in {expr!r}. Expected one of: {', '.join(known)}."
            raise ValueError(message)
        return known[match[1]]

    return re.sub(r"\$(\w+)", value, expr)


class Prometheus:
    """
    A Prometheus, asked over HTTP.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self._web = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        """
        Let its connections go.
        """
        self._web.close()

    def chosen(self, page: Page) -> dict[str, str]:
        """
        Choose for each variable of *page* what Grafana does at first: everything where that can be chosen, else the first.
        """
        return {variable.name: self._choice(variable) for variable in page.variables}

    def ask(self, target: Target, moment: Moment, chosen: Mapping[str, str]) -> tuple[Series, ...]:
        """
        Ask one query; what is now has one value, a course one for each of the moment's times.
        """
        expr = filled(target.expr, moment, chosen)
        if not target.is_course:
            rows = self._get("query", query=expr, time=str(moment.end))
            return tuple(Series(row["metric"], (float(row["value"][1]),)) for row in rows)
        rows = self._get("query_range", query=expr, start=str(moment.start), end=str(moment.end), step=str(moment.step))
        return tuple(Series(row["metric"], _course(row["values"], moment)) for row in rows)

    def _choice(self, variable: Variable) -> str:
        if variable.everything:
            return variable.everything
        # Only Grafana knows $job; what its All stands for are the jobs of these very series.
        found: list[str] = self._json(f"label/{variable.label}/values", **{"match[]": re.sub(r"\$\w+", ".*", variable.series)})
        return "|".join(map(re.escape, sorted(found))).replace("\\", "\\\\") if variable.many else min(found, default="")

    def _get(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        answer = self._json(what, **parameters)
        if answer["resultType"] == "scalar":
            return [{"metric": {}, "value": answer["result"]}]
        rows: list[dict[str, Any]] = answer["result"]
        return rows

    def _json(self, what: str, **parameters: str) -> Any:
        answer = self._web.get(f"/api/v1/{what}", params=parameters).json()
        if answer["status"] != "success":
            message = f"Prometheus does not answer {parameters}: {answer.get('error')}."
            raise ValueError(message)
        return answer["data"]


def _course(pairs: list[tuple[float, str]], moment: Moment) -> tuple[float, ...]:
    there = {round((time - moment.start) / moment.step): float(value) for time, value in pairs}
    return tuple(there.get(number, math.nan) for number in range(len(moment.times)))
