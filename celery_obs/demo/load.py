"""
The load generator: publishes the sample app's tasks, each at its own pace, takes in webhooks, and tells the story, until it is stopped.
"""

from __future__ import annotations

import itertools
import os
import threading
import time

from collections.abc import Mapping
from typing import Any

from . import providers
from .accounts import CHANNELS, RECEIVER_PORT, SERVED, WEBHOOK_SECRET
from .receiver import Receiver
from .story import ACTS, LENGTH, Story, prepare


__all__ = ["PACE", "PRIORITY", "due", "main"]


PACE: Mapping[str, float] = {
    "demo.fast": 0.2,
    "demo.slow": 0.8,
    "demo.failing": 1.0,
    "demo.retrying": 1.5,
    "demo.giving_up": 6.0,
    "demo.crashing": 4.0,
    "demo.too_long": 12.0,
    "demo.rejecting": 5.0,
    "demo.ignoring": 5.0,
    "demo.deliver_alert": 0.5,
    "demo.export_availability": 0.8,
    "demo.import_reservations": 0.8,
    "demo.look_for_drift": 1.2,
    "demo.mend": 15.0,
    "demo.review": 60.0,
}
"""
Seconds between two messages of a task.
"""


PRIORITY = 3
"""
Of the daily work.  What beat publishes has none, which is the highest on Redis: token and breaker are seen to first where the machine is slow.
"""


def due(last: dict[str, float], now: float) -> list[str]:
    """
    Tell which tasks are due at *now*, and note that in *last*.
    """
    ready = [task for task, pace in PACE.items() if now - last.get(task, float("-inf")) >= pace]
    last.update(dict.fromkeys(ready, now))
    return ready


def main() -> None:
    """
    Publish until the process is ended.
    """
    from .app import app  # noqa: PLC0415 -- making an app is no business of an import.

    def send(task: str, args: tuple[Any, ...] = (), **options: Any) -> Any:
        return app.send_task(task, args=args, **{"priority": PRIORITY, **options})

    prepare()
    _receive(send)
    accounts = {task: itertools.cycle(SERVED) for task in PACE}
    stories = [Story(ACTS, length=LENGTH, began=time.monotonic())]
    if providers.ZOO in os.environ:
        providers.prepare()
        stories.append(Story(providers.ACTS, length=LENGTH, began=time.monotonic()))
    now = time.monotonic()
    # There has to be something to mend and to review first.
    last = {"demo.mend": now, "demo.review": now - PACE["demo.review"] / 2}
    while True:
        for task in due(last, time.monotonic()):
            account = next(accounts[task])
            if task in {"demo.export_availability", "demo.import_reservations"}:
                send(task, (account.channel, account.connection_id))
            else:
                send(task, (account.connection_id,) if task == "demo.look_for_drift" else ())
        for story in stories:
            for act in story.due(time.monotonic()):
                act.does(send)
        time.sleep(0.05)


def _receive(send: Any) -> None:
    first = {channel: next(account for account in SERVED if account.channel == channel) for channel in CHANNELS}

    def work(channel: str, listing: str) -> None:
        if not listing:
            message = f"The webhook of {channel} names no listing."
            raise ValueError(message)
        send("demo.import_reservations", (channel, first[channel].connection_id))

    server = Receiver(int(os.environ[RECEIVER_PORT]), secret=os.environ[WEBHOOK_SECRET], channels=frozenset(CHANNELS), work=work)
    threading.Thread(target=server.serve_forever, name="receiver", daemon=True).start()


if __name__ == "__main__":
    main()
