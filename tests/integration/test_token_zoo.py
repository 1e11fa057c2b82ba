"""
Twelve providers, each with its documented answers, asked over real HTTP by the real refresh: what is stored, what the connection is, who is asked again.

The provider's own ledger is the judge.
"""

from __future__ import annotations

import time

from collections.abc import Iterator

import pytest

from celery_obs.areas.channels import errors
from celery_obs.areas.channels.connections.state import Connection
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.api import Token
from celery_obs.areas.channels.tokens.providers import PROVIDERS
from celery_obs.demo.provider.zoo import SPECIES, Zoo
from celery_obs.exceptions import CeleryObsError
from tests.servers import RedisServer
from tests.tokens import Rig, rig_of, secrets_in, texts_of


pytestmark = pytest.mark.integration

ONE, OTHER = "conn-1", "conn-2"
LIFETIMES = {
    "airbnb": 86_400,
    "booking": 3600,
    "fitbit": 28_800,
    "github": 28_800,
    "google": 3599,
    "hubspot": 1800,
    "microsoft": 3599,
    "quickbooks": 3600,
    "shopify": 3600,
    "slack": 43_200,
    "strava": 21_600,
    "withings": 10_800,
}
WITH_GRANTS = sorted(SPECIES.keys() - {"booking"})
"""
Booking.com's tokens are the client's own: there is no grant that could end.
"""


@pytest.fixture
def rig(redis_server: RedisServer, zoo: Zoo) -> Iterator[Rig]:
    """
    An engine that knows all twelve by their names.
    """
    with rig_of(redis_server.url, oauth_clients={name: zoo.client(name) for name in SPECIES}) as rig:
        rig.redis.flushall()
        yield rig


def consent(rig: Rig, zoo: Zoo, provider: str, connection_id: str = ONE) -> Token:
    """
    Have a customer authorise, and store what came of it.
    """
    given = zoo.authorize(provider, connection_id)
    rig.facts.register([Connection(connection_id, provider, url_parameters={"shop": "acme", "tenant": "contoso.example"})])
    token = Token(access_token=given.access_token, refresh_token=given.refresh_token)
    tokens.store(connection_id, token)
    return token


def stored(connection_id: str = ONE) -> Token:
    found = tokens.get(connection_id)
    assert found is not None
    return found


def refusal(connection_id: str = ONE) -> errors.ChannelError:
    with pytest.raises(CeleryObsError) as caught:
        tokens.refresh(connection_id, force=True)
    assert isinstance(caught.value, errors.ChannelError)
    assert [] == secrets_in(texts_of(caught.value), "rt-", "at-", "zoo-secret")
    return caught.value


def status(rig: Rig, connection_id: str = ONE) -> str:
    return rig.facts.connections()[connection_id].status


def test_there_is_one_of_each() -> None:
    """
    What is known of providers and who plays them go together, and each names where it is written.
    """
    assert PROVIDERS.keys() - {"none"} == SPECIES.keys() == LIFETIMES.keys()
    assert all(each.documents for each in PROVIDERS.values())


@pytest.mark.parametrize("provider", sorted(SPECIES))
def test_a_good_answer_is_stored_with_its_lifetime(rig: Rig, zoo: Zoo, provider: str) -> None:
    """
    The request is as the provider documents it, and the token in the answer is found, wherever it lies.
    """
    before = consent(rig, zoo, provider)

    outcome = tokens.refresh(ONE, force=True)

    token = stored()
    assert ["good"] == zoo.asked(provider)
    assert "refreshed" == outcome.status
    assert before.access_token != token.access_token
    assert token.access_token.startswith(f"at-{provider}-")
    assert LIFETIMES[provider] == pytest.approx(outcome.lifetime, abs=2)
    assert time.time() + LIFETIMES[provider] == pytest.approx(token.expires_at, abs=10)
    assert zoo.accepts(provider, token.refresh_token) == (provider in WITH_GRANTS)


