"""
What an answer of a token endpoint means, by what is known of its provider.
"""

from __future__ import annotations

import json

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.tokens.answers import Answer, answer_of, read
from celery_obs.areas.channels.tokens.providers import ANY_PROVIDER, PROVIDERS, Provider, provider_of


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("error", "errors", "errorType", "status", "body", "ok", "access_token", "jwt", "resource", "code", "success")
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON)), max_size=5)


def meaning(data: Any, provider: Provider, status: int = 200) -> str:
    return read(Answer(status, {}, data), provider).meaning


@given(OBJECTS, st.sampled_from([200, 201, 400, 401, 403, 404]), st.sampled_from(sorted(PROVIDERS)))
def test_any_answer_of_any_provider_means_something(data: dict[str, Any], status: int, name: str) -> None:
    """
    Whatever comes: a token is a text that is not empty and came without an error, and no word of the answer is told.
    """
    found = read(Answer(status, {}, data), PROVIDERS[name])

    known = [
        code
        for source in (PROVIDERS[name], ANY_PROVIDER)
        for kind in ("dead", "throttled", "later", "ours")
        for code in getattr(source, kind)
    ]
    assert found.code in {"", *known}
    assert (found.meaning == "token") == bool(found.token)
    if found.token:
        assert status < 400
        assert isinstance(found.token["access_token"], str)
        assert found.token["access_token"]


@given(st.binary() | OBJECTS.map(json.dumps).map(str.encode), st.text())
def test_any_body_is_an_object_or_none(body: bytes, content_type: str) -> None:
    """
    Bytes of any kind are read without a failure.
    """
    found = answer_of(body, content_type)

    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize(
    ("provider", "status", "data", "expected"),
    [
        (
            "strava",
            400,
            {"errors": [{"resource": "RefreshToken", "code": "invalid"}, {"resource": "Application", "code": "invalid"}]},
            "ours",
        ),
        ("withings", 200, {"status": 100, "body": {}, "error": "Authentication failed"}, "ours"),
        ("withings", 200, {"status": 9999, "body": {}}, "unknown"),
        ("withings", 200, {"body": {"access_token": "at"}}, "none"),
        ("slack", 200, {"ok": True, "access_token": "at", "error": "deprecated"}, "token"),
        ("slack", 200, {"access_token": "at"}, "none"),
        ("none", 200, {"error": False, "access_token": "at"}, "token"),
        ("none", 200, {"error": "", "access_token": "at"}, "token"),
        ("none", 200, {"error": "invalid_grant", "access_token": "at"}, "dead"),
        ("none", 400, {"access_token": "at"}, "none"),
        ("none", 400, {"error": "Invalid_Grant"}, "dead"),
        ("google", 400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"}, "dead"),
        ("hubspot", 400, {"status": "error", "message": "…"}, "unknown"),
    ],
)
def test_one_who_cannot_be_sure_ends_no_grant(provider: str, status: int, data: dict[str, Any], expected: str) -> None:
    """
    What may be our own mistake is taken for that.
    """
    assert expected == meaning(data, PROVIDERS[provider], status)


def test_a_provider_of_ones_own_is_a_dict_that_may_be_like_another() -> None:
    """
    Only what differs is written down.
    """
    made = provider_of({"like": "strava", "dead": ["Gone/*"], "errors": ["fault.code"], "parameters": {"v": "2"}}, channel="acme")

    assert ("acme", "client_secret_post", ("Gone/*",)) == (made.name, made.token_endpoint_auth_method, made.dead)
    assert "dead" == meaning({"fault": {"code": "gone/for good"}}, made, 400)


@pytest.mark.parametrize(
    ("channel", "token_url", "provider"),
    [
        ("fitbit", "", "fitbit"),
        ("Fitbit", "", "fitbit"),
        ("acme", "", "none"),
        ("scales", "https://wbsapi.withings.net/v2/oauth2", "withings"),
        ("shop", "https://acme.myshopify.com/admin/oauth/access_token", "shopify"),
        ("shop", "https://{shop}.MyShopify.com/admin/oauth/access_token", "shopify"),
        ("outlook", "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/oauth2/v2.0/token", "microsoft"),
        ("booking", "https://tokens.our-gateway.example/booking", "none"),
        ("fitbit", "https://api.fitbit.com.evil.test/oauth2/token", "none"),
        ("fitbit", 5, "none"),
    ],
)
def test_a_provider_is_known_by_where_its_tokens_come_from(channel: str, token_url: Any, provider: str) -> None:
    """
    Whatever the channel is called: one of the same name behind a gateway of one's own is no such provider.
    """
    assert PROVIDERS[provider] == provider_of(None, channel=channel, token_url=token_url)
    assert PROVIDERS["fitbit"] == provider_of("fitbit", channel=channel, token_url=token_url)
