"""
Tokens as values: what they show, what they refuse, and what is made of what a channel says.
"""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest

from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import EncodeError
from kombu.utils.json import dumps

from celery_obs.areas.channels import errors
from celery_obs.areas.channels.connections.state import TokenExpiry
from celery_obs.areas.channels.tokens import vault
from celery_obs.areas.channels.tokens.api import Token, _is_held_back
from celery_obs.areas.channels.tokens.oauth import LONGEST_LIFETIME, lifetime_of
from celery_obs.areas.channels.tokens.tasks import is_due
from celery_obs.exceptions import ConfigurationError
from celery_obs.settings import Secret, Settings, load
from celery_obs.settings.oauth import OAuthClient, filled
from tests.tokens import KEY


ACCESS, REFRESH, OTHER = "at-canary-1", "rt-canary-2", "id-canary-3"

secret_texts = st.text(min_size=1)
times = st.none() | st.floats(0, 4e9)
some_tokens = st.builds(
    Token,
    access_token=secret_texts,
    refresh_token=st.text(),
    expires_at=times,
    lifetime=times,
    scope=st.text(),
    extra=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())),
    issued_at=times,
)


def a_token(**facts: Any) -> Token:
    return Token(access_token=ACCESS, refresh_token=REFRESH, **facts)


SHOWS = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": "{}".format,
    "repr in a format": "{!r}".format,
    "in a list": lambda token: repr([token]),
    "described": lambda token: repr(token.describe()),
}


@pytest.mark.parametrize("show", SHOWS.values(), ids=SHOWS)
def test_no_way_to_show_a_token_shows_a_secret(show: Any) -> None:
    """
    What a log line, a traceback or an error report prints is when it expires, and whether it can be refreshed.
    """
    shown = show(a_token(extra={"id_token": OTHER}, expires_at=5.0))

    assert "expires_at" in shown
    assert "has_refresh_token" in shown
    assert not any(secret in shown for secret in (ACCESS, REFRESH, OTHER))


def test_a_secret_is_itself_to_those_who_use_it_and_stars_to_those_who_show_it() -> None:
    """
    In a header it is the text; in a repr it is not.
    """
    token = a_token()

    assert f"Bearer {ACCESS}" == f"Bearer {token.access_token}"
    assert "'***'" == repr(token.access_token) == repr(token.refresh_token)


@pytest.mark.parametrize(
    "send", [pickle.dumps, copy.copy, copy.deepcopy, dumps, json.dumps], ids=["pickle", "copy", "deepcopy", "kombu", "json"]
)
def test_a_token_cannot_be_sent(send: Any) -> None:
    """
    As a task's argument or result it is refused, by each serializer.
    """
    with pytest.raises((TypeError, EncodeError)) as caught:
        send(a_token())

    assert ACCESS not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"access_token": ""}, {"access_token": None}, {"access_token": "a", "refresh_token": 5}])
def test_what_is_no_token_is_refused(wrong: dict[str, Any]) -> None:
    """
    The message says the field and the type, and never the value.
    """
    with pytest.raises((TypeError, ValueError), match="Expected"):
        Token(**wrong)


@given(some_tokens, st.text(min_size=1), st.text(min_size=1))
def test_what_is_stored_comes_back_whole_and_for_its_own_connection_only(token: Token, connection: str, other: str) -> None:
    """
    Encoding loses nothing, and binds.
    """
    plain = vault._encode(connection, token)

    assert replace(token, extra=dict(token.extra)) == _plain(vault._decode(connection, plain))
    assert (connection == other) == (vault._decode(other, plain) is not None)


def _plain(token: Token | None) -> Token | None:
    return token and replace(token, extra=dict(token.extra))


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.none())
)
def test_any_expires_in_is_a_time_to_live_or_none(said: Any) -> None:
    """
    Whatever a channel says, it is a number of seconds that makes sense, or nothing.
    """
    lifetime = lifetime_of(said)

    assert lifetime is None or 0 < lifetime <= LONGEST_LIFETIME


SAID = [
    (3600, 3600.0),
    ("3600", 3600.0),
    (0.5, 0.5),
    (0, None),
    (-1, None),
    ("soon", None),
    (None, None),
    (True, None),
    (1e18, LONGEST_LIFETIME),
    (10**400, LONGEST_LIFETIME),
    ("1e999", LONGEST_LIFETIME),
    ("nan", None),
    ([], None),
    ("", None),
]


@pytest.mark.parametrize(("said", "lifetime"), SAID, ids=[f"{said!r:.12}" for said, _ in SAID])
def test_expires_in_is_read_as_the_documentation_says(said: Any, lifetime: float | None) -> None:
    """
    The cases of the how-to page.
    """
    assert lifetime == lifetime_of(said)


