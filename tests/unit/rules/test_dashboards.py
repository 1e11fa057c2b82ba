"""
The dashboards: every query can work, and every panel says what a person has to know.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import sys

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.areas.channels.connections import metrics as connections
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.tokens import metrics as tokens
from celery_obs.areas.channels.webhooks import metrics as webhooks
from celery_obs.areas.queues.metrics import DEPTH
from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.exceptions import ConfigurationError
from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Panel, Query, Row, placed
from celery_obs.rules.dashboards.pages import DASHBOARDS, FOLDER, build
from celery_obs.rules.dashboards.parts import coloured
from celery_obs.rules.dashboards.queries import age, max_of, per_second, quantile_of, ratio_of, ratio_within
from celery_obs.rules.dashboards.third_party import MET_OUTSIDE
from celery_obs.rules.links import DASHBOARDS as LINKED
from celery_obs.rules.links import Links
from celery_obs.rules.render import NotBuiltError
from tests.queries import known_series, problems, result_labels
from tests.unit.rules.shipped import RECORDS


RECORDED = {record.name: {*record.by, *record.labels} for record in RECORDS}
SERIES = known_series(RECORDS, MET_OUTSIDE.values())
PANELS = [(page, panel) for page in DASHBOARDS for panel in page.panels()]
QUERIES = [(f"{page.uid}: {panel.title}: {query.legend}", panel, query) for page, panel in PANELS for query in panel.queries]
ROOT = Path(__file__).parents[3]

of_page = pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page.uid)


@functools.cache
def all_written() -> dict[str, str]:
    """
    Write all pages, once for all tests.
    """
    return {output.path: output.text for output in build(Links())}


def written(page: Dashboard) -> dict[str, Any]:
    """
    Return the JSON of a page.
    """
    pytest.importorskip("grafana_foundation_sdk", reason="Grafana's SDK writes the JSON, and needs Python 3.11.")
    model: dict[str, Any] = json.loads(all_written()[f"{FOLDER}/{page.uid}.json"])
    return model


def test_every_query_asks_for_what_there_is() -> None:
    """
    Each query is PromQL, asks for metrics and labels of the catalogue, and reads counters by their rate.
    """
    assert {} == {where: found for where, _, query in QUERIES if (found := problems(query.expr, SERIES))}


def test_rows_have_the_labels_that_legends_and_tables_show() -> None:
    """
    A legend names, and a table has columns for, just what tells the rows apart.
    """
    shown = {where: {label for label, _ in panel.keys} or set(re.findall(r"{{(\w+)}}", query.legend)) for where, panel, query in QUERIES}

    assert shown == {where: result_labels(query.expr, SERIES) for where, _, query in QUERIES}


def test_every_panel_says_what_it_is_for() -> None:
    """
    A panel has a title that no other of its page has, a question as its description, and at least one query; each of them has a legend.
    """
    assert len(PANELS) == len({(page.uid, panel.title) for page, panel in PANELS})
    assert [] == [panel.title for _, panel in PANELS if not panel.title or not panel.queries or "?" not in panel.question]
    assert [] == [where for where, _, query in QUERIES if not query.legend]


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (("", ""), "Why?"),
        (("Redis has no limit", "Redis has no limit"), "Why? Nothing is shown where Redis has no limit."),
        (("", "the broker cannot tell"), "Why? Not everything is shown where the broker cannot tell."),
    ],
)
def test_a_description_tells_why_a_panel_may_be_empty(reasons: tuple[str, ...], told: str) -> None:
    """
    Who looks at an empty panel at night reads whether that is all right.
    """
    queries = tuple(Query(expr="1", legend="one", absent_where=reason) for reason in reasons)

    assert told == Panel(kind="stat", title="t", question="Why?", queries=queries).description()


def test_rates_follow_the_zoom() -> None:
    """
    The window of a rate in a course is Grafana's, so that weeks can be looked at; a fixed one is a day, an hour or half of it.
    """
    assert {"24h", "1h", "30m", "$__rate_interval", "$__range"} == {
        window for _, _, query in QUERIES for window in re.findall(r"\[([^\]]+)\]", query.expr)
    }


def test_ours_stay_on_the_chosen_jobs() -> None:
    """
    Every series of ours is matched on the chosen scrape jobs: two systems on one Prometheus can be told apart.
    """
    for where, _, query in QUERIES:
        for name, selector in re.findall(r"\b((?:celery|channel)_[a-z_]+)(\{[^}]*\})?", re.sub(r"by \([^)]*\)", "", query.expr)):
            if name in CATALOGUE or name.rpartition("_")[0] in CATALOGUE:
                assert 'job=~"$job"' in selector, where


@of_page
def test_a_table_has_a_title_for_each_of_its_keys(page: Dashboard) -> None:
    """
    Tables have keys, sort by a column that they have, and no two columns have one title; other panels have no keys.
    """
    for panel in page.panels():
        titles = [title for _, title in panel.keys] + [query.legend for query in panel.queries]
        assert (panel.kind == "table") == bool(panel.keys)
        assert panel.kind != "table" or len(titles) == len(set(titles))
        assert panel.sort_by in {"", *titles}


def test_alerts_find_the_dashboards_that_they_link_to() -> None:
    """
    Every address that an alert may link to is a page, and has the variables that the link fills in.
    """
    pages = {page.uid: {variable.name for variable in page.variables} for page in DASHBOARDS}

    assert set(LINKED) == set(pages)
    assert {uid: set(variables) - pages[uid] for uid, variables in LINKED.items() if set(variables) - pages[uid]} == {}


def test_a_click_arrives() -> None:
    """
    A link between pages sets a variable that the other page has.
    """
    pages = {page.uid: {variable.name for variable in page.variables} for page in DASHBOARDS}

    assert [] == [link for _, panel in PANELS for link in panel.links if link.variable and link.variable not in pages[link.uid]]


@of_page
def test_variables_are_chosen_from_labels_that_there_are(page: Dashboard) -> None:
    """
    A variable's values come from a label of a metric of the catalogue, or of a recorded one.
    """
    for variable in page.variables:
        labels = RECORDED[variable.metric] if variable.metric in RECORDED else {*CATALOGUE[variable.metric].labels, "job", "instance"}
        assert (variable.label or variable.name) in labels


def test_every_breaker_is_a_state_timeline() -> None:
    """
    The breakers' states are seen over time, on the overview and on each channel's page.
    """
    timelines = {page.uid for page, panel in PANELS if panel.kind == "state-timeline" and "circuit_breaker" in panel.queries[0].expr}

    assert {"channel-manager-overview", "channel-manager-platform"} <= timelines


def test_what_lies_beside_each_other_is_equally_high() -> None:
    """
    No page has holes.
    """
    heights: dict[tuple[str, int], set[int]] = {}
    for page in DASHBOARDS:
        for item in placed(page):
            heights.setdefault((page.uid, item.place.y), set()).add(item.place.height)

    assert [] == [where for where, found in heights.items() if len(found) > 1]


def test_every_outcome_has_a_colour_of_its_own() -> None:
    """
    Of what can become of one thing, no two look the same, success is green, and what failed is red.
    """
    for outcomes in (
        tasks.STATES,
        syncs.STATUSES,
        syncs.RECORD_RESULTS,
        webhooks.STATUSES,
        connections.STATUSES,
        tokens.REFRESH_STATUSES,
        ourselves.FILE_STATES,
    ):
        colours = dict(coloured(outcomes))
        assert len(set(colours.values())) == len(outcomes), outcomes
        assert colours.get("success", "green") == "green"
        assert colours.get("failure", "red") == "red"


@of_page
def test_no_number_is_red_because_nobody_said_otherwise(page: Dashboard) -> None:
    """
    Every panel has thresholds, for Grafana's own make any number red from 80 on; what is not judged has one colour.
    """
    judged = {panel.title: [step.colour for step in panel.steps] or ["blue"] for panel in page.panels()}

    panels = [panel for panel in written(page)["panels"] if panel["type"] != "row"]

    assert judged == {
        panel["title"]: [step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]] for panel in panels
    }


@of_page
def test_all_jobs_are_those_that_have_our_series(page: Dashboard) -> None:
    """
    Grafana fills in the names of our jobs: any job would be that of every other exporter, too.
    """
    jobs = [variable for variable in written(page)["templating"]["list"] if variable["name"] == "job"]

    assert [] == [variable for variable in jobs if "allValue" in variable]


@of_page
def test_the_worst_is_at_the_top_of_a_legend(page: Dashboard) -> None:
    """
    Legends are sorted by what they show, the lowest first where that is the worst.
    """
    legends = {panel["title"]: panel["options"]["legend"] for panel in written(page)["panels"] if panel["type"] == "timeseries"}
    worst = {panel.title: panel.ascending for panel in page.panels() if panel.kind == "timeseries"}

    assert {title: ("Min" if is_low else "Max", not is_low) for title, is_low in worst.items()} == {
        title: (legend["sortBy"], legend["sortDesc"]) for title, legend in legends.items()
    }
    assert all(legend["calcs"] == ["lastNotNull", legend["sortBy"].lower()] for legend in legends.values())


def test_every_latency_leads_to_its_traces() -> None:
    """
    A course that shows a quantile of ours asks for exemplars in one of its queries; those that look at the whole range or at rare things need none.
    """
    blind = [
        (page.uid, panel.title)
        for page, panel in PANELS
        if panel.kind == "timeseries"
        and any("histogram_quantile" in query.expr and "$__rate_interval" in query.expr for query in panel.queries)
        and not any(query.exemplars for query in panel.queries)
    ]

    assert [] == blind


@given(st.lists(st.tuples(st.integers(1, WIDTH), st.integers(1, 12)), max_size=12), st.integers(1, 3))
def test_panels_never_overlap(sizes: list[tuple[int, int]], rows: int) -> None:
    """
    Whatever the sizes, everything lies inside the grid, nothing covers anything else, and numbers are used once.
    """
    query = Query(expr="vector(0)", legend="x")
    panels = tuple(Panel(kind="stat", title="t", question="q?", queries=(query,), width=width, height=height) for width, height in sizes)
    page = Dashboard(uid="celery-beat", title="t", question="q?", rows=tuple(Row(f"row {number}", panels) for number in range(rows)))

    items = list(placed(page))

    assert len(items) == rows * (len(panels) + 1)
    assert len({item.number for item in items}) == len(items)
    assert all(item.place.x + item.place.width <= WIDTH for item in items)
    cells = [(x, y) for item in items for x, y in cells_of(item.place.x, item.place.y, item.place.width, item.place.height)]
    assert len(set(cells)) == len(cells)


def cells_of(x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int]]:
    return itertools.product(range(x, x + width), range(y, y + height))


def test_a_panel_wider_than_the_page_is_refused() -> None:
    """
    What cannot be laid out is said, with the panel's title.
    """
    panel = Panel(kind="stat", title="Too wide", question="q?", queries=(), width=25)
    page = Dashboard(uid="celery-beat", title="t", question="q?", rows=(Row("r", (panel,)),))

    with pytest.raises(ValueError, match=r"'Too wide' is 25 columns wide"):
        list(placed(page))


def test_shapes_refuse_what_cannot_work() -> None:
    """
    A rate of a gauge, a level of a counter, a label that is not there, a time that is no bucket: each is refused with what there is.
    """
    with pytest.raises(ConfigurationError, match="celery_queue_depth is a gauge"):
        per_second(DEPTH)
    with pytest.raises(ConfigurationError, match="channel_sync_total is a counter"):
        max_of(syncs.TOTAL)
    with pytest.raises(ConfigurationError, match=r"no label 'chanel_type'. It has channel_type"):
        age(tokens.EXPIRES_AT, "chanel_type")
    with pytest.raises(ConfigurationError, match=r"no label 'state'"):
        per_second(syncs.TOTAL, state="failure")
    with pytest.raises(ConfigurationError, match=r"no bucket that ends at 31, .* Its buckets end at 0\.05"):
        ratio_within(tasks.LATENCY, 31.0)


def test_shapes_are_the_ones_that_are_right() -> None:
    """
    A quantile aggregates by le first, and is absent where nothing was observed; a share is 0 where nothing failed and absent where nothing ran; an edge is found as either Prometheus writes it.
    """
    assert (
        'histogram_quantile(0.95, sum by (le, task) (rate(celery_task_latency_seconds_bucket{job=~"$job"}[$__rate_interval]))) >= 0'
        == quantile_of(0.95, tasks.LATENCY, "task")
    )  # fmt: skip
    whole = 'sum (rate(channel_sync_total{job=~"$job"}[1h]))'
    part = 'sum (rate(channel_sync_total{job=~"$job",status="failure"}[1h]))'
    assert f"({part} or 0 * {whole}) / ({whole} > 0)" == ratio_of(syncs.TOTAL, of={"status": "failure"}, over="1h")
    assert r'le=~"30(\\.0)?"' in ratio_within(tasks.LATENCY, 30.0)


@of_page
def test_grafana_reads_back_what_was_written(page: Dashboard) -> None:
    """
    Grafana's own model reads the JSON and writes the same again: no key is misspelt, on the page, in its panels, in their options and queries.
    """
    model = written(page)
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard as Model

    plugins.register_default_plugins()
    again = json.loads(json.dumps(Model.from_json(model), cls=JSONEncoder))

    for shown in (*again["links"], *again["annotations"]["list"]):
        # What is left out means what it meant before there was a menu; the SDK would put it there.
        assert "inControlsMenu" == shown.pop("placement")
    assert model == again


@of_page
def test_a_page_is_what_grafana_loads_from_a_file(page: Dashboard) -> None:
    """
    The file holds the bare model of the current schema, with unique numbers, known pictures, and a letter for each query.
    """
    model = written(page)
    panels = [panel for panel in model["panels"] if panel["type"] != "row"]

    assert "dashboard" not in model
    assert (page.uid, page.title, 42) == (model["uid"], model["title"], model["schemaVersion"])
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])
    assert {panel["type"] for panel in panels} <= {"stat", "timeseries", "table", "state-timeline", "bargauge"}
    assert all({"type": "prometheus", "uid": "${datasource}"} == panel["datasource"] for panel in panels)
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == ["A", "B", "C", "D", "E", "F", "G", "H"][: len(letters)]
        assert all(target["instant"] != target["range"] for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"]
    assert "do not edit" in model["description"]


def test_the_committed_pages_are_those() -> None:
    """
    The files under deploy/ are what would be written now, and no page of old lies beside them.
    """
    pytest.importorskip("grafana_foundation_sdk", reason="Grafana's SDK writes the JSON, and needs Python 3.11.")
    made = {output.path: output.text for output in build(Links())}

    assert {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / FOLDER).glob("*.json")} == made


def test_without_the_sdk_the_dashboards_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without the extra, the message says what is left out and how to get it.
    """
    monkeypatch.delitem(sys.modules, "celery_obs.rules.dashboards.grafana", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "grafana_foundation_sdk"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)

    with pytest.raises(NotBuiltError, match=r"left as they are.*pip install 'celery_obs\[dashboards\]'"):
        list(build(Links()))
