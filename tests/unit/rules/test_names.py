"""
What a query asks for is found without a parser, and it is what a parser finds.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.rules.dashboards.pages import DASHBOARDS
from celery_obs.rules.names import Selected, known_series, selected, unknown
from celery_obs.rules.packs.aliases import ALIASES
from celery_obs.rules.rules import RecordingRule
from tests.monitoring import without_variables
from tests.unit.rules.shipped import EVERY_ALERT, RECORDS


RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks"
KNOWN = known_series(CATALOGUE.values(), [RecordingRule(name="a:b:rate5m", help="?", expr="1", by=("queue",), labels={"slo": "x"})])


def every_query() -> Iterator[str]:
    """
    Go through all queries that we ship.
    """
    yield from (record.expr for record in RECORDS)
    yield from (alert.promql for alert in EVERY_ALERT)
    yield from (record.expr for aliases in ALIASES.values() for alias in aliases for record in alias.records())
    yield from (without_variables(query.expr) for page in DASHBOARDS for panel in page.panels() for query in panel.queries)
    for path in RUNBOOKS.glob("*.md"):
        for block in re.findall(r"^```promql\n(.*?)^```$", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
            yield from (query for query in block.split("\n\n"))


def parsed(query: str) -> list[Selected]:
    """
    Return what the parser says that a query asks for, in order.
    """
    found: list[Selected] = []
    _visit(promql_parser.parse(query), found)
    return sorted(found)


def _visit(node: Any, found: list[Selected]) -> None:
    kind = type(node).__name__
    if kind == "VectorSelector":
        found.append(Selected(node.name, tuple(matcher.name for matcher in node.matchers.matchers)))
    elif kind == "MatrixSelector":
        _visit(node.vector_selector, found)
    for name in ("lhs", "rhs", "expr", "param"):
        if getattr(node, name, None) is not None:
            _visit(getattr(node, name), found)
    for argument in getattr(node, "args", ()):
        _visit(argument, found)


def test_all_that_we_ship_asks_for_what_the_parser_says() -> None:
    """
    In every rule, panel and runbook.
    """
    queries = sorted(set(every_query()))

    assert 300 < len(queries)
    assert [(query, parsed(query)) for query in queries] == [(query, sorted(selected(query))) for query in queries]


names = st.from_regex(r"[a-z_]{3,8}(:[a-z]{1,5})?", fullmatch=True).map(lambda name: f"m_{name}")
values = st.text(alphabet='ab"\\{}()[]#,= ', max_size=8).map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')


@st.composite
def selectors(draw: st.DrawFn) -> str:
    """
    Draw a selector.
    """
    labels = draw(st.lists(st.sampled_from(["by", "on", "queue", "sum", "offset"]), max_size=3, unique=True))
    matchers = ", ".join(f"{label}{draw(st.sampled_from(['=', '!=', '=~', '!~']))}{draw(values)}" for label in labels)
    return draw(names) + (f"{{{matchers}}}" if matchers or draw(st.booleans()) else "")


def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """
    Put expressions into larger ones.
    """
    return st.one_of(
        st.builds("sum by (queue, on) ({})".format, inner),
        st.builds("max without (queue) ({})".format, inner),
        st.builds("count({}) by (queue)".format, inner),
        st.builds("topk(5, {})".format, inner),
        st.builds('label_replace({}, "queue", "$1", "name", "(.*)")'.format, inner),
        st.builds("({}) # {{comment}} of_nothing\n".format, inner),
        st.builds("avg_over_time(({})[30m:1m] offset 5m)".format, inner),
        st.builds(
            "({}) {} ({})".format, inner, st.sampled_from(["+", "> bool", "and on (queue)", "or", "/ on (queue) group_left (x)"]), inner
        ),
    )


@given(st.recursive(selectors(), wrapped, max_leaves=5))
@settings(max_examples=60)
def test_any_query_asks_for_what_the_parser_says(query: str) -> None:
    """
    Whatever stands in texts, comments and lists of labels is no series.
    """
    try:
        expected = parsed(query)
    except ValueError:
        # A pattern that is none is refused by the parser; the names are found all the same.
        list(selected(query))
    else:
        assert expected == sorted(selected(query))


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (
            "rate(channel_sync_totl[5m])",
            "asks for channel_sync_totl, which is neither in the catalogue nor recorded. Did you mean channel_sync_total?",
        ),
        ("channel_sync_duration_seconds", "asks for channel_sync_duration_seconds, which is neither in the catalogue"),
        (
            'rate(channel_sync_total{state="failure"}[5m])',
            "asks for the label state of channel_sync_total, which it does not have. It has channel_type, direction, status, sync_type. Did you mean status?",
        ),
        ('a:b:rate5m{task="t"}', "asks for the label task of a:b:rate5m, which it does not have. It has queue, slo."),
    ],
)
def test_what_nobody_makes_is_told_with_the_nearest(query: str, problem: str) -> None:
    """
    A slip of the pen is found, and what was meant is near.
    """
    assert [True] == [problem in found for found in unknown(query, KNOWN)], list(unknown(query, KNOWN))


@pytest.mark.parametrize(
    "query",
    [
        'sum by (le, instance) (rate(channel_sync_duration_seconds_bucket{le="10", job="celery-obs"}[$__rate_interval]))',
        'a:b:rate5m{slo="x", queue=~"a|b"} / on () group_left vector(1)',
        "histogram_quantile(0.95, sum(rate(channel_sync_duration_seconds_bucket[5m])) by (le)) > 1e3 and time() - 0x10 < Inf",
    ],
)
def test_what_is_there_is_not_complained_of(query: str) -> None:
    """
    Histograms have their parts, and whatever is scraped has the labels of its target.
    """
    assert [] == list(unknown(query, KNOWN))
