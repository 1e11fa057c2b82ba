"""
Logging of a worker or beat: set up when Celery asks for it, in the place of what it would do itself.

What its command line and configuration say counts as before: level, file, redirected standard output, hijacked root logger, and the signals
``after_setup_logger`` and ``after_setup_task_logger``.  Where the program has a receiver of its own for ``setup_logging``, that one is in charge.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import weakref

from functools import partial
from logging.handlers import WatchedFileHandler
from typing import Any, Final

from celery_obs.runtime.listeners import names_of_receivers
from celery_obs.settings import Settings
from celery_obs.telemetry.redaction import Redactor

from . import celery_records
from .lines import TASK, Line, LineHandler, direct, to_json
from .processors import Redaction, Timestamp, add_extras, add_trace_ids, facts_only, take_json


__all__ = ["LogSetup", "other_receivers"]


_LONGEST: Final = 16_384
"""
Characters of one text in a line.
"""

_TRACER: Final = "celery.app.trace"
_ADVICE: Final = (
    "To have our context in its lines and secrets out of them, put celery_obs.log_processors() into its structlog configuration, "
    "or celery_obs.LogFilter() on its handlers (docs/how-to/read-the-logs.md)."
)


_TOO_QUIET: Final = (
    "celery_obs: the log level is %s, so no line is written for successful tasks. "
    "Start the worker with -l INFO, or set log_levels to {'%s': 'INFO'} for these lines alone."
)


class LogSetup:
    """
    Sets up the logging of this process when Celery asks for it.

    Args:
        app: The app whose worker or beat this is; held weakly.

        settings: Ours.

    Forks: children inherit the handlers; with ``%i`` in the log file's name Celery asks again in each.
    """

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app: Any = weakref.proxy(app)
        self._settings = settings
        self._handlers: list[logging.Handler] = []
        self._others: list[str] = []
        self._is_advised = False
        self._silenced = False

    def serve(self, app: Any) -> None:
        """
        Go by the configuration of *app* from now on: a program may run workers of several apps, one after the other.
        """
        self._app = weakref.proxy(app)

    def connect(self) -> None:
        """
        Be there when Celery asks who sets up logging.
        """
        from celery.signals import setup_logging  # noqa: PLC0415 -- the room knows no Celery but here.

        # Weak, as others' are not: Celery skips its own set-up when any receiver is connected, so none may be connected for nothing.
        setup_logging.connect(self.receive, weak=False, dispatch_uid="celery_obs.logs")

    def disconnect(self) -> None:
        """
        Leave logging to others, and take away our handlers.
        """
        from celery.signals import setup_logging  # noqa: PLC0415 -- as above.

        setup_logging.disconnect(self.receive, dispatch_uid="celery_obs.logs")
        self._remove_handlers()

    def receive(self, loglevel: Any = None, logfile: Any = None, format: Any = None, colorize: Any = None, **_: object) -> None:  # noqa: A002 -- Celery's name.
        """
        Set up logging, unless the application does.
        """
        self._others = other_receivers(self.receive)
        root = logging.getLogger()
        if not self._others and not self._app.conf.worker_hijack_root_logger and root.handlers:
            self._others = ["worker_hijack_root_logger=False, and a root logger that has handlers"]
        if self._others:
            return
        self._install(root, loglevel, logfile)
        self._tell_receivers(loglevel, logfile, format, colorize)
        if self._app.conf.worker_redirect_stdouts:
            self._app.log.redirect_stdouts(self._app.conf.worker_redirect_stdouts_level)

    def tell(self, *, runs_tasks: bool) -> None:
        """
        Say who is in charge of logging, where it is not us, and that there will be few lines, where the level asks for that; once.

        Args:
            runs_tasks: Whether this is a worker, which writes a line for each attempt.
        """
        if self._others:
            if not self._is_advised:
                logging.getLogger("celery_obs").info("celery_obs: logging is set up by %s. %s", self.others, _ADVICE)
            self._is_advised = True
        elif (
            runs_tasks
            and self._handlers
            and TASK not in self._settings.log_levels
            and not logging.getLogger(TASK).isEnabledFor(logging.INFO)
        ):
            level = logging.getLevelName(logging.getLogger(TASK).getEffectiveLevel())
            # As a warning, for it is to be seen by those who start a worker without a level: Celery's own default is WARNING.
            logging.getLogger("celery_obs").warning(_TOO_QUIET, level, TASK)

    @property
    def others(self) -> str:
        """
        Those who set up logging in our place; empty where it is ours.
        """
        return ", ".join(self._others)

    def _install(self, root: logging.Logger, level: Any, logfile: Any) -> None:
        from billiard.util import get_logger as multiprocessing_logger  # noqa: PLC0415 -- as above.
        from celery.app.log import MP_LOG  # noqa: PLC0415 -- as above.

        self._remove_handlers()
        if self._app.conf.worker_hijack_root_logger:
            for name in (None, "celery", "celery.task", "celery.redirected"):
                logging.getLogger(name).handlers = []
        handler = self._handler(logfile)
        of_processes = multiprocessing_logger()
        for logger in (root, of_processes):
            logger.addHandler(handler)
        self._handlers = [handler]
        if level:
            root.setLevel(level)
            of_processes.setLevel(level if MP_LOG else logging.ERROR)
        logging.getLogger("celery.task").propagate = True
        for name, least in self._settings.log_levels.items():
            logging.getLogger(name).setLevel(least)
        self._silence_the_tracer()
        _configure_structlog()
        direct.is_ours = True

    def _silence_the_tracer(self) -> None:
        """
        Spare Celery the line about each success that `celery_records` would leave out: making one costs more than writing ours.

        Tracers look at the level when they are built.  Tasks that have no line of ours keep theirs.
        """
        tracer = logging.getLogger(_TRACER)
        has_lines_for_all = not self._settings.ignore_tasks and _TRACER not in self._settings.log_levels
        if has_lines_for_all and tracer.level == logging.NOTSET and logging.getLogger(TASK).isEnabledFor(logging.INFO):
            tracer.setLevel(logging.WARNING)
            self._silenced = True

    def _handler(self, logfile: Any) -> logging.Handler:
        stream: Any = sys.__stderr__ if logfile is None else logfile
        is_stream = stream is None or hasattr(stream, "write")
        handler: _QuietHandler = _StreamHandler(stream) if is_stream else _FileHandler(stream, encoding="utf-8")
        style = self._settings.log_format
        if style == "auto":
            style = "console" if stream is not None and hasattr(stream, "isatty") and stream.isatty() else "json"
        handler.setFormatter(_formatter(style, Redactor(self._settings.redact_keys, longest=_LONGEST)))
        direct.handler = handler if style == "json" else None
        return handler

    def _remove_handlers(self) -> None:
        from billiard.util import get_logger as multiprocessing_logger  # noqa: PLC0415 -- as above.

        for handler in self._handlers:
            for logger in (logging.getLogger(), multiprocessing_logger()):
                logger.removeHandler(handler)
            if isinstance(handler, logging.FileHandler):
                handler.close()
        self._handlers = []
        direct.handler, direct.is_ours = None, False
        if self._silenced:
            logging.getLogger(_TRACER).setLevel(logging.NOTSET)
            self._silenced = False

    @staticmethod
    def _tell_receivers(level: Any, logfile: Any, style: Any, colorize: Any) -> None:
        from celery import signals  # noqa: PLC0415 -- as above.

        arguments = {"sender": None, "loglevel": level, "logfile": logfile, "format": style, "colorize": colorize}
        signals.after_setup_logger.send(logger=logging.getLogger(), **arguments)
        signals.after_setup_task_logger.send(logger=logging.getLogger("celery.task"), **arguments)


def other_receivers(ours: object = None) -> list[str]:
    """
    Return the names of those who set up logging, besides *ours*.
    """
    from celery.signals import setup_logging  # noqa: PLC0415 -- as above.

    return names_of_receivers(setup_logging, is_ours=lambda receiver: receiver == ours)


def _configure_structlog() -> None:
    """
    Let structlog's lines go where the standard library's go, unless the program has said where they go.
    """
    import structlog  # noqa: PLC0415 -- only a worker needs it.

    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _formatter(style: str, redactor: Redactor) -> logging.Formatter:
    """
    Return what makes lines of records.

    Args:
        style: ``json`` or ``console``.

        redactor: Hides secrets.
    """
    import structlog  # noqa: PLC0415 -- only a worker needs it.

    from .observer import traceback_of  # noqa: PLC0415 -- as above.

    def traceback(exc_info: Any) -> str:
        return traceback_of(exc_info[1]) if isinstance(exc_info[1], BaseException) else ""

    render: Any = partial(_to_json, redactor)
    if style == "console":
        render = structlog.dev.ConsoleRenderer(colors=True)

    class Formatter(structlog.stdlib.ProcessorFormatter):
        """
        Makes a line of any record; of one of our own without any detour.
        """

        def format(self, record: logging.LogRecord) -> str:
            line = record.msg
            if type(line) is Line:
                return str(super().format(_of_structlog(record, line)))
            content = celery_records.of(record)
            return str(super().format(record if content is None else _harmless(record, content)))

    return Formatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, add_extras, take_json],
        processors=[
            add_trace_ids,
            structlog.processors.ExceptionRenderer(traceback),
            Timestamp(),
            Redaction(redactor),
            facts_only,
            render,
        ],
    )


def _of_structlog(record: logging.LogRecord, line: Line) -> logging.LogRecord:
    """
    Return *record* as structlog would have made it of the same facts.
    """
    return logging.makeLogRecord({**record.__dict__, "msg": dict(line), "_logger": None, "_name": record.levelname.lower()})


def _harmless(record: logging.LogRecord, content: celery_records.SafeContent) -> logging.LogRecord:
    """
    Return a copy of a record of Celery's with what may be told of it.
    """
    attributes = {**record.__dict__, **content.facts, "msg": content.event, "args": None}
    if not content.traceback:
        attributes.update(exc_info=None, exc_text=None)
    return logging.makeLogRecord(attributes)


def _to_json(redactor: Redactor, _: Any, __: str, facts: Any) -> str:
    try:
        return to_json(facts)
    except (ValueError, TypeError, RecursionError):  # A program bound a value that JSON does not have.
        return to_json(redactor.value(facts))  # type: ignore[arg-type] # a dict of a dict.


class _QuietHandler(LineHandler):
    """
    A handler whose trouble is told in one sentence: the standard library's shows what it could not write.
    """

    stream: Any
    terminator = "\n"

    def write(self, logger: str, line: str) -> None:
        """
        Write *line*, which comes from *logger*.
        """
        with self.lock or contextlib.nullcontext():
            try:
                self.prepare()
                self.stream.write(line + self.terminator)
                self.stream.flush()
            except Exception:  # noqa: BLE001 -- as logging's own handlers: the code that logs must not fail for it.
                self.handleError(logging.LogRecord(logger, 0, "", 0, "", None, None))

    def prepare(self) -> None:
        """
        Do what has to be done before a line can be written.
        """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the standard library's name.
        """
        Say that a line was lost, if there is anywhere to say it.
        """
        error = sys.exc_info()[0]
        stream = sys.__stderr__
        if logging.raiseExceptions and stream is not None:
            with contextlib.suppress(OSError, ValueError):  # Nor can this be.
                stream.write(f"celery_obs: a line of {record.name} could not be written: {error.__name__ if error else 'unknown'}\n")


class _StreamHandler(_QuietHandler, logging.StreamHandler):  # type: ignore[type-arg] # of any stream.
    pass


class _FileHandler(_QuietHandler, WatchedFileHandler):
    """
    Writes to a file, and to a new one where that was moved away; looks for that once a second.
    """

    _looked = 0.0

    def prepare(self) -> None:
        """
        Open the file, if it has to be.
        """
        now = time.monotonic()
        if self.stream is None:
            self.stream = self._open()
        elif now - self._looked >= 1.0:
            self._looked = now
            self.reopenIfNeeded()
