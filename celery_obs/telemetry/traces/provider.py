"""
Who makes this process's spans: a provider that the program has, or one of ours; found out when the first span is wanted.

By then it is known what the process is: a pool process was forked, and has run what the user has for its start.
A provider that is there is used as it is, and gets no exporter of ours.  Where there is none, and the environment says where spans go,
one is made, in each process of its own; one that runs tasks also becomes the global one, so that the spans of the tasks' own code go the same way.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import sys
import threading
import uuid

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from operator import attrgetter
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from celery_obs.areas.sidecar.events import TelemetryDropped
from celery_obs.compat.opentelemetry import sampler_rules
from celery_obs.telemetry.redaction import reason
from celery_obs.throttle import ThrottleFilter

from .configuration import Plan, say
from .propagation import Incoming


if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from .pipeline import Health, Pipeline


__all__ = ["SCHEMA", "SCOPE", "LightMaker", "Maker", "SdkMaker", "Tracing"]


SCOPE: Final = "celery_obs"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.41.0"
_FAREWELL: Final = 1.0
_OTLP: Final = frozenset({"otlp", "otlp_proto_http"})
_LOADED_AT_FIRST_USE: Final = ("celery_obs.telemetry.traces.span", "netrc")


MakeAttributes: TypeAlias = Callable[[], dict[str, Any]]
"""
Makes the attributes of a span, when it is known that they are wanted.
"""


class Maker(Protocol):
    """
    Makes spans.
    """

    drops_unsampled: bool
    """
    Whether what follows an unrecorded span is not recorded either.
    """

    unrecorded: Callable[[], Span] | None
    """
    Makes what stands for a trace that begins here, where no such trace is recorded; None where some may be.
    """

    def start(
        self,
        name: str,
        kind: SpanKind,
        make_attributes: MakeAttributes,
        incoming: Incoming,
        *,
        links: Sequence[Link] = (),
        at: int | None = None,
    ) -> Span:
        """
        Begin a span.  What follows an unrecorded span may be that span itself.

        Args:
            name, kind, links: As OpenTelemetry has them.

            make_attributes: Makes the attributes, which are the span's from then on.

            incoming: What it follows.

            at: When it began, in nanoseconds since the epoch; now, if it is not said.
        """


class SdkMaker:
    """
    Spans by a provider that the program has.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self.drops_unsampled = sampler_rules(tracer).drops_unsampled
        self.unrecorded: Callable[[], Span] | None = None

    def start(
        self,
        name: str,
        kind: SpanKind,
        make_attributes: MakeAttributes,
        incoming: Incoming,
        *,
        links: Sequence[Link] = (),
        at: int | None = None,
    ) -> Span:
        """
        Begin a span of the SDK's.
        """
        if incoming.is_unsampled and self.drops_unsampled:
            return incoming.span
        return self._tracer.start_span(name, context=incoming.context, kind=kind, attributes=make_attributes(), links=links, start_time=at)


class LightMaker:
    """
    Light spans, by the sampler, the ids and the processors of a provider of ours.

    Args:
        tracer: Of the SDK's, which has these.

        redact: Takes secrets out of the texts of exceptions.
    """

    def __init__(self, tracer: Any, redact: Callable[[str], str]) -> None:
        from opentelemetry.sdk.trace import SpanLimits  # noqa: PLC0415 -- only a process that has a provider of ours needs the SDK.
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        from .span import LightSpan, Surroundings  # noqa: PLC0415

        self._span = LightSpan
        self._around = Surroundings(
            processor=tracer.span_processor,
            resource=tracer.resource,
            scope=InstrumentationScope(SCOPE, _version(), SCHEMA),
            limits=SpanLimits(),
            redact=redact,
        )
        self._should_sample = tracer.sampler.should_sample
        self._new_trace = tracer.id_generator.generate_trace_id
        self._new_span = tracer.id_generator.generate_span_id
        self._rules = sampler_rules(tracer)
        self.drops_unsampled = self._rules.drops_unsampled
        self.unrecorded: Callable[[], Span] | None = partial(_Nobody, self._new_trace, self._new_span) if self._rules.drops_roots else None

    def start(
        self,
        name: str,
        kind: SpanKind,
        make_attributes: MakeAttributes,
        incoming: Incoming,
        *,
        links: Sequence[Link] = (),
        at: int | None = None,
    ) -> Span:
        """
        Begin a light span, if it is to be recorded.
        """
        rules = self._rules
        if incoming.is_unsampled and self.drops_unsampled:
            return incoming.span
        parent: SpanContext | None = incoming.span.get_span_context()
        if parent is None or not parent.is_valid:
            if self.unrecorded is not None:
                return self.unrecorded()
            parent, trace_id = None, self._new_trace()
        else:
            trace_id = parent.trace_id
        if parent is not None and rules.records_sampled and parent.trace_flags & TraceFlags.SAMPLED:
            attributes, flags, state = make_attributes(), parent.trace_flags, parent.trace_state
        else:
            attributes = {} if rules.need_no_attributes else make_attributes()
            result = self._should_sample(incoming.context, trace_id, name, kind, attributes, links)
            if not result.decision.is_recording():
                return NonRecordingSpan(SpanContext(trace_id, self._new_span(), False, _UNSAMPLED, result.trace_state))  # noqa: FBT003 -- see below.
            flags, state = _SAMPLED if result.decision.is_sampled() else _UNSAMPLED, result.trace_state
            attributes = make_attributes() if rules.need_no_attributes else dict(result.attributes)
        made = self._span(
            self._around,
            name,
            kind,
            context=SpanContext(trace_id, self._new_span(), False, flags, state),  # noqa: FBT003 -- a positional argument there.
            parent=parent,
            attributes=attributes,
            links=links,
            start_time=time_ns() if at is None else at,
        )
        self._around.on_start(cast("Any", made), incoming.context)
        return made