@pytest.mark.parametrize("provider", sorted(SPECIES))
def test_the_next_refresh_uses_what_the_last_one_brought(rig: Rig, zoo: Zoo, provider: str) -> None:
    """
    Rotated or not: no refresh token is used that was traded before.
    """
    consent(rig, zoo, provider)

    for _ in range(3):
        tokens.refresh(ONE, force=True)

    assert ["good"] * 3 == zoo.asked(provider)
    assert [] == [entry for entry in zoo.ledger if entry.reused]


@pytest.mark.parametrize("provider", WITH_GRANTS)
def test_a_grant_that_is_over_puts_the_connection_into_error(rig: Rig, zoo: Zoo, provider: str) -> None:
    """
    In whatever words: the customer has to authorise again, and the channel is not asked again before that.
    """
    consent(rig, zoo, provider)
    zoo.revoke(provider, ONE)

    error = refusal()

    assert isinstance(error, tokens.TokenRefusedError)
    assert ("error", ["dead"]) == (status(rig), zoo.asked(provider))
    assert [("refused", "TokenRefusedError")] == [(event.status, event.error) for event in rig.refreshes]
    consent(rig, zoo, provider)
    assert ("active", "refreshed") == (status(rig), tokens.refresh(ONE, force=True).status)


@pytest.mark.parametrize("provider", sorted(SPECIES))
def test_too_many_requests_keep_all_connections_from_asking(rig: Rig, zoo: Zoo, provider: str) -> None:
    """
    One is told, and the others of the provider wait as long; their grants are well.
    """
    consent(rig, zoo, provider)
    consent(rig, zoo, provider, OTHER)
    zoo.answer_next(provider, "throttled")

    told, spared = refusal(ONE), refusal(OTHER)

    assert isinstance(told, errors.RateLimitError)
    assert isinstance(spared, errors.RateLimitError)
    assert told.retryable
    assert 5 < (spared.retry_after or 0) <= 30
    assert ["throttled"] == zoo.asked(provider)
    assert ("active", "active") == (status(rig, ONE), status(rig, OTHER))


@pytest.mark.parametrize("kind", ["broken", "timeout", "gibberish"])
@pytest.mark.parametrize("provider", sorted(SPECIES))
def test_what_passes_costs_nothing(rig: Rig, zoo: Zoo, provider: str, kind: str) -> None:
    """
    A failure of the provider's is tried again, with the same refresh token, and then it works.
    """
    consent(rig, zoo, provider)
    zoo.answer_next(provider, kind)  # type: ignore[arg-type]  # One of the literals.

    error = refusal()

    assert error.retryable
    assert (errors.ApiTimeoutError if kind == "timeout" else errors.ApiError) is type(error)
    assert "active" == status(rig)
    assert "refreshed" == tokens.refresh(ONE, force=True).status
    assert [kind, "good"] == zoo.asked(provider)


@pytest.mark.parametrize("provider", sorted(SPECIES))
def test_a_wrong_client_ends_no_grant(redis_server: RedisServer, zoo: Zoo, provider: str) -> None:
    """
    A secret that was changed is about the settings: the connection stays active, and the error says where to look.
    """
    with rig_of(redis_server.url, oauth_clients={provider: zoo.client(provider, client_secret="another")}) as rig:
        consent(rig, zoo, provider)

        error = refusal()

        assert (errors.AuthError if provider == "booking" else tokens.ClientRefusedError) is type(error)
        assert "oauth_clients" in str(error)
        assert ("active", ["wrong_client"]) == (status(rig), zoo.asked(provider))
        assert zoo.accepts(provider, stored().refresh_token)


@pytest.mark.parametrize("provider", ["airbnb", "github"])
def test_a_token_that_comes_as_a_form_is_read(rig: Rig, zoo: Zoo, provider: str) -> None:
    """
    As some send it without a request for JSON, or all the same.
    """
    consent(rig, zoo, provider)
    zoo.answer_next(provider, "form")

    tokens.refresh(ONE, force=True)

    assert zoo.accepts(provider, stored().refresh_token)
