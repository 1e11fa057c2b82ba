"""
Who may call the fake channel: accounts, their access tokens and their refresh tokens, which rotate.
"""

from __future__ import annotations

import secrets
import threading

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from celery_obs.clock import Clock, wall


__all__ = ["Accounts", "Grant", "GrantRefusedError"]


MOST_ACCOUNTS = 20_000
_ACCESS_TOKENS_KEPT = 4


class Grant(NamedTuple):
    """
    What an account is given.

    Attributes:
        access_token: Good for *expires_in* seconds.

        refresh_token: Good for one refresh.

        expires_in: Seconds.
    """

    access_token: str
    refresh_token: str
    expires_in: float


class GrantRefusedError(Exception):
    """
    A refresh token is unknown, used up or revoked: ``invalid_grant`` in OAuth2.
    """


@dataclass(slots=True)
class _Account:
    name: str
    refresh_token: str = ""
    previous: str = ""
    access: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=_ACCESS_TOKENS_KEPT))
    refreshes: int = 0


class Accounts:
    """
    The accounts of the channel.

    Args:
        lifetime: Seconds that an access token is good for.

        reuse_grace:
            Whether the last refresh token is accepted again until the new one was used, for clients that died before they had stored it.
            Without it, a refresh token works once.

        clock: Tells the time.

    Threads: safe.
    """

    def __init__(self, *, lifetime: float = 3600.0, reuse_grace: bool = False, clock: Clock = wall) -> None:
        self.lifetime = lifetime
        self._reuse_grace = reuse_grace
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._by_refresh: dict[str, _Account] = {}
        self._by_access: dict[str, tuple[_Account, float]] = {}

    def authorize(self, name: str) -> Grant:
        """
        Give *name* its first tokens, as after a customer has consented; again, it is a fresh start that ends the old tokens.

        Raises:
            GrantRefusedError: when there are too many accounts.
        """
        with self._lock:
            if name not in self._accounts and len(self._accounts) >= MOST_ACCOUNTS:
                message = f"The fake channel has room for {MOST_ACCOUNTS} accounts, and all are taken."
                raise GrantRefusedError(message)
            self._forget(name)
            account = self._accounts[name] = _Account(name)
            return self._issue(account)

    def refresh(self, refresh_token: str) -> Grant:
        """
        Trade a refresh token for a new pair.

        Raises:
            GrantRefusedError: if it is unknown, used up or revoked.
        """
        with self._lock:
            account = self._by_refresh.get(refresh_token)
            if account is None:
                message = "The refresh token is unknown, used up or revoked."
                raise GrantRefusedError(message)
            account.refreshes += 1
            if refresh_token == account.previous:
                # The newer one was never used: the process that was to store it has died.
                self._by_refresh.pop(account.refresh_token)
            else:
                self._by_refresh.pop(account.previous, None)
                account.previous = refresh_token if self._reuse_grace else ""
            if not account.previous:
                self._by_refresh.pop(refresh_token)
            return self._issue(account)

    def who(self, access_token: str) -> str | None:
        """
        Return the account whose access token this is; None when it is unknown or over.
        """
        with self._lock:
            account, until = self._by_access.get(access_token, (None, 0.0))
            return account.name if account is not None and until > self._clock() else None

    def accepts(self, refresh_token: str) -> bool:
        """
        Tell whether a refresh with *refresh_token* would work now; it is not used up by that.
        """
        with self._lock:
            return refresh_token in self._by_refresh

    def refreshes(self, name: str) -> int:
        """
        Return how often the account's token was refreshed with success.
        """
        with self._lock:
            account = self._accounts.get(name)
            return 0 if account is None else account.refreshes

    def revoke(self, name: str) -> bool:
        """
        End all tokens of an account, as its owner or the channel may do at any time; False where there is no such account.
        """
        with self._lock:
            return self._forget(name)

    def expire(self, name: str) -> None:
        """
        End an account's access tokens before their time.
        """
        with self._lock:
            account = self._accounts.get(name)
            if account is not None:
                self._end_access(account)

    def _issue(self, account: _Account) -> Grant:
        until = self._clock() + self.lifetime
        grant = Grant(f"at-{secrets.token_urlsafe(24)}", f"rt-{secrets.token_urlsafe(24)}", self.lifetime)
        if len(account.access) == _ACCESS_TOKENS_KEPT:
            self._by_access.pop(account.access[0][0])
        account.access.append((grant.access_token, until))
        account.refresh_token = grant.refresh_token
        self._by_access[grant.access_token] = (account, until)
        self._by_refresh[grant.refresh_token] = account
        return grant

    def _forget(self, name: str) -> bool:
        account = self._accounts.pop(name, None)
        if account is None:
            return False
        self._end_access(account)
        self._by_refresh.pop(account.refresh_token, None)
        self._by_refresh.pop(account.previous, None)
        return True

    def _end_access(self, account: _Account) -> None:
        for token, _ in account.access:
            self._by_access.pop(token, None)
        account.access.clear()