@pytest.mark.parametrize(
    ("left", "lifetime", "due"),
    [
        pytest.param(901, 86400, False, id="a day, not yet"),
        pytest.param(900, 86400, True, id="a day, a quarter of an hour left"),
        pytest.param(601, 1500, False, id="25 minutes, more than a third left"),
        pytest.param(500, 1500, True, id="25 minutes, a third left"),
        pytest.param(421, 600, False, id="ten minutes, fresh"),
        pytest.param(420, 600, True, id="ten minutes, would not live until after the next scan"),
        pytest.param(60, 60, True, id="a minute, always"),
        pytest.param(-5, 3600, True, id="over"),
        pytest.param(899, None, True, id="of unknown length"),
    ],
)
def test_a_token_is_due_ahead_of_its_expiry(left: float, lifetime: float | None, due: bool) -> None:
    """
    The setting for long ones, a third of its life for short ones, and never later than the last scan that can help.
    """
    assert due == is_due(TokenExpiry(1000.0 + left, lifetime), now=1000.0, ahead=900.0, period=300.0)


@given(st.floats(1, 1e7), st.floats(1, 1e7), st.floats(1, 3600))
def test_no_token_expires_between_two_scans_unseen(lifetime: float, ahead: float, period: float) -> None:
    """
    Whatever it lives and whatever is set: one that is not due now is alive at the next scan, and for a while after.
    """
    for left in (0.0, period, 1.39 * period, 1.41 * period, lifetime):
        if not is_due(TokenExpiry(left, lifetime), now=0.0, ahead=ahead, period=period):
            assert left > 1.4 * period


def test_a_token_that_does_not_expire_is_never_due() -> None:
    """
    Nothing to do.
    """
    assert not is_due(TokenExpiry(None, None), now=0.0, ahead=900.0, period=300.0)


# --- the settings -----------------------------------------------------------------------------------------------------------------

CLIENT = {"token_url": "https://channel.test/token", "client_id": "we", "client_secret": "canary-secret"}


def settings(**given: Any) -> Settings:
    return load({}, {}, {"metrics_dir": "/run/celery_obs", **given})


def test_settings_show_no_key_and_no_client() -> None:
    """
    Neither in the repr of the settings nor in that of a client.
    """
    loaded = settings(token_keys=[KEY], oauth_clients={"airbnb": CLIENT})
    assert loaded.oauth_clients is not None

    shown = repr(loaded) + repr(loaded.oauth_clients) + repr(vars(loaded))
    assert KEY not in shown
    assert "canary-secret" not in shown
    assert "canary-secret" == loaded.oauth_clients["airbnb"].client_secret


def test_clients_are_read_from_the_environment_as_json() -> None:
    """
    As a secret that an orchestrator hands over.
    """
    environ = {"CELERY_OBS_OAUTH_CLIENTS": json.dumps({"airbnb": CLIENT}), "CELERY_OBS_TOKEN_KEYS": f"{KEY}, {KEY}"}

    loaded = load({}, environ, {"metrics_dir": "/run/celery_obs"})

    expected = OAuthClient(token_url=CLIENT["token_url"], client_id="we", client_secret=Secret("canary-secret"))
    assert loaded.oauth_clients == {"airbnb": expected}
    assert loaded.token_keys == (KEY, KEY)


def test_a_client_without_a_secret_says_only_its_name() -> None:
    """
    A public client's method is none.
    """
    clients = settings(oauth_clients={"airbnb": {"token_url": "http://localhost:8000/t", "client_id": "we"}}).oauth_clients

    assert clients is not None
    assert "none" == clients["airbnb"].token_endpoint_auth_method


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"token_url": ""}, "has no token_url"),
        ({"client_id": 7}, "has no client_id"),
        ({"token_url": "http://channel.test/token"}, "Expected https://"),
        ({"token_url": "https://me:canary-secret@channel.test/token"}, "Expected https://"),
        ({"token_url": "ftp://channel.test/"}, "Expected https://"),
        ({"token_url": "https://[::1/token"}, "malformed token_url"),
        ({"token_url": "https://channel.test:http/"}, "malformed token_url"),
        ({"token_url": "https:///token"}, "Expected https://"),
        ({"client_secret": ["canary-secret"]}, "client_secret of type list"),
        ({"token_endpoint_auth_method": "tls"}, "one of client_secret_basic"),
        ({"timeout": 0}, "at most 60"),
        ({"timeout": 3600}, "at most 60"),
        ({"lifetime": "long"}, "a number of seconds"),
        ({"tokenurl": "x"}, "has 'tokenurl'"),
        ({"provider": "fitbitt"}, "provider is 'fitbitt'; expected one of none, airbnb"),
        ({"provider": {"errors": "error"}}, "expected a list of texts"),
        ({"provider": {"grant_type": "password"}}, "grant_type is 'password'"),
        ({"provider": {"dead_codes": []}}, "provider is \"'dead_codes'\""),
        ({"provider": 5}, "provider is 'int'"),
        ({"token_url": "https://channel.test/{a b}"}, "Expected https://"),
        ({"token_url": "http://{shop}/token"}, "Expected https://"),
        ({"body": "xml"}, "one of form, json"),
        ({"parameters": {"a": 1}}, "has parameters of type dict"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "has no private_key"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "has no certificate"),
        ({"signing_algorithm": "HS256"}, "one of RS256"),
        ({"before_request": 5}, "has an invalid before_request of type int"),
        ({"after_response": "no place"}, "has an invalid after_response of type str"),
    ],
)
def test_a_wrong_client_is_refused_at_the_start_without_its_secret(wrong: dict[str, Any], said: str) -> None:
    """
    The message names channel and field, on one line.
    """
    with pytest.raises(ConfigurationError) as caught:
        settings(oauth_clients={"airbnb": {**CLIENT, **wrong}})

    message = str(caught.value)
    assert said in message
    assert "'airbnb'" in message
    assert "canary-secret" not in message
    assert "\n" not in message