_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)


class _Nobody(NonRecordingSpan):
    """
    A span that is not recorded, whose identity is made on demand.
    """

    _made: SpanContext | None = None

    def __init__(self, new_trace: Callable[[], int], new_span: Callable[[], int]) -> None:
        self._new_trace = new_trace
        self._new_span = new_span

    def get_span_context(self) -> SpanContext:
        made = self._made
        if made is None:
            made = self._made = SpanContext(self._new_trace(), self._new_span(), False, _UNSAMPLED)  # noqa: FBT003 -- see above.
        return made

    def __repr__(self) -> str:
        return f"_Nobody({self.get_span_context()!r})"


class Tracing:
    """
    The traces of one process.

    Args:
        plan: What the environment asks for.

        emit: Tells of what is dropped.

        service: What the program is called, where the environment does not say.

        redact: Takes secrets out of texts.

    Attributes:
        is_stock: Whether the program has OpenTelemetry's own instrumentation of Celery, which makes the spans of tasks and messages.

    Forks: call `after_fork` in the child.
    """

    def __init__(self, plan: Plan, emit: Callable[[object], object], *, service: str, redact: Callable[[str], str]) -> None:
        self._plan = plan
        self._emit = emit
        self._service = service
        self._redact = redact
        self._lock = threading.Lock()
        self._is_found = False
        self._maker: Maker | None = None
        self._pipelines: list[Pipeline] = []
        self._provider: TracerProvider | None = None
        self._global: TracerProvider | None = None
        self._resource: Resource | None = None
        self._health: Health | None = None
        self._is_child = False
        self.is_stock = False

    def prepare(self) -> None:
        """
        Load and make what children can share: modules, who we are, and what is known of the collector.  No socket, no thread.
        """
        if not self._plan.exporters:
            return
        from .pipeline import Health  # noqa: PLC0415 -- only a process that may have a provider of ours needs the SDK.

        self._health = Health()
        self._resource = _resource(self._service)
        known = [name for name in self._plan.exporters if _exporter_class(name) is not None]
        for name in set(self._plan.exporters) - set(known):
            say(
                f"OTEL_TRACES_EXPORTER names {name[:40]!r}. Expected otlp, console, none, or the name of an exporter that is installed; "
                "no spans go there."
            )
        self._plan = self._plan._replace(exporters=tuple(name for name in known if _is_usable(name)))

    def maker(self, *, runs_tasks: bool = False) -> Maker | None:
        """
        Return what makes this process's spans; None where there is nothing to make them with.

        Args:
            runs_tasks: Whether this is asked for an attempt: then a provider of ours becomes the global one.
        """
        if not self._is_found:
            with self._lock:
                if not self._is_found:
                    self._maker = self._find()
                    self._is_found = True
        if runs_tasks and self._global is not None:
            provider, self._global = self._global, None
            trace.set_tracer_provider(provider)
        return self._maker

    def _find(self) -> Maker | None:
        provider = trace.get_tracer_provider()
        self.is_stock = _is_instrumented()
        if isinstance(provider, NoOpTracerProvider):
            return None
        if not isinstance(provider, ProxyTracerProvider):
            self._provider = provider
            return SdkMaker(provider.get_tracer(SCOPE, _version(), schema_url=SCHEMA))
        return self._make() if self._plan.exporters else None

    def _make(self) -> Maker:
        from opentelemetry.sdk.trace import TracerProvider as Provider  # noqa: PLC0415 -- see prepare.

        from .pipeline import Pipeline  # noqa: PLC0415

        assert self._health is not None  # noqa: S101 -- made by prepare.
        assert self._resource is not None  # noqa: S101 -- as above.
        provider = Provider(resource=_of_process(self._resource), shutdown_on_exit=False)
        for name in self._plan.exporters:
            pipeline = Pipeline(_maker_of_exporters(name), batching=self._plan.batching, on_drop=self._dropped, health=self._health)
            self._pipelines.append(pipeline)
            provider.add_span_processor(pipeline)
        self._global = provider
        atexit.register(self._leave, os.getpid())
        return LightMaker(provider.get_tracer(SCOPE, _version(), SCHEMA), self._redact)

    def _dropped(self, reason: str, number: int) -> None:
        self._emit(TelemetryDropped(reason, number))

    # -- the end --------------------------------------------------------------------------------------------------------

    def flush(self, within: float, *, is_last: bool = True) -> None:
        """
        Have what is left sent, within so many seconds.
        """
        for pipeline in self._pipelines:
            pipeline.flush(within, is_last=is_last, may_skip=self._is_child)
        force = getattr(self._provider, "force_flush", None)
        if force is not None:
            # Theirs may take as long as it likes, whatever it is told: so it is not waited for.
            thread = threading.Thread(target=_quietly, args=(force, round(within * 1000)), name="celery_obs-flush", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # The interpreter is about to end; theirs has its own way of being told.
                return
            thread.join(within)

    def _leave(self, pid: int) -> None:
        if pid == os.getpid():
            self.flush(_FAREWELL)

    def after_fork(self) -> None:
        """
        Forget the parent's provider in a child: its threads and sockets are not here.
        """
        self._lock = threading.Lock()
        self._is_found = False
        self._maker = self._provider = self._global = None
        self._pipelines = []
        self._is_child = True


def _quietly(force: Callable[[int], object], milliseconds: int) -> None:
    try:
        force(milliseconds)
    except Exception as exc:  # noqa: BLE001 -- theirs.
        logging.getLogger("celery_obs").debug("celery_obs: %s while the program's own spans were flushed.", type(exc).__name__)


def _version() -> str:
    from celery_obs import __version__  # noqa: PLC0415 -- the package's face is above this room.

    return __version__


def _is_instrumented() -> bool:
    """
    Tell whether OpenTelemetry's own instrumentation of Celery is at work.
    """
    module = sys.modules.get("opentelemetry.instrumentation.celery")
    instrumentor = getattr(module, "CeleryInstrumentor", None)
    return instrumentor is not None and bool(instrumentor().is_instrumented_by_opentelemetry)


def _resource(service: str) -> Resource:
    """
    Say who we are: what the environment says, and the name of the app where it says none.
    """
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 -- see prepare.

    found = Resource.create()
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: service}))
    return found


