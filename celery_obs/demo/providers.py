"""
What ``celery-obs demo --providers`` adds: a connection at each of twelve token endpoints, which answer as their providers document.

Once a minute each customer consents anew to a token that is about to expire, so that the next scan refreshes it; and each endpoint in its turn has one
of the troubles that there are.
"""

from __future__ import annotations

import os
import time

from collections.abc import Callable
from typing import Any, Final

import celery_obs

from .admin import ask, wait_for
from .provider.zoo import SPECIES, client_of
from .story import Act


__all__ = ["ACTS", "ZOO", "channel_of", "clients", "prepare"]


ZOO: Final = "CELERY_OBS_DEMO_ZOO"
"""
The environment variable that says where the token endpoints are; absent without ``--providers``.
"""

_LIFETIME: Final = 3600.0
_LEFT: Final = 20.0
_TROUBLES: Final = ("throttled", "broken", "gibberish", "revoked")


def channel_of(provider: str) -> str:
    """
    Return the name of a provider's channel, which is not that of one of the demo's own.
    """
    return f"{provider}_api"


def clients(url: str) -> dict[str, dict[str, Any]]:
    """
    Return the clients of all channels for the setting ``oauth_clients``; *url* is where the endpoints are.
    """
    return {channel_of(provider): client_of(url, provider) for provider in SPECIES}


def prepare() -> None:
    """
    Wait for the endpoints, and make the connections known.
    """
    wait_for(os.environ[ZOO], "/admin/ledger")
    for provider in SPECIES:
        # A customer's own part of the address, such as a shop's name.
        own = {name: "acme" for name in ("shop", "tenant") if f"{{{name}}}" in SPECIES[provider].path}
        celery_obs.register_connection(f"{provider}-customer", channel_of(provider), url_parameters=own)


class _Consent:
    """
    A customer's consent of an hour ago, and the trouble that the endpoint has this time: one of four, or none.
    """

    def __init__(self, provider: str, number: int) -> None:
        self._provider = provider
        self._number = number

    def __call__(self, send: Callable[..., Any]) -> None:
        provider, account = self._provider, f"{self._provider}-customer"
        zoo = os.environ[ZOO]
        given = ask(zoo, "POST", "/admin/authorize", {"provider": provider, "account": account})
        celery_obs.tokens.store(account, celery_obs.tokens.Token(**given, expires_at=time.time() + _LEFT, lifetime=_LIFETIME))
        trouble = dict(enumerate(_TROUBLES)).get(self._number % (2 * len(_TROUBLES)))
        if trouble == "revoked":
            ask(zoo, "POST", "/admin/revoke", {"provider": provider, "account": account})
        elif trouble is not None:
            ask(zoo, "POST", "/admin/answer_next", {"provider": provider, "kind": trouble})
        self._number += 1


ACTS: Final = tuple(Act(number, _Consent(provider, number)) for number, provider in enumerate(SPECIES))
"""
A story of its own, beside the demo's.
"""
