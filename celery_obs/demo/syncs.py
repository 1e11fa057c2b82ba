"""
The sample app's syncs: what a channel manager does all day.
"""

from __future__ import annotations

import contextlib
import random

from datetime import date, timedelta
from typing import Any, Final

import httpx

from celery import Celery

import celery_obs

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.errors import ChannelError
from celery_obs.areas.channels.reconciliation.state import Pending, PendingConnection

from .accounts import HORIZON, account_of
from .channel import read_calendar, truth, write_calendar


__all__ = ["add_to"]


_EXPECTED: Final = (ChannelError, httpx.HTTPError)
_LOCAL_WINS: Final = "local_wins"
_REVIEWED: Final = "reservation_overlap"


def add_to(app: Celery) -> None:
    """
    Make the tasks of *app*.
    """
    options: dict[str, Any] = {
        "base": celery_obs.SyncTask,
        "channel_argument": "channel",
        "connection_argument": "connection_id",
        **celery_obs.retry_policy("quick"),
    }
    app.task(name="demo.export_availability", sync_type="availability_export", **options)(export_availability)
    app.task(name="demo.import_reservations", sync_type="reservation_import", direction="inbound", **options)(import_reservations)
    app.task(name="demo.look_for_drift", throws=_EXPECTED)(look_for_drift)
    app.task(name="demo.mend", throws=_EXPECTED)(mend)
    app.task(name="demo.sell_twice")(sell_twice)
    app.task(name="demo.review")(review)


def export_availability(channel: str, connection_id: str) -> celery_obs.SyncResult:
    """
    Tell the channel what is free in the next days.
    """
    account, today = account_of(connection_id), date.today()  # noqa: DTZ011 -- a calendar's days have no zone.
    days = truth(account, today + timedelta(days=1), today + timedelta(days=8))
    changed = write_calendar(account, days)
    return celery_obs.SyncResult(updated=changed, skipped=len(days) - changed)


def import_reservations(channel: str, connection_id: str) -> celery_obs.SyncResult:
    """
    Look what was booked at the channel; a few bookings cannot be read.
    """
    account, today = account_of(connection_id), date.today()  # noqa: DTZ011 -- as above.
    read_calendar(account, today, today + timedelta(days=HORIZON))
    created = random.randint(1, 4)  # noqa: S311 -- no secret hangs on it.
    failed = int(random.random() < 0.15)  # noqa: S311, PLR2004 -- as above.
    return celery_obs.SyncResult(created=created, failed=failed)


def look_for_drift(connection_id: str) -> None:
    """
    Compare one calendar now; beat's own checks come once a day.
    """
    celery_obs.reconcile(connection_id)


def mend() -> int:
    """
    Write what we hold for true to where the last check found a difference, and check again.
    """
    found = engine.current()
    if found.redis is None:
        return 0
    mended = 0
    for pending in Pending(found.redis).all().values():
        # One channel that is down does not keep the others from being mended: the next round comes soon.
        with contextlib.suppress(*_EXPECTED):
            mended += _mend(pending)
    return mended


def _mend(pending: PendingConnection) -> int:
    account, today = account_of(pending.connection_id), date.today()  # noqa: DTZ011 -- as above.
    mended = write_calendar(account, truth(account, today, today + timedelta(days=HORIZON)))
    for conflict in pending.conflicts:
        celery_obs.conflict_resolved(conflict, _LOCAL_WINS)
    celery_obs.reconcile(pending.connection_id)
    return mended


def sell_twice(channel: str) -> None:
    """
    Find a booking of a room that was sold here, too, which only a person can settle.
    """
    celery_obs.double_booking(channel)
    celery_obs.conflict_detected(_REVIEWED, channel)
    celery_obs.requires_review(_REVIEWED)


def review() -> None:
    """
    Be the person who looks at what waits for one.
    """
    celery_obs.reviewed(_REVIEWED)
    celery_obs.conflict_resolved(_REVIEWED, "manual")