def _of_process(resource: Resource) -> Resource:
    from opentelemetry.sdk.resources import PROCESS_PID, SERVICE_INSTANCE_ID, Resource  # noqa: PLC0415 -- see prepare.

    return resource.merge(Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4()), PROCESS_PID: os.getpid()}))


def _exporter_class(name: str) -> Callable[..., SpanExporter] | None:
    if name in _OTLP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 -- see prepare.

        # A collector that is away for a night is not a line for each batch; what is lost is in celery_obs_dropped_total all the same.
        logger = logging.getLogger(OTLPSpanExporter.__module__)
        if not any(isinstance(each, ThrottleFilter) for each in logger.filters):
            logger.addFilter(ThrottleFilter(attrgetter("levelno")))
        return OTLPSpanExporter
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        return ConsoleSpanExporter
    for entry in entry_points(group="opentelemetry_traces_exporter", name=name):
        with contextlib.suppress(Exception):  # A foreign package, which may lack something; then it is as if it were not there.
            return cast("Callable[..., SpanExporter]", entry.load())
    return None


def _is_usable(name: str) -> bool:
    """
    Make an exporter of OTLP and let it go: that loads what it needs, which takes longer than all that a short-lived pool process does with it.
    Loaded later, in the thread that sends, a child that is forked meanwhile would have half of a module for good.

    It opens no socket.  Those of others may, and a gRPC channel would not survive the fork.
    """
    if name not in _OTLP:
        return True
    try:
        _maker_of_exporters(name)(None).shutdown()
        for module in _LOADED_AT_FIRST_USE:
            importlib.import_module(module)
    except Exception as exc:  # noqa: BLE001 -- what it makes of the environment is its own; the program goes on without spans.
        say(
            f"The OTLP exporter cannot be made, so there are no traces: {type(exc).__name__}: {reason(exc)}. Check the OTEL_EXPORTER_OTLP_… variables."
        )
        return False
    return True


def _maker_of_exporters(name: str) -> Callable[[float | None], SpanExporter]:
    found = _exporter_class(name)

    def make(timeout: float | None) -> SpanExporter:
        if found is None:
            raise LookupError(name)
        return found() if timeout is None or name not in _OTLP else found(timeout=timeout)

    return make
