"""
Logs, traces and error reports of a process: which there are, and what has to be done for them when.

Logging is set up and Sentry started before the pool forks and before Celery builds its tracers; later neither would be heard of.
The observers are made when the process activates.
"""

from __future__ import annotations

import os

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celery_obs.areas.sidecar.events import TelemetryDropped
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.observers import Observer
from celery_obs.settings import Settings


if TYPE_CHECKING:
    from .errors.sentry import Sentry
    from .logs.configure import LogSetup


__all__ = ["Telemetry"]

# Everything optional is imported where it is made: only what is switched on is loaded.


class Telemetry:
    """
    What is there besides metrics.

    Args:
        hub: Hears of what had to be dropped, and of our errors.

        tags_of: Returns what can be said of a task by its name alone, such as its channel.

    Forks: made before, used on both sides.
    """

    def __init__(self, hub: Hub, *, tags_of: Callable[[str], Mapping[str, str]]) -> None:
        self._hub = hub
        self._tags_of = tags_of
        self._logging: LogSetup | None = None
        self._sentry: Sentry | None = None

    def prepare(self, app: Any, settings: Settings) -> None:
        """
        Get ready in a worker or beat: see to its logging, and report its errors.

        Raises:
            CeleryObsError: if what is switched on cannot work.
        """
        if settings.logs and self._logging is None:
            from .logs.configure import LogSetup  # noqa: PLC0415

            self._logging = LogSetup(app, settings)
            self._logging.connect()
        elif self._logging is not None:
            self._logging.serve(app)
        self._report_errors(settings)

    def tell(self, *, runs_tasks: bool) -> None:
        """
        Say in the log, now that there is one, what the person who reads it should know.

        Args:
            runs_tasks: Whether this is a worker.
        """
        if self._logging is not None:
            self._logging.tell(runs_tasks=runs_tasks)

    def others_logging(self) -> str:
        """
        Name those who set up logging in our place; empty where it is ours.
        """
        return "" if self._logging is None else self._logging.others

    def observers(self, app: Any, settings: Settings, *, reports: bool) -> list[Observer]:
        """
        Make the observers that *settings* switch on, in the order in which they hear of beginnings.

        Args:
            app: The `celery.Celery` app, for what it is called and what its messages go through.

            settings: The settings.

            reports: Whether this process reports errors: a web server that only publishes has a client of its own, or wants none.

        Raises:
            CeleryObsError: if what is switched on cannot work.
        """
        found: list[Observer] = []
        if settings.logs or settings.traces or settings.errors:
            from .correlation import CorrelationObserver  # noqa: PLC0415

            found.append(CorrelationObserver())
        if settings.traces:
            found.extend(self._traces(app, settings))
        sentry = self._report_errors(settings) if reports or self._sentry is not None else None
        if sentry is not None:
            from .errors.observer import ErrorObserver  # noqa: PLC0415

            found.append(ErrorObserver(sentry, crons=settings.sentry_crons, channel_of=lambda task: self._tags_of(task).get("channel", "")))
        if settings.logs:
            from .logs.observer import TaskLogObserver  # noqa: PLC0415
            from .logs.sync_observer import SyncLogObserver  # noqa: PLC0415
            from .redaction import Redactor  # noqa: PLC0415

            found += [TaskLogObserver(Redactor(settings.redact_keys), settings.log_sampling), SyncLogObserver()]
        return found

    def _traces(self, app: Any, settings: Settings) -> Iterable[Observer]:
        from .traces.start import trace_observer  # noqa: PLC0415

        observer = trace_observer(
            os.environ,
            self._hub.emit,
            broker_url=app.conf.broker_write_url or app.conf.broker_url,
            service=app.main or "celery",
            leave=self._hub.unsubscribe,
            keys=settings.redact_keys,
        )
        return () if observer is None else (observer,)

    def _report_errors(self, settings: Settings) -> Sentry | None:
        if not settings.errors:
            return None
        from .errors.sentry import Sentry, is_traced  # noqa: PLC0415

        sentry = self._sentry or Sentry(
            settings,
            dropped=lambda number: self._hub.emit(TelemetryDropped("errors_not_sent", number)),
            failed=lambda error: self._hub.on_error(error, component="errors"),
            traced=settings.traces and is_traced(os.environ),
        )
        self._sentry = sentry if sentry.start() else None
        return self._sentry

    def close(self) -> None:
        """
        Leave Celery's logging alone, and send no more.
        """
        if self._logging is not None:
            self._logging.disconnect()
            self._logging = None
        if self._sentry is not None:
            self._sentry.stop()
            self._sentry = None
