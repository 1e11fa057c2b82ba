"""
The cluster's page: everything that is known once, and whatever names people give their accounts.
"""

from __future__ import annotations

import logging

import pytest

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from celery_obs.areas.channels.breakers.metrics import BreakerState
from celery_obs.areas.channels.collector import ClusterCollector
from celery_obs.areas.channels.connections.state import Connection, Drift, Snapshot, TokenExpiry
from celery_obs.areas.channels.overview import Overview, RateCount
from celery_obs.areas.channels.pauses.state import PauseInfo
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.vocabulary.spec import OTHER


def overview(
    *connections: Connection,
    channels: tuple[str, ...] = (),
    breakers: dict[str, BreakerState] | None = None,
    rate_limits: dict[tuple[str, str], RateCount] | None = None,
) -> Overview:
    """
    Make a cluster in which every connection has everything.
    """
    names = [connection.connection_id for connection in connections]
    used = {connection.channel_type for connection in connections}
    return Overview(
        snapshot=Snapshot(
            connections={connection.connection_id: connection for connection in connections},
            last_syncs=dict.fromkeys(names, 100.5),
            errors={},
            tokens=dict.fromkeys(names, TokenExpiry(200.0, 50.0)),
            drift=dict.fromkeys(names, Drift(2, 365, 90.0)),
            last_runs=dict.fromkeys(used, 90.0),
            reviews={"availability_mismatch": 3},
        ),
        channels=tuple(sorted({*channels, *used})),
        breakers=breakers or {},
        pauses={"paused": PauseInfo()} if "paused" in channels else {},
        rate_limits=rate_limits or {},
    )


def shown(state: Overview, *, most: int = 100, folded: InternalErrors | None = None) -> dict[tuple[str, ...], float]:
    """
    Collect, read the page in both formats, and return the samples by name and label values; none comes twice.
    """
    page = ClusterCollector(lambda: state, folded=folded or InternalErrors(), most_connections=most).collect()
    pages = []
    for families in (read_text(page.text), read_openmetrics(page.openmetrics + "# EOF\n")):
        samples = [((sample.name, *sample.labels.values()), sample.value) for family in families for sample in family.samples]
        pages.append(dict(samples))
        assert len(samples) == len(pages[-1])
    assert pages[0] == pages[1]
    return pages[0]


def test_everything_that_is_known_is_shown() -> None:
    """
    One connection, one channel in trouble, one that is paused.
    """
    state = overview(
        Connection("c1", "airbnb", "error", 10.0),
        channels=("paused",),
        breakers={"airbnb": "half_open", "paused": "closed"},
        rate_limits={("airbnb", ""): RateCount(7, 100), ("airbnb", "c1"): RateCount(2, 20), ("vrbo", "x"): RateCount(1, None)},
    )

    expected: dict[tuple[str, ...], float] = {
        ("channel_token_expires_at_timestamp", "airbnb", "c1"): 200.0,
        ("channel_token_lifetime_seconds", "airbnb", "c1"): 50.0,
        ("channel_connection_last_sync_timestamp", "airbnb", "c1"): 100.5,
        ("channel_connection_error_count", "airbnb", "c1"): 0,
        ("channel_connection_created_at", "airbnb", "c1"): 10.0,
        ("channel_reconciliation_drift_days", "airbnb", "c1"): 2,
        ("channel_rate_limit_current_count", "airbnb", ""): 7,
        ("channel_rate_limit_current_count", "airbnb", "c1"): 2,
        ("channel_rate_limit_current_count", "vrbo", "x"): 1,
        ("channel_rate_limit_max", "airbnb"): 100,
        ("channel_circuit_breaker_state", "airbnb"): 2,
        ("channel_circuit_breaker_state", "paused"): 0,
        ("channel_paused", "airbnb"): 0,
        ("channel_paused", "paused"): 1,
        ("channel_reconciliation_last_run_timestamp", "airbnb"): 90.0,
        ("channel_conflicts_requiring_review", "availability_mismatch"): 3,
        **{
            ("channel_connections_total", channel, status): float((channel, status) == ("airbnb", "error"))
            for channel in ("airbnb", "paused")
            for status in ("active", "paused", "error", "disconnected")
        },
    }
    assert expected == shown(state)


