"""
Which Host headers are answered.
"""

from __future__ import annotations

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.hosts import AllowedHosts, is_loopback


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "prometheus.localhost", "127.0.0.1:19540", "127.9.9.9", "[::1]:1", "[::ffff:127.0.0.1]", None]
)
def test_names_of_loopback_are_always_allowed(host: str | None) -> None:
    """
    Whatever is listed, this machine's own tools reach it; a request without the header is from no browser.
    """
    assert AllowedHosts([], listening=["127.0.0.1", "::1"]).allow(host)
    assert AllowedHosts(["one.example"], listening=[""]).allow(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#localhost",
        "localhost@evil.example",
        "[::1",
        "1.2.3.4",
        "::1",
        "localhost:port",
        "a b",
    ],
)
def test_other_names_are_not(host: str) -> None:
    """
    Neither where only loopback is listened on, nor where others are listed.
    """
    assert not AllowedHosts([], listening=["127.0.0.1"]).allow(host)
    assert not AllowedHosts(["one.example", "*.two.example"], listening=[""]).allow(host)


def test_what_is_listed_is_allowed() -> None:
    """
    Names in any case, all names below one, addresses, with and without a port; and the addresses that are listened on.
    """
    hosts = AllowedHosts(["One.example", "*.two.example", "192.0.2.7", "[2001:db8::1]"], listening=["192.0.2.8"])

    allowed = ["one.example", "ONE.EXAMPLE.:443", "a.b.two.example", "192.0.2.7:1", "[2001:DB8::1]:1", "192.0.2.8"]
    assert [] == [host for host in allowed if not hosts.allow(host)]
    assert not hosts.allow("two.example")


@pytest.mark.parametrize("listening", [["0.0.0.0"], ["::"], [""], ["127.0.0.1", "192.0.2.1"], ["metrics.example.com"]])  # noqa: S104 -- nothing is opened.
def test_any_is_allowed_where_more_than_loopback_is_listened_on(listening: list[str]) -> None:
    """
    Who opens it to others knows under which names; a list narrows it.
    """
    assert AllowedHosts([], listening=listening).allow("evil.example")
    assert not AllowedHosts(["one.example"], listening=listening).allow("evil.example")


@pytest.mark.parametrize("name", ["http://one.example", "one.example:80", "one.*", "a b", "-", "*.", "u:secret@h"])
def test_what_is_no_host_is_refused(name: str) -> None:
    """
    At start, with what is expected.
    """
    with pytest.raises(ConfigurationError, match=r"Number 2 of .* Expected names or addresses without a port") as caught:
        AllowedHosts(["one.example", name], listening=[""])

    assert "secret" not in str(caught.value)


@given(host=st.text(max_size=40))
def test_no_header_is_allowed_that_does_not_end_in_what_is(host: str) -> None:
    """
    Whatever a header holds, it is answered with yes or no, and yes only for loopback and what is listed.
    """
    if AllowedHosts(["one.example"], listening=["127.0.0.1"]).allow(host):
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        assert is_loopback(name.strip("[]").removesuffix(".").lower()) or name.lower().removesuffix(".") == "one.example"
