"""
The Sentry client of this process: the one that the program made, or ours; amended so that it tells what belongs to a task and keeps secrets.

It has to be there before the pool forks and before Celery builds its tracers, which sentry-sdk replaces: afterwards it would be silently deaf.
The program's own ``sentry_sdk.init`` wins, whenever it comes: its client is found and amended, its options are kept.
Loaded is sentry-sdk only where there is a DSN, or where the program has loaded it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from celery_obs.compat.celery import patch_consumer_tracer
from celery_obs.exceptions import ConfigurationError, MissingExtraError
from celery_obs.settings import Settings
from celery_obs.settings.checks import sentry_dsn
from celery_obs.telemetry.redaction import Redactor

from .deliveries import TransportWatch
from .scrub import Scrubber


__all__ = ["Report", "Sentry", "current_trace", "is_traced"]


_OLDEST: Final = (2, 59)
"""
Version of sentry-sdk from which on its threads survive a fork (its issues 6148 and 6149).
"""

_PATIENCE: Final = 1.0
"""
Seconds that sentry-sdk's own flushes may take at the end of a process.
"""

_SILENT_LOGGERS: Final = (
    # What these say of tasks is in the reports already ...
    *("celery.worker.job", "celery.app.trace", "celery.redirected", "celery.worker.request", "multiprocessing"),
    # ... and what we say of them.
    *("celery_obs", "celery_obs.*"),
    # A collector that is unwell has a counter; a report for each batch of spans that it refuses would be one for each task.
    "opentelemetry.*",
)
_CALLBACKS: Final = ("before_send", "before_send_transaction", "before_send_log")
_TRACING: Final = ("traces_sample_rate", "traces_sampler")
_SECRETS: Final = "celery_obs_secrets"

Report = dict[str, Any]
_active: Sentry | None = None
_hears_everything = False


def current_trace() -> tuple[str, str] | None:
    """
    Return the ids of OpenTelemetry's current trace and span; None outside one, and where OpenTelemetry is not loaded.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None