def test_what_is_not_known_is_absent() -> None:
    """
    A connection that never synced has no time of it, and a token that does not expire has none either.
    """
    state = overview(Connection("c1", "airbnb"))
    empty = Snapshot(
        connections=state.snapshot.connections,
        last_syncs={},
        errors={},
        tokens={"c1": TokenExpiry(None, None)},
        drift={},
        last_runs={},
        reviews={},
    )

    found = shown(Overview(snapshot=empty, channels=("airbnb",), breakers={}, pauses={}, rate_limits={}))

    assert {"channel_connection_error_count", "channel_paused", "channel_connections_total"} == {name for name, *_ in found}


def test_an_empty_cluster_is_an_empty_page() -> None:
    """
    Nothing is made up.
    """
    state = overview()
    state.snapshot.reviews.clear()  # type: ignore[attr-defined]  # A dict in this test.

    assert {} == shown(state)


def test_beyond_the_limit_the_worst_is_shown_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """
    The first connections by name have series of their own, the others share one: the earliest expiry, the oldest sync.
    """
    state = overview(*(Connection(f"c{number}", "airbnb", "active", float(number)) for number in range(5)))
    state.snapshot.tokens["c4"] = TokenExpiry(7.0, 1.0)  # type: ignore[index]  # A dict in this test.
    folded = InternalErrors()

    with caplog.at_level(logging.WARNING):
        found = shown(state, most=3, folded=folded)

    assert {"c0", "c1", "c2", OTHER} == {labels[2] for labels in found if labels[0] == "channel_token_expires_at_timestamp"}
    assert 7.0 == found["channel_token_expires_at_timestamp", "airbnb", OTHER]
    assert 5 == found["channel_connections_total", "airbnb", "active"]
    assert 2 == folded.snapshot()["channel_token_expires_at_timestamp"]
    assert "2 of 5 connections share the series of _other" in caplog.text


def test_of_breakers_that_share_a_series_the_open_one_is_shown() -> None:
    """
    An open breaker is not hidden by a half-open one of another name without end.
    """
    state = overview(channels=("x" * 1000, "y" * 1000), breakers={"x" * 1000: "open", "y" * 1000: "half_open"})

    assert 1 == shown(state)["channel_circuit_breaker_state", OTHER]


def test_a_connection_that_moves_to_another_channel_moves_on_the_page() -> None:
    """
    What was remembered of a name is forgotten when it is no longer so.
    """
    states = [overview(Connection("c", "airbnb")), overview(Connection("c", "vrbo"))]
    collector = ClusterCollector(lambda: states.pop(0), folded=InternalErrors())

    collector.collect()

    assert 'channel_connection_error_count{channel_type="vrbo",connection_id="c"} 0' in collector.collect().text


names = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", OTHER, '"', "\\", "\n", 'a"} 1\nb{c="', "x" * 501, "\udcff", "\x00", "é", "x" * 10_240]),
)


@given(
    accounts=st.lists(st.tuples(names, names), max_size=8, unique_by=lambda pair: pair[0]),
    limited=st.lists(st.tuples(names, names), max_size=5, unique=True),
    most=st.integers(0, 8),
)
def test_no_name_breaks_the_page(accounts: list[tuple[str, str]], limited: list[tuple[str, str]], most: int) -> None:
    """
    Quotes, newlines, 10 kB, half a character: each is shown as it is, or counted under _other; no series comes twice, and no account is lost.
    """
    state = overview(
        *(Connection(name, channel) for name, channel in accounts),
        breakers={channel: "open" for _, channel in accounts},
        rate_limits={pair: RateCount(1, 2) for pair in limited},
    )

    found = shown(state, most=most)

    assert len(accounts) == sum(value for labels, value in found.items() if labels[0] == "channel_connections_total")
    assert all(len(part) <= 500 for labels in found for part in labels)
    own = sorted(name for name, _ in accounts)[:most]
    for name, channel in accounts:
        if name in own and len(name) <= 500 and name != OTHER and name.isascii() and channel.isascii() and len(channel) <= 500:
            assert ("channel_connection_error_count", channel, name) in found
