"""
The sample app's customers: who has an account at which channel; and what the demo's processes agree on.
"""

from __future__ import annotations

import os
import time

from typing import Final, NamedTuple

from celery_obs.areas.channels.connections.metrics import ConnectionStatus


__all__ = [
    "ACCOUNTS",
    "CHANNELS",
    "HORIZON",
    "PROVIDER",
    "RECEIVER_PORT",
    "SERVED",
    "WEBHOOK_SECRET",
    "Account",
    "account_of",
    "provider_url",
]


CHANNELS: Final = ("airbnb", "booking_com", "expedia")

PROVIDER: Final = "CELERY_OBS_DEMO_PROVIDER"
"""
The environment variable that says where the fake channels are.
"""

RECEIVER_PORT: Final = "CELERY_OBS_DEMO_RECEIVER_PORT"
WEBHOOK_SECRET: Final = "CELERY_OBS_DEMO_WEBHOOK_SECRET"  # noqa: S105 -- the name of a variable.
"""
The variables that say where webhooks come in, and what they are signed with.
"""

HORIZON: Final = 60
"""
Days that are kept in sync.
"""

_DAY: Final = 24 * 3600.0


class Account(NamedTuple):
    """
    One customer's account at a channel.

    Attributes:
        connection_id: What we call it.

        channel: Where it is.

        listing: What is let there.

        status: How it is when the demo starts.

        age: Days since it was made.
    """

    connection_id: str
    channel: str
    listing: str
    status: ConnectionStatus = "active"
    age: float = 30.0

    @property
    def created_at(self) -> float:
        """
        When it was made, in seconds since the epoch.
        """
        return time.time() - self.age * _DAY


ACCOUNTS: Final = (
    *(
        Account(f"{channel}-{number}", channel, f"{channel}-listing-{number}", age=30.0 * number)
        for channel in CHANNELS
        for number in (1, 2, 3)
    ),
    Account("booking_com-on-hold", "booking_com", "booking_com-listing-4", "paused"),
    Account("expedia-who-left", "expedia", "expedia-listing-4", "disconnected", age=400.0),
)

SERVED: Final = tuple(account for account in ACCOUNTS if account.status == "active")

_BY_ID: Final = {account.connection_id: account for account in ACCOUNTS}


def account_of(connection_id: str) -> Account:
    """
    Return an account by its id.
    """
    return _BY_ID[connection_id]


def provider_url() -> str:
    """
    Return where the fake channels are.
    """
    return os.environ[PROVIDER]
