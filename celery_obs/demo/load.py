"""
The load generator: publishes the sample app's tasks, each at its own pace, until it is stopped.
"""

from __future__ import annotations

import time


__all__ = ["PACE", "due", "main"]


PACE = {"demo.fast": 0.1, "demo.slow": 0.8, "demo.failing": 1.0, "demo.retrying": 1.5, "demo.crashing": 4.0}
"""
Seconds between two messages of a task.
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
    from celery_obs.demo.app import app  # noqa: PLC0415 -- making an app is no business of an import.

    last: dict[str, float] = {}
    while True:
        for task in due(last, time.monotonic()):
            app.send_task(task)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
