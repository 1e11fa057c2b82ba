"""
What the environment says of traces: the variables that every user of OpenTelemetry knows, with the meanings that they know.

Standard library only, so that a process which has nothing to trace loads nothing for it.
"""

from __future__ import annotations

import importlib.util
import logging

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit


__all__ = ["ENDPOINTS", "NEEDED", "Batching", "Plan", "plan", "say"]


_OTLP: Final = frozenset({"otlp", "otlp_proto_http"})
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_GRPC_PORT: Final = 4317
NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class Batching(NamedTuple):
    """
    How spans are gathered before they are sent.

    Attributes:
        queue: Spans that wait at most; what comes on top is dropped, and counted.

        batch: Spans that are sent at once.

        delay: Seconds that the first span of a batch waits for others.
    """

    queue: int = 2048
    batch: int = 512
    delay: float = 1.0


class Plan(NamedTuple):
    """
    What is to be done.

    Attributes:
        exporters: Names of exporters, as ``OTEL_TRACES_EXPORTER`` has them; none where only a provider of the user's can be used.

        batching: For these.

        advice: What the person who starts the program should know, each a paragraph.
    """

    exporters: tuple[str, ...]
    batching: Batching
    advice: tuple[str, ...]


def plan(environ: Mapping[str, str]) -> Plan | None:
    """
    Work out what is to be done; None where there is nothing to trace with.
    """
    if _text(environ, "OTEL_SDK_DISABLED").lower() == "true":
        return None
    named = _text(environ, "OTEL_TRACES_EXPORTER")
    exporters = tuple(dict.fromkeys(word.strip() for word in named.split(",") if word.strip()))
    if "none" in exporters:
        exporters = ()
    elif not exporters and _first(environ, ENDPOINTS)[1]:
        exporters = ("otlp",)
    if not exporters:
        # The application's own provider may be made later than now, in the processes of the pool.
        return None if _lacking(()) else Plan((), Batching(), ())
    lacking = _lacking(exporters)
    if lacking:
        variable = "OTEL_TRACES_EXPORTER" if named else _first(environ, ENDPOINTS)[0]
        say(
            f"{variable} asks for traces, and the package {lacking} is not installed, so none are made. "
            "Install the extra for tracing: pip install 'celery_obs[tracing]'."
        )
        return None
    return Plan(exporters, _batching(environ), tuple(_advice(environ, exporters)))


def say(message: str) -> None:
    """
    Tell the person who runs the program.
    """
    logging.getLogger("celery_obs").warning("celery_obs: %s", message)


def _text(environ: Mapping[str, str], variable: str) -> str:
    return environ.get(variable, "").strip()


def _first(environ: Mapping[str, str], variables: tuple[str, ...]) -> tuple[str, str]:
    return next(((variable, found) for variable in variables if (found := _text(environ, variable))), ("", ""))


def _lacking(exporters: tuple[str, ...]) -> str:
    needed = NEEDED if _OTLP & set(exporters) else NEEDED[:1]
    for module in needed:
        try:
            found = importlib.util.find_spec(module)
        except ImportError:  # One of the packages that it lies in is missing.
            found = None
        if found is None:
            return "opentelemetry-sdk" if module == NEEDED[0] else "opentelemetry-exporter-otlp-proto-http"
    return ""


def _advice(environ: Mapping[str, str], exporters: tuple[str, ...]) -> list[str]:
    variable, protocol = _first(environ, _PROTOCOLS)
    if not _OTLP & set(exporters) or protocol in {"", "http/protobuf"}:
        return []
    where, endpoint = _first(environ, ENDPOINTS)
    message = (
        f"{variable} is {protocol[:40]!r}. Expected http/protobuf, which is what celery_obs sends with: "
        "a gRPC channel does not survive the forks of a pool. "
    )
    if _port(endpoint) == _GRPC_PORT:
        message += f"{where} names port {_GRPC_PORT}, where collectors speak gRPC; let it name the port for HTTP, as a rule 4318."
    else:
        message += "Let the endpoint be one for HTTP, as a rule port 4318, and set the variable to http/protobuf or not at all."
    return [message]


def _port(endpoint: str) -> int | None:
    try:
        return urlsplit(endpoint).port
    except ValueError:
        return None


def _batching(environ: Mapping[str, str]) -> Batching:
    usual = Batching()
    queue = _number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", usual.queue)
    batch = _number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", usual.batch)
    delay = _number(environ, "OTEL_BSP_SCHEDULE_DELAY", round(usual.delay * 1000))
    return Batching(queue, min(batch, queue), delay / 1000)


def _number(environ: Mapping[str, str], variable: str, usual: int) -> int:
    given = _text(environ, variable)
    if not given:
        return usual
    if given.isascii() and given.isdigit() and 0 < int(given[:9]) == int(given[:20]):
        return int(given)
    say(f"{variable} is {given[:40]!r}. Expected a whole number above 0; {usual} is used instead.")
    return usual
