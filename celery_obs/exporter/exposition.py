"""
What Prometheus reads: families of samples as text, in the format and the encoding that the scraper asked for.
"""

from __future__ import annotations

import gzip
import re

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_obs.vocabulary.spec import Metric


if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


__all__ = [
    "EMPTY",
    "OPENMETRICS_TYPE",
    "TEXT_TYPE",
    "Merged",
    "Page",
    "accepts_gzip",
    "accepts_openmetrics",
    "compress",
    "family",
    "merge",
    "render",
]


TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_END_OF_OPENMETRICS = "# EOF\n"
_OPENMETRICS_VERSIONS = frozenset({"", "0.0.1", "1.0.0"})
_META = re.compile(r"^# (?:HELP|TYPE|UNIT) (\S+).*\n?", re.MULTILINE)
_SERIES = re.compile(r'[^\s{]*(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?')
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """
    One collector's finished output, in both formats, without the end mark of OpenMetrics.
    """

    text: str
    openmetrics: str


EMPTY = Page("", "")


class Merged(NamedTuple):
    """
    Several pages as one.

    Attributes:
        body: The text of all.

        dropped: How many families or series were left out because an earlier page had them.
    """

    body: str
    dropped: int


class _Families:
    """
    As much of a registry as the exposition functions of prometheus_client use.
    """

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Family]:
        return iter(self._families)


def family(metric: Metric, samples: Iterable[tuple[Sequence[str], float]]) -> Family:
    """
    Give a counter or a gauge of the vocabulary its samples, each with the values of the metric's labels in their order.
    """
    if metric.kind == "histogram":
        message = f"{metric.name} is a histogram; this function makes counters and gauges."
        raise ValueError(message)
    # Loaded here, for `celery-obs doctor` reads metric files where the extra exporter is not installed.
    from prometheus_client.core import Metric as Family

    made = Family(metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name, metric.help, metric.kind)
    for values, value in samples:
        made.add_sample(metric.name, dict(zip(metric.labels, values, strict=True)), value)
    return made


def render(families: Iterable[Family]) -> Page:
    """
    Write *families* in both formats; one without samples is left out.
    """
    from prometheus_client.exposition import generate_latest as as_text
    from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics

    registry = _Families(family for family in families if family.samples)
    return Page(
        text=as_text(registry).decode(),
        openmetrics=as_openmetrics(registry).decode().removesuffix(_END_OF_OPENMETRICS),
    )


def merge(bodies: Iterable[str]) -> Merged:
    """
    Put the texts of several collectors behind one another, each family once.

    Families of the same name and type from two collectors become one; of a series that both have, the earlier collector's stays.
    A family that comes with another type is left out.
    """
    bodies = list(bodies)
    types: dict[str, str] = {}
    clashing: set[str] = set()
    for body in bodies:
        for name, kind in _TYPE.findall(body):
            if name in types:
                clashing.add(name)
            types.setdefault(name, kind)
    if not clashing:
        return Merged("".join(bodies), 0)
    return _merge_families(bodies, types, clashing)


def _merge_families(bodies: Iterable[str], types: Mapping[str, str], clashing: set[str]) -> Merged:
    parts: list[str] = []
    shared: dict[str, dict[str, str]] = {}
    heads: dict[str, str] = {}
    dropped = 0
    for body in bodies:
        for name, block in _blocks(body):
            if name not in clashing:
                parts.append(block)
                continue
            head, samples = _split(block)
            kind = _TYPE.search(head)
            if kind is not None and kind.group(2) != types[name]:
                dropped += 1
                continue
            heads.setdefault(name, head)
            known = shared.setdefault(name, {})
            for series, line in samples:
                if series in known:
                    dropped += 1
                else:
                    known[series] = line
    for name, lines in shared.items():
        parts.append(heads[name] + "".join(lines.values()))
    return Merged("".join(parts), dropped)


def _blocks(body: str) -> Iterator[tuple[str, str]]:
    """
    Cut *body* into families: the lines from a family's first ``#`` line to the next family's.
    """
    start, current = 0, ""
    for match in _META.finditer(body):
        if match.group(1) != current:
            if current:
                yield current, body[start : match.start()]
            start, current = match.start(), match.group(1)
    if current:
        yield current, body[start:]


def _split(block: str) -> tuple[str, list[tuple[str, str]]]:
    """
    Tell a family's head from its samples, each with the series it belongs to: its name and labels.
    """
    head, samples = "", []
    for line in block.splitlines(keepends=True):
        if line.startswith("#"):
            head += line
        else:
            series = _SERIES.match(line)
            samples.append((series.group() if series else line, line))
    return head, samples


def accepts_openmetrics(accept: str) -> bool:
    """
    Tell whether a scraper with this ``Accept`` header wants OpenMetrics rather than the text format.
    """
    openmetrics = text = 0.0
    for kind, options in _ranges(accept):
        weight = _weight(options)
        if kind == "application/openmetrics-text" and options.get("version", "") in _OPENMETRICS_VERSIONS:
            openmetrics = max(openmetrics, weight)
        elif kind in {"text/plain", "text/*", "*/*"}:
            text = max(text, weight)
    return openmetrics > 0 and openmetrics >= text


def accepts_gzip(accept_encoding: str) -> bool:
    """
    Tell whether a scraper with this ``Accept-Encoding`` header takes gzip.
    """
    weights = {kind: _weight(options) for kind, options in _ranges(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def compress(body: bytes) -> bytes:
    """
    Compress at level 1: ten times faster than the default, and a few per cent larger.
    """
    return gzip.compress(body, compresslevel=1, mtime=0)


def _ranges(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    for part in header.split(","):
        kind, *options = part.split(";")
        pairs = (option.partition("=") for option in options)
        yield kind.strip().lower(), {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}


def _weight(options: Mapping[str, str]) -> float:
    try:
        weight = float(options.get("q", "1"))
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
