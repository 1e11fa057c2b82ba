"""
The sample app's clients of the fake channels: calendars, with breaker, limiter and token seen to.
"""

from __future__ import annotations

import functools

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

import httpx

import celery_obs

from celery_obs.areas.channels.api_calls.api import HttpxTransport, api_call
from celery_obs.areas.channels.errors import AuthError

from .accounts import Account, account_of, provider_url
from .provider.inventory import availability, days_between


__all__ = ["SOURCE", "Calendars", "read_calendar", "truth", "write_calendar"]


_TEMPLATE: Final = "/listings/{id}/calendar"
_TIMEOUT: Final = 3.0
_PATIENCE: Final = 1.5
"""
Seconds that a call stands in line for the limiter.
"""


def truth(account: Account, start: date, end: date) -> dict[date, int]:
    """
    Return what we hold for available, from *start* up to and without *end*.
    """
    return {day: availability(account.listing, day) for day in days_between(start, end - timedelta(days=1))}


def read_calendar(account: Account, start: date, end: date) -> dict[date, int]:
    """
    Ask the channel what it holds for available, over a client that sees to it that breaker and limiter are asked.

    Raises:
        ChannelError: when it fails.
    """
    extensions = {"celery_obs": {"endpoint": _TEMPLATE, "connection_id": account.connection_id}}
    answer = _hooked(account.channel).get(_url(account), params=_window(start, end), headers=_bearer(account), extensions=extensions)
    answer.raise_for_status()
    return {date.fromisoformat(each["date"]): each["available"] for each in answer.json()["days"]}


def write_calendar(account: Account, days: dict[date, int]) -> int:
    """
    Tell the channel what is available, call by call as one does it without a hook; return on how many days that changed something.

    Raises:
        ChannelError: when it fails.
    """
    written = [{"date": day.isoformat(), "available": rooms} for day, rooms in days.items()]
    with api_call(account.channel, _TEMPLATE, "PUT", connection_id=account.connection_id, wait=_PATIENCE) as call:
        answer = _plain().put(_url(account), json={"days": written}, headers=_bearer(account))
        call.response(answer.status_code, headers=answer.headers)
        call.raise_for_status()
        return int(answer.json()["changed"])


@functools.cache
def _hooked(channel: str) -> httpx.Client:
    # One a process: a client costs more to make than a call.
    return httpx.Client(transport=HttpxTransport(channel), timeout=_TIMEOUT)


@functools.cache
def _plain() -> httpx.Client:
    return httpx.Client(timeout=_TIMEOUT, trust_env=False)


def _url(account: Account) -> str:
    return f"{provider_url()}/{account.channel}/listings/{account.listing}/calendar"


def _window(start: date, end: date) -> dict[str, str]:
    return {"start": start.isoformat(), "end": (end - timedelta(days=1)).isoformat()}


def _bearer(account: Account) -> dict[str, str]:
    token = celery_obs.tokens.get(account.connection_id)
    if token is None:
        message = f"{account.connection_id} has no token: its owner has to consent first."
        raise AuthError(message, channel=account.channel)
    return {"Authorization": f"Bearer {token.access_token}"}


class Calendars:
    """
    Both sides of all calendars: the sample app's ``reconciliation_source``.
    """

    def local(self, connection_id: str, start: date, end: date) -> Iterable[tuple[date, int]]:
        """
        Go through our side.
        """
        return truth(account_of(connection_id), start, end).items()

    def remote(self, connection_id: str, start: date, end: date) -> Iterable[tuple[date, int]]:
        """
        Go through the channel's side.
        """
        return read_calendar(account_of(connection_id), start, end).items()


SOURCE: Final = Calendars()
