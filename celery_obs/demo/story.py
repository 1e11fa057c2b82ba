"""
The demo's story: what goes wrong while one watches, and how it is mended; it begins anew each minute.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, Final, NamedTuple

import celery_obs

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.pauses.state import Pauses

from .accounts import ACCOUNTS, SERVED, Account, account_of, provider_url
from .admin import ask, wait_for


__all__ = ["ACTS", "LENGTH", "Act", "Story", "prepare"]


LENGTH: Final = 60.0
"""
Seconds until the story begins anew.
"""

_REVOKED: Final = "airbnb-3"
_BURST: Final = ("booking_com", "booking_com-2")
_PAUSE: Final = 6.0
_PILE: Final = 25
_LOW_PRIORITY: Final = 6
_SOON: Final = 3
_LATER: Final = 20
"""
Days ahead: the exports write the next week again and again, and what lies beyond drifts until it is reconciled.
"""


class Act(NamedTuple):
    """
    One thing that happens.

    Attributes:
        at: Seconds after the beginning.

        does: What; it is given what sends a task, and returns its result.
    """

    at: float
    does: Callable[[Callable[..., Any]], object]


class Story:
    """
    Goes through the acts as their time comes.

    Args:
        acts: In the order of their times.

        length: Seconds until it begins anew.

        began: When that was, on the clock that `due` is given.
    """

    def __init__(self, acts: tuple[Act, ...], *, length: float, began: float) -> None:
        self._acts = acts
        self._length = length
        self._began = began
        self._next = 0

    def due(self, now: float) -> Iterator[Act]:
        """
        Go through the acts whose time has come.
        """
        while True:
            round_, index = divmod(self._next, len(self._acts))
            if now < self._began + round_ * self._length + self._acts[index].at:
                return
            self._next += 1
            yield self._acts[index]


def prepare(*, patience: float = 20.0) -> None:
    """
    Register all accounts, and have their owners consent at the channels.
    """
    wait_for(provider_url(), "/admin/state", patience=patience)
    for account in ACCOUNTS:
        celery_obs.register_connection(account.connection_id, account.channel, status=account.status, created_at=account.created_at)
    for account in SERVED:
        _consent(account)


def _consent(account: Account) -> None:
    given = _ask("POST", "/admin/accounts", {"account": account.connection_id})
    token = celery_obs.tokens.Token(
        access_token=given["access_token"],
        refresh_token=given["refresh_token"],
        expires_at=time.time() + given["expires_in"],
        lifetime=given["expires_in"],
    )
    celery_obs.tokens.store(account.connection_id, token)


def _ask(method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    return ask(provider_url(), method, path, body)


# --- the acts ---------------------------------------------------------------------------------------------------------------------


def _fault(path: str, kind: str, **more: Any) -> Callable[..., Any]:
    def switch_on(send: Callable[..., Any]) -> None:
        _ask("POST", "/admin/faults", {"path": path, "kind": kind, **more})

    return switch_on


def _drift(connection_id: str, days: int, *, ahead: int) -> Callable[..., Any]:
    def sell(send: Callable[..., Any]) -> None:
        account, today = account_of(connection_id), date.today()  # noqa: DTZ011 -- a calendar's days have no zone.
        start = date.fromordinal(today.toordinal() + ahead)
        _ask("POST", "/admin/drift", {"channel": account.channel, "listing": account.listing, "start": start.isoformat(), "days": days})

    return sell


def _hurry(send: Callable[..., Any]) -> None:
    for _ in range(15):
        send("demo.export_availability", _BURST)


def _pile_up(send: Callable[..., Any]) -> None:
    # Of a low priority, which is a high number on Redis: the daily work goes past it.
    for _ in range(_PILE):
        send("demo.slow", priority=_LOW_PRIORITY)


def _change_mind(send: Callable[..., Any]) -> None:
    send("demo.slow", countdown=2).revoke()


def _sell_twice(send: Callable[..., Any]) -> None:
    send("demo.sell_twice", ("booking_com",))


def _pause(send: Callable[..., Any]) -> None:
    redis = engine.current().redis
    if redis is not None:
        Pauses(redis).pause("booking_com", actor="demo", reason="to show what that looks like", seconds=_PAUSE)


def _revoke(send: Callable[..., Any]) -> None:
    _ask("DELETE", f"/admin/accounts/{_REVOKED}")


def _consent_again(send: Callable[..., Any]) -> None:
    _consent(account_of(_REVOKED))
    celery_obs.set_connection_status(_REVOKED, "active")


ACTS: Final = (
    Act(1, _drift("airbnb-1", 4, ahead=_LATER)),
    Act(2, _drift("booking_com-1", 2, ahead=_SOON)),
    Act(3, _hurry),
    Act(5, _fault("/expedia/listings", "outage", seconds=8)),
    Act(7, _revoke),
    Act(8, _sell_twice),
    Act(15, _pause),
    Act(16, _fault("/airbnb/listings", "slow", value=0.6, seconds=4)),
    Act(22, _fault("/booking_com/listings", "rate_limit", value=1, times=3)),
    Act(25, _fault("/airbnb/listings", "html", times=1)),
    Act(27, _fault("/expedia/listings", "drop", times=2)),
    Act(28, _pile_up),
    Act(29, _change_mind),
    Act(30, _drift("expedia-2", 2, ahead=_LATER)),
    Act(45, _consent_again),
)