def is_traced(environ: Mapping[str, str]) -> bool:
    """
    Tell whether OpenTelemetry traces this process: its SDK is set up, or an endpoint is configured.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None and type(trace.get_tracer_provider()).__module__.startswith("opentelemetry.sdk"):
        return True
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporters == "none":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return bool(exporters) or any(environ.get(name, "").strip() for name in endpoints)


class Sentry:
    """
    Reports.

    Args:
        settings: For the DSN, the mode, what to leave out and what to hide.

        environ: The environment.

        dropped: Hears how many reports will not arrive, from any thread.

        failed: Hears of an error of ours.

        traced: Whether OpenTelemetry traces this process, so that Sentry must not.

    Attributes:
        describe: Adds to a report what is known of the task that it comes from.

        is_full: Whether sentry-sdk observes every task itself, as of the last call of `client`.

    Threads: safe.  Forks: call `after_fork` in the child.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str] = os.environ,
        dropped: Callable[[int], object],
        failed: Callable[[Exception], object],
        traced: bool = False,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._dropped = dropped
        self._failed = failed
        self._traced = traced
        self._gives_traces = False
        self._redactor = Redactor(settings.redact_keys)
        self._scrubber = Scrubber(self._redactor, _secrets_of(settings, environ))
        self._ignored = frozenset(settings.sentry_ignore)
        self._client: Any = None
        self._ours: Any = None
        self._kept: dict[str, Any] = {}
        self._deliveries: TransportWatch | None = None
        self._get_client: Callable[[], Any] = _none
        self.is_full = False
        self.describe: Callable[[Report, Mapping[str, Any]], object] | None = None

    # -- coming and going -------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """
        Have a client that reports: the program's, or one that we make where a DSN is known.  Tell whether there is one.

        Raises:
            ConfigurationError: if the DSN is none, or sentry-sdk is too old.

            MissingExtraError: if ``sentry_dsn`` is set and sentry-sdk is not installed.
        """
        global _active  # noqa: PLW0603 -- sentry-sdk has one client a process.
        dsn = self._dsn()
        if dsn is None and "sentry_sdk" not in sys.modules:
            return False
        if not self._is_installed():
            return False
        import sentry_sdk  # noqa: PLC0415 -- only where it is used.

        if not sentry_sdk.get_client().dsn:
            if dsn is None:
                return False
            self._init(dsn)
        _active = self
        self._get_client = sentry_sdk.get_client
        self.client()
        return True

    def _dsn(self) -> str | None:
        if self._settings.sentry_dsn is not None:
            return str.__str__(self._settings.sentry_dsn)
        given = self._environ.get("SENTRY_DSN", "").strip()
        try:
            return str.__str__(sentry_dsn(given) or "") if given else None
        except ValueError:
            message = (
                "The environment variable SENTRY_DSN is not the DSN of a project. Expected something like https://key@sentry.example.com/42: "
                "copy it from the project's settings in Sentry, or set errors to False."
            )
            raise ConfigurationError(message) from None

    def _is_installed(self) -> bool:
        try:
            import sentry_sdk  # noqa: F401, PLC0415 -- to see whether it is there.
        except ImportError:
            if self._settings.sentry_dsn is not None:
                feature = "Reporting errors (sentry_dsn)"
                raise MissingExtraError(feature, extra="sentry") from None
            logging.getLogger("celery_obs").warning(
                "SENTRY_DSN is set, and sentry-sdk is not installed: errors are not reported. Install it with: pip install 'celery_obs[sentry]'"
            )
            return False
        return True

    def _init(self, dsn: str) -> None:
        import sentry_sdk  # noqa: PLC0415 -- only where it is used.

        from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415
        from sentry_sdk.integrations.celery import CeleryIntegration  # noqa: PLC0415

        version = tuple(int(part) for part in sentry_sdk.VERSION.split(".")[:2] if part.isdigit())
        if version < _OLDEST:
            message = (
                f"sentry-sdk {sentry_sdk.VERSION} is installed, and 2.59 or newer is needed: the threads of older ones can block a pool process. "
                "Upgrade it with: pip install -U 'celery_obs[sentry]'"
            )
            raise ConfigurationError(message)
        environ = self._environ
        light = self._settings.sentry_mode == "light"
        sentry_sdk.init(
            dsn=dsn,
            environment=environ.get("SENTRY_ENVIRONMENT") or environ.get("ENVIRONMENT") or None,
            release=environ.get("SENTRY_RELEASE") or environ.get("GIT_SHA") or None,
            sample_rate=self._settings.sentry_sample_rate,
            shutdown_timeout=_PATIENCE,
            integrations=[
                AtexitIntegration(callback=_say_nothing),
                *([] if light else [CeleryIntegration(propagate_traces=not self._traced)]),
            ],
            disabled_integrations=[CeleryIntegration] if light else [],
        )
        self._ours = sentry_sdk.get_client()
        if light:
            self._ours.integrations.pop("celery", None)  # It stays where an earlier client had it, whatever is disabled.
        patch_consumer_tracer()

    def client(self) -> Any:
        """
        Return the client that reports in this process, amended; None where there is none.
        """
        client = self._get_client()
        if client is not self._client:
            self._amend(client)
        return client

    def _amend(self, client: Any) -> None:
        """
        Have *client* tell us what it is about to send and what it cannot send.
        """
        from sentry_sdk.integrations.logging import ignore_logger  # noqa: PLC0415

        self._restore()
        self._client = client
        self.is_full = client.get_integration("celery") is not None
        if not client.is_active():
            return
        for name in _SILENT_LOGGERS:
            ignore_logger(name)
        options = client.options
        self._kept = {name: options.get(name) for name in (*_CALLBACKS, "sample_rate")}
        options["before_send"] = _chained(self._kept["before_send"], self._before_send)
        for name in _CALLBACKS[1:]:
            options[name] = _chained(self._kept[name], self._before_others)
        if client is not self._ours and self._settings.sentry_sample_rate != 1.0:
            options["sample_rate"] = self._settings.sentry_sample_rate
        self._deliveries = TransportWatch(client.transport, self._dropped) if client.transport is not None else None
        _hear_everything()
        if self._traced:
            self._leave_tracing(client)

    def look_again(self) -> None:
        """
        Leave tracing to OpenTelemetry, where the program set up its SDK after we started: as its documentation has it, in the pool's processes.
        """
        if not self._traced and self._settings.traces and is_traced(self._environ):
            self._traced = True
            if self._client is not None and self._client.is_active():
                self._leave_tracing(self._client)
                import sentry_sdk  # noqa: PLC0415 -- only where it is used.

                begun = sentry_sdk.get_current_scope().transaction
                if begun is not None:  # Of the attempt that is just starting: Sentry began it before we were asked.
                    begun.sampled = False

    def _leave_tracing(self, client: Any) -> None:
        """
        Have Sentry take its trace ids from OpenTelemetry and make no traces of its own.

        Where the program's Sentry gets its spans from OpenTelemetry, there is one tracer already.
        """
        options = client.options
        if client.get_integration("otlp") is None:  # It has done that.
            with contextlib.suppress(ImportError):
                from sentry_sdk.scope import register_external_propagation_context  # noqa: PLC0415

                register_external_propagation_context(current_trace)
                self._gives_traces = True
        found = {name: options.get(name) for name in _TRACING if options.get(name) is not None}
        if not found or options.get("instrumenter") == "otel":
            return
        self._kept.update(found)
        options.update(dict.fromkeys(found))
        logging.getLogger("celery_obs").warning(
            "OpenTelemetry traces this process, so Sentry does not: %s of sentry_sdk.init is switched off here, and errors carry OpenTelemetry's trace id. "
            "Take it out of sentry_sdk.init, or set traces to False to trace with Sentry alone.",
            " and ".join(found),
        )

    def _restore(self) -> None:
        if self._client is not None and self._kept:
            self._client.options.update(self._kept)
        self._kept = {}

    def stop(self) -> None:
        """
        Leave the program's client as it was, and end ours.
        """
        global _active  # noqa: PLW0603 -- see start.
        if _active is self:
            _active = None
        self._restore()
        if self._ours is not None:
            import sentry_sdk  # noqa: PLC0415

            if sentry_sdk.get_client() is self._ours:
                sentry_sdk.get_global_scope().set_client(None)
            self._ours.close(timeout=0.0)
            self._ours = None
        self._client = None
        self._get_client = _none
        with contextlib.suppress(ImportError):
            if self._gives_traces and "sentry_sdk" in sys.modules:
                self._gives_traces = False
                from sentry_sdk.scope import remove_external_propagation_context  # noqa: PLC0415

                remove_external_propagation_context()

    def after_fork(self) -> None:
        """
        Become a child's own: what the parent has not sent yet is the parent's to send, and no thread holds the locks of its threads any more.
        """
        client = self._client
        if client is None or client.transport is None:
            return
        from sentry_sdk.transport import HttpTransport  # noqa: PLC0415

        if isinstance(client.transport, HttpTransport):
            client.transport = type(client.transport)(client.options)
            self._deliveries = TransportWatch(client.transport, self._dropped)

    def flush(self, within: float) -> None:
        """
        Send what is still to be sent within so many seconds; what is left then is counted as dropped.
        """
        client = self._client
        if client is None or self._deliveries is None:
            return
        client.flush(timeout=within)
        self._deliveries.end()

    def hurry(self, within: float) -> None:
        """
        Send what can be sent within so many seconds, in a process that may be killed right after.
        """
        if self._client is not None:
            self._client.flush(timeout=within)

    # -- what is sent -----------------------------------------------------------------------------------------------

    @property
    def has_crons(self) -> bool:
        """
        Tell whether sentry-sdk watches beat itself, because the program said so.
        """
        return bool(getattr(self._client.get_integration("celery"), "monitor_beat_tasks", False)) if self._client is not None else False

    def own_scope(self, task_id: str) -> AbstractContextManager[Any]:
        """
        Begin a scope, so that what a task tells Sentry of itself is not told of the next one; it ends when what is returned is left.

        Threads that the task starts inherit it, and with it the id.
        """
        import sentry_sdk  # noqa: PLC0415

        manager = sentry_sdk.isolation_scope()
        scope = manager.__enter__()
        scope.clear_breadcrumbs()
        scope.set_new_propagation_context()
        scope.set_tag("task_id", task_id)
        return manager

    def raised(self, error: BaseException) -> None:
        """
        Report what the body of a task raised.
        """
        import sentry_sdk  # noqa: PLC0415

        from sentry_sdk.utils import event_from_exception  # noqa: PLC0415

        client = self.client()
        event, hint = event_from_exception(
            (type(error), error, error.__traceback__),
            client_options=client.options,
            mechanism={"type": "celery", "handled": False},
        )
        sentry_sdk.capture_event(event, hint=hint)

    def report(self, event: Report) -> None:
        """
        Send *event*, with nothing of what happened in this process around it.
        """
        import sentry_sdk  # noqa: PLC0415

        self.client()
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            sentry_sdk.capture_event(event)  # type: ignore[arg-type]  # Theirs is a TypedDict of the same keys.

    def check_in(
        self,
        slug: str,
        status: Literal["in_progress", "ok", "error"],
        *,
        known_as: str | None = None,
        monitor: Mapping[str, Any] | None = None,
    ) -> str:
        """
        Tell how the monitor *slug* does; return the id to go on with.
        """
        from sentry_sdk.crons import capture_checkin  # noqa: PLC0415

        self.client()
        return str(capture_checkin(slug, known_as, status, monitor_config=dict(monitor) if monitor else None))  # type: ignore[arg-type]  # As above.

    # -- what sentry-sdk asks ---------------------------------------------------------------------------------------

    def _before_send(self, original: Callable[..., Any] | None, event: Report, hint: MutableMapping[str, Any]) -> Report | None:
        """
        Say whether and how *event* is sent.  The program is asked after us, and nothing that it adds escapes the scrubbing.
        """
        if event.get("type") == "check_in":
            return original(event, hint) if original is not None else event
        try:
            if self._is_ignored(event, hint):
                return None
            if self.describe is not None:
                self.describe(event, hint)
        except Exception as exc:  # noqa: BLE001 -- a report with less in it is better than none.
            self._failed(exc)
        learned = hint.pop(_SECRETS, frozenset())
        return self._scrubbed(original(event, hint) if original is not None else event, learned)

    def _before_others(self, original: Callable[..., Any] | None, event: Report, hint: Mapping[str, Any]) -> Report | None:
        return self._scrubbed(original(event, hint) if original is not None else event, frozenset())

    def _scrubbed(self, event: Report | None, learned: frozenset[str]) -> Report | None:
        if event is None:
            return None
        try:
            return self._scrubber.scrub(event, learned)
        except Exception as exc:  # noqa: BLE001 -- what cannot be scrubbed is not sent.
            self._failed(exc)
            self._dropped(1)
            return None

    def learn(self, event: Report, hint: MutableMapping[str, Any]) -> None:
        """
        Remember the secrets in *event*, before sentry-sdk hides where they stand.
        """
        if self._client is not None and event.get("type") is None:
            hint[_SECRETS] = self._scrubber.learned(event)

    def _is_ignored(self, event: Report, hint: Mapping[str, Any]) -> bool:
        if not self._ignored:
            return False
        info = hint.get("exc_info")
        if info is not None:
            names = {name for kind in info[0].__mro__ for name in (kind.__name__, f"{kind.__module__}.{kind.__qualname__}")}
        else:
            values = (event.get("exception") or {}).get("values") or [{}]
            names = {str(values[-1].get("type") or "")}
        return not self._ignored.isdisjoint(names)


def _chained(original: Callable[..., Any] | None, ours: Callable[..., Any]) -> Callable[[Report, Any], Report | None]:
    def ask(event: Report, hint: Any) -> Report | None:
        answer: Report | None = ours(original, event, hint)
        return answer

    return ask


def _hear_everything() -> None:
    """
    See reports as they are made, once a process: sentry-sdk has no way to take that back.
    """
    global _hears_everything  # noqa: PLW0603 -- as long as sentry-sdk lives.
    if not _hears_everything:
        from sentry_sdk.scope import add_global_event_processor  # noqa: PLC0415

        add_global_event_processor(_learn)
        _hears_everything = True


def _learn(event: Any, hint: Any) -> Any:
    if _active is not None:
        _active.learn(event, hint)
    return event


def _none() -> None:
    """
    Say that there is no client.
    """


def _say_nothing(pending: int, timeout: float) -> None:
    """
    Leave the terminal alone at the end of a process.
    """


def _secrets_of(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """
    Go through the secrets that we know without looking.
    """
    for value in (settings.sentry_dsn, environ.get("SENTRY_DSN"), *settings.token_keys, environ.get("CELERY_OBS_OPERATIONS_TOKEN")):
        if value:
            yield str.__str__(value)
    for client in (settings.oauth_clients or {}).values():
        yield str.__str__(client.client_secret)
    if settings.redis_url:
        with contextlib.suppress(ValueError):
            yield urlsplit(settings.redis_url).password or ""
    if settings.broker_redis is not None:
        yield from settings.broker_redis.secrets()
