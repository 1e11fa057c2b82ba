"""
The broker as a value: read from an app as kombu reads it, and shown without secrets.
"""

from __future__ import annotations

import ssl

from typing import Any

import pytest

from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import redis as kombu_redis
from kombu.utils.url import safequote

from celery_obs.exceptions import ConfigurationError
from celery_obs.state.broker import Broker, of_app, of_url
from celery_obs.state.connection import connect, shared_by
from celery_obs.telemetry.redaction import alternatives, redact_url


def app_with(broker: object, **conf: object) -> Any:
    """
    Make an app that has read its configuration.
    """
    app = Celery("shop", broker=broker, set_as_current=False)
    app.conf.update(conf)
    return app


def connection_kwargs(place: Broker | str) -> list[dict[str, Any]]:
    """
    Return what redis-py will connect with, one dict for each server that stands in for another.
    """
    pool: Any = connect(place).connection_pool
    return [dict(each.connection_kwargs) for each in getattr(pool, "pools", [pool])]


def kombu_kwargs(app: Any) -> dict[str, Any]:
    """
    Ask kombu's own Redis transport what it would connect with.
    """
    connection = app.connection_for_read()
    channel: Any = object.__new__(kombu_redis.Channel)
    channel.connection = type("Link", (), {"client": connection, "default_port": 6379})()
    found: dict[str, Any] = channel._connparams()
    return found


passwords = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12)
databases = st.integers(0, 15)


@given(passwords, databases, st.sampled_from(["redis", "rediss"]), st.sampled_from(["path", "socket"]))
def test_a_client_is_made_as_kombus_own_transport_makes_one(password: str, database: int, scheme: str, way: str) -> None:
    """
    Whatever stands in a password, host, port, database, user, socket and TLS are what the app itself uses.
    """
    login = f"shop:{safequote(password)}@"
    url = f"{scheme}://{login}h:7/{database}" if way == "path" else f"redis+socket://{login}/run/r.sock?virtual_host={database}"
    app = app_with(url, broker_use_ssl={"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": ssl.CERT_NONE} if way == "path" else None)

    (ours,) = connection_kwargs(of_app(app))

    theirs = kombu_kwargs(app)
    compared = {"host", "port", "username", "password", "db", "path", "ssl_ca_certs", "ssl_cert_reqs"} & theirs.keys()
    assert {key: theirs[key] for key in compared} == {key: ours[key] for key in compared}


@given(
    passwords.filter(lambda word: len(word) >= 4),
    st.booleans(),
    st.sampled_from(["redis://u:{}@h:1/0", "amqp://u:{}@h//", "sentinel://:{}@a:1;sentinel://b:2/0"]),
)
def test_a_password_is_never_shown(password: str, escaped: bool, url: str) -> None:
    """
    Neither in a repr nor where a URL is masked, escaped or not.
    """
    secret = safequote(password) if escaped else password

    shown = [redact_url(url.format(secret)), repr(of_url(url.format(secret))), of_url(url.format(secret)).name]

    hidden = "redis://u:***@h:1/0 amqp://u:***@h// sentinel://:***@a:1;sentinel://b:2/0 Broker"  # What may be shown.
    assert not [text for text in shown if secret in text and secret not in hidden]


@pytest.mark.parametrize("broker", ["redis://dead:1/0;redis://:p%3B%40@live:2/3", ["redis://dead:1/0", "redis://:p%3B%40@live:2/3"]])
def test_a_list_of_brokers_is_several_servers(broker: object) -> None:
    """
    A text with ; and a Python list are the same, and each server keeps its own credentials and database.
    """
    found = connection_kwargs(of_app(app_with(broker)))

    expected = [("dead", 1, None, 0), ("live", 2, "p;@", 3)]
    assert expected == [(each["host"], each["port"], each["password"], each["db"]) for each in found]


def test_read_and_write_urls_are_told_apart() -> None:
    """
    The queues are asked where workers consume, and the state is kept where everything publishes to.
    """
    app = app_with("redis://both:1/0", broker_read_url="redis://read:1/1", broker_write_url="redis://write:1/2")

    assert ["read:1/1", "write:1/2"] == [of_app(app).name, of_app(app, write=True).name]
    assert "write:1/2" == getattr(shared_by(app), "name", None)


def test_the_password_of_sentinels_is_theirs_alone() -> None:
    """
    ``sentinel_kwargs`` reach the sentinels, and the URL's credentials the master.
    """
    app = app_with(
        "sentinel://:master@a:1/2;sentinel://:master@b:2/2",
        broker_transport_options={"master_name": "obs", "sentinel_kwargs": {"password": "theirs"}},
    )

    pool: Any = connect(of_app(app)).connection_pool

    sentinels = pool.sentinel_manager
    assert [("a", 1, "theirs"), ("b", 2, "theirs")] == [
        tuple(each.connection_pool.connection_kwargs[key] for key in ("host", "port", "password")) for each in sentinels.sentinels
    ]
    assert ("obs", "master", 2) == (pool.service_name, pool.connection_kwargs["password"], pool.connection_kwargs["db"])
    assert {"master", "theirs"} <= set(of_app(app).secrets())


@pytest.mark.parametrize(
    ("url", "tls", "kind"),
    [
        ("redis://h", {"ssl_cert_reqs": "none"}, "SSLConnection"),
        ("rediss://h", {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "SSLConnection"),
        ("rediss://h", None, "SSLConnection"),
        ("rediss://h?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem", None, "SSLConnection"),
        ("redis://h", True, "Connection"),
        ("redis://h", None, "Connection"),
    ],
)
def test_tls_is_used_where_the_app_uses_it(url: str, tls: object, kind: str) -> None:
    """
    With kombu, ``broker_use_ssl`` decides, not the scheme; its True alone changes nothing for Redis.
    """
    app = app_with(url, broker_use_ssl=tls)

    pool: Any = connect(of_app(app)).connection_pool

    assert kind == pool.connection_class.__name__ == kombu_kwargs(app)["connection_class"].__name__


@pytest.mark.parametrize("url", ["amqp://u:p@h//", "memory://", "filesystem://"])
def test_another_broker_keeps_no_state(url: str) -> None:
    """
    Then nothing is shared, and nothing is said.
    """
    assert shared_by(app_with(url)) is None


@pytest.mark.parametrize(
    "url", ["redis://:PLAN;9@h/0", "redis://u:PLAN?x@h:1/0", "redis://h:PLAN/0", "redis://u:1/PLAN@h/0", "carrier://u:PLAN@h"]
)
def test_a_broker_that_cannot_be_read_is_told_without_its_password(url: str) -> None:
    """
    Kombu's own words would quote the part of it that it took for a port.
    """
    said = ""
    try:
        said = str(shared_by(app_with(url)))  # Kombu takes some of them for another host, which is no secret.
    except ConfigurationError as error:
        said = str(error)

    assert "PLAN" not in said


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://a;redis://b", ["redis://a", "redis://b"]),
        ("redis://:a;b@h/0", ["redis://:a;b@h/0"]),
        ("sentinel://a:1;b:2/0", ["sentinel://a:1", "b:2/0"]),
    ],
)
def test_urls_are_divided_where_one_ends(url: str, parts: list[str]) -> None:
    """
    A ; in a password divides nothing.
    """
    assert parts == alternatives(url)