@pytest.mark.parametrize("value", ["canary", [KEY, "canary"], [KEY[:-4] + "!!!!"], {"canary": 1}, 3, "canary," * 3])
def test_a_wrong_key_is_refused_at_the_start_without_being_shown(value: Any) -> None:
    """
    The message says how a key is made.
    """
    with pytest.raises(ConfigurationError, match=r"token_keys is \*\*\* .*Fernet\.generate_key") as caught:
        settings(token_keys=value)

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("spelling", ["oauth_client", "obs_oauth_clientz", "token_keyz"])
def test_a_setting_that_is_spelled_wrong_shows_no_secret(spelling: str) -> None:
    """
    A typo in the name does not print the value.
    """
    with pytest.raises(ConfigurationError) as caught:
        settings(**{spelling: {"airbnb": CLIENT}})

    assert "canary-secret" not in str(caught.value)


@pytest.mark.parametrize("place", ["proj.tokens", ":x", "proj:", "a b:c", "proj.tokens:SOURCE()", 5, b"a:b", object()])
def test_a_token_source_is_a_place_or_an_object(place: Any) -> None:
    """
    What is neither is refused at the start.
    """
    with pytest.raises(ConfigurationError, match="token_source"):
        settings(token_source=place)


@pytest.mark.parametrize(("package", "statement"), [("authlib", "tokens.refresh('conn')"), ("cryptography", "tokens.get('conn')")])
def test_a_missing_extra_is_named_when_it_is_needed(package: str, statement: str) -> None:
    """
    Without the extra everything loads; who refreshes is told what to install.
    """
    program = f"""
import sys
sys.modules[{package!r}] = None
from celery_obs.runtime.hub import ErrorReporter, Hub
from celery_obs.settings import load
from celery_obs.areas.channels.connections.state import Connection
from celery_obs.areas.channels import engine
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens import tasks

class Redis:
    def hmget(self, *_): return b"blob", b"1"
    def hget(self, *_): return None
    def hset(self, *_): return 1
    def hdel(self, *_): return 1
    def eval(self, *_): return None

class Shelf:
    def get(self, _): return tokens.Token(access_token="a", refresh_token="b")
    def put(self, *_): pass

clients = {{"airbnb": {{"token_url": "https://channel.test/token", "client_id": "we"}}}}
source = Shelf() if {package!r} == "authlib" else None
settings = load({{}}, {{}}, dict(metrics_dir="/run/x", token_keys=[{KEY!r}], token_source=source, oauth_clients=clients))
made = engine.Engine(hub=Hub(on_error=ErrorReporter()), settings=settings)
made.redis = Redis()
made.part(tokens.Tokens).connection = lambda _: Connection("conn", "airbnb")
engine.connect(lambda: made)
try:
    {statement}
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.startswith("MissingExtraError ")
    assert "pip install 'celery_obs[oauth]'" in ended.stdout


# --- times as people and channels write them --------------------------------------------------------------------------------------

MOMENT = 1_924_905_600.0  # 2030-12-31T00:00:00Z


@pytest.mark.parametrize(
    "written",
    [
        MOMENT,
        int(MOMENT),
        int(MOMENT * 1000),
        str(int(MOMENT)),
        f" {MOMENT} ",
        "2030-12-31T00:00:00Z",
        "2030-12-31T13:00:00+13:00",
        datetime(2030, 12, 31, tzinfo=timezone.utc),
        datetime(2030, 12, 31, 13, tzinfo=timezone(timedelta(hours=13))),
    ],
    ids=repr,
)
def test_a_time_is_what_it_says_however_it_is_written(written: Any) -> None:
    """
    Seconds, milliseconds, their text, ISO 8601 and datetimes with a time zone are one moment to every store, scan and page.
    """
    token = a_token(expires_at=written, issued_at=written)

    assert (MOMENT, MOMENT) == (token.expires_at, token.issued_at)
    assert token == _plain(vault._decode("c", vault._encode("c", token)))


@pytest.mark.parametrize(
    "written",
    ["soon", "2030-12-31T00:00:00", datetime(2030, 12, 31), True, -5, float("nan"), float("inf"), [5], b"5", 1e18],  # noqa: DTZ001 -- it is what is wrong.
    ids=repr,
)
def test_what_is_no_time_is_refused_before_it_is_stored(written: Any) -> None:
    """
    The message names the field and what was expected, and does not show the value.
    """
    with pytest.raises((TypeError, ValueError), match=r"The expires_at of a Token .* Expected seconds since the epoch"):
        a_token(expires_at=written)


@pytest.mark.parametrize(("written", "seconds"), [(60, 60.0), ("60", 60.0), (timedelta(minutes=1), 60.0), (None, None)], ids=repr)
def test_a_lifetime_is_a_number_of_seconds(written: Any, seconds: float | None) -> None:
    """
    As a text and as a timedelta, too.
    """
    assert seconds == a_token(lifetime=written).lifetime


@pytest.mark.parametrize("wrong", [{"lifetime": "long"}, {"lifetime": -1}, {"lifetime": []}, {"scope": 5}, {"extra": None}], ids=repr)
def test_whatever_else_no_store_could_keep_is_refused(wrong: dict[str, Any]) -> None:
    """
    A token that cannot be stored is found out when it is made.
    """
    with pytest.raises((TypeError, ValueError), match="Expected"):
        a_token(**wrong)


def test_scopes_may_be_a_list() -> None:
    """
    As some channels send them.
    """
    assert "calendar read" == a_token(scope=["calendar", "read"]).scope


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes() | st.lists(st.integers()))
def test_any_expires_at_is_a_time_or_refused(written: Any) -> None:
    """
    Nothing gets through that a comparison with the clock fails on.
    """
    try:
        token = a_token(expires_at=written)
    except (TypeError, ValueError):
        return

    assert token.expires_at is None or 0 <= token.expires_at < 1e11
    assert is_due(TokenExpiry(token.expires_at, None), now=1e11, ahead=1.0, period=1.0) == (token.expires_at is not None)


# --- the URL of one connection ----------------------------------------------------------------------------------------------------

SHOP_URL = "https://{shop}.myshopify.com/admin/oauth/access_token"


@pytest.mark.parametrize(
    "value", ["evil.test/", "evil.test#", "a@evil.test", "..", ".", "a..b", "", "a b", "é", "a\n", "a:80", "%2e", "x" * 300, 5]
)
def test_what_a_customer_typed_leads_to_no_other_host(value: Any) -> None:
    """
    A value that is more than a name is refused, and not shown.
    """
    with pytest.raises(ConfigurationError, match="The shop of this connection cannot stand in the token_url") as caught:
        filled("shopify", SHOP_URL, {"shop": value})

    assert "evil" not in str(caught.value)


@given(st.text() | st.from_regex(r"[A-Za-z0-9.-]{1,30}", fullmatch=True))
def test_whatever_is_filled_in_the_host_stays_below_the_provider(value: str) -> None:
    """
    Every URL that comes out is the provider's.
    """
    try:
        url = filled("shopify", SHOP_URL, {"shop": value})
    except ConfigurationError:
        return

    parts = urlsplit(url)
    assert parts.hostname == f"{value}.myshopify.com".lower()
    assert ("https", "/admin/oauth/access_token", None, "") == (parts.scheme, parts.path, parts.port, parts.query)


def test_a_value_that_is_missing_is_named_with_where_it_belongs() -> None:
    """
    The message shows how it is given.
    """
    with pytest.raises(ConfigurationError, match=r"register_connection\(\.\.\., url_parameters=\{'shop': '…'\}\)"):
        filled("shopify", SHOP_URL, {})


@pytest.mark.parametrize(
    ("failure", "is_held_back"),
    [
        (errors.CircuitOpenError("open"), True),
        (errors.LimitReachedError("our own limit"), True),
        (errors.RateLimitError("paused"), True),
        (errors.RateLimitError("429", status_code=429), False),
        (errors.ApiError("502", status_code=502), False),
        (errors.NetworkError("no answer"), False),
    ],
)
def test_a_refresh_is_held_back_where_the_channel_was_not_asked(failure: errors.ChannelError, is_held_back: bool) -> None:
    """
    By our own breaker, limit or pause; an answer of the channel, or none, is a failure.
    """
    assert is_held_back is _is_held_back(failure)
