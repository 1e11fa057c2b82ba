"""
The series and labels that a piece of PromQL asks for: as much of its grammar as it takes to find them, without a parser.

Prometheus answers a misspelt name with nothing, and it goes unnoticed until the night on which an alert should have fired.
"""

from __future__ import annotations

import itertools
import re

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from celery_obs.vocabulary.spec import Metric

from .rules import RecordingRule
from .yaml_reader import did_you_mean


__all__ = ["Known", "Selected", "known_series", "selected", "unknown"]


Known: TypeAlias = Mapping[str, frozenset[str]]
"""
The names that may be asked for, each with its labels.
"""


class Selected(NamedTuple):
    """
    What one selector asks for.
    """

    name: str
    labels: tuple[str, ...]


_TOKEN: Final = re.compile(
    r"""
      (?P<text>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | `[^`]*`)
    | (?P<comment>\#[^\n]*)
    | (?P<range>\[[^\]]*\])
    | (?P<number>\$?[0-9][A-Za-z0-9_.]* | \$\{?[A-Za-z_:]+\}?)
    | (?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<sign>[^\s])
    """,
    re.VERBOSE,
)
_LISTS: Final = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan", "start", "end"})
_TARGET: Final = frozenset({"job", "instance"})


def known_series(metrics: Iterable[Metric], records: Iterable[RecordingRule]) -> Known:
    """
    Return what may be asked for: *metrics* and what is recorded.
    """
    known: dict[str, frozenset[str]] = {}
    for metric in metrics:
        labels = frozenset(metric.labels) | _TARGET
        if metric.kind == "histogram":
            known.update({f"{metric.name}_{suffix}": labels for suffix in ("count", "sum")})
            known[f"{metric.name}_bucket"] = labels | {"le"}
        else:
            known[metric.name] = labels
    for record in records:
        known[record.name] = known.get(record.name, _TARGET) | set(record.by) | record.labels.keys()
    return known


def unknown(query: str, known: Known) -> Iterator[str]:
    """
    Tell which metrics and labels *query* asks for that do not exist.
    """
    for name, labels in selected(query):
        if name not in known:
            yield f"asks for {name}, which is neither in the catalogue nor recorded.{did_you_mean(name, known)}"
            continue
        for label in labels:
            if label not in known[name]:
                has = ", ".join(sorted(known[name] - _TARGET)) or "none"
                yield f"asks for the label {label} of {name}, which it does not have. It has {has}.{did_you_mean(label, known[name])}"


def selected(query: str) -> Iterator[Selected]:
    """
    Go through the selectors of *query*, from left to right.
    """
    tokens = [(str(match.lastgroup), match[0]) for match in _TOKEN.finditer(query) if match.lastgroup not in {"comment", "range"}]
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "word" or text.lower() in _WORDS:
            continue
        if text.lower() in _LISTS:
            at = _after(tokens, at, ")") if following == "(" else at
        elif following == "{":
            end = _after(tokens, at, "}")
            yield Selected(text, tuple(_labels(tokens[at:end])))
            at = end
        elif following != "(" and following.lower() not in {"by", "without"}:
            yield Selected(text, ())


def _after(tokens: list[tuple[str, str]], at: int, end: str) -> int:
    while at < len(tokens) and tokens[at][1] != end:
        at += 1
    return at + 1


def _labels(tokens: list[tuple[str, str]]) -> Iterator[str]:
    for (kind, text), (_, following) in itertools.pairwise(tokens):
        if kind == "word" and following in {"=", "!"}:
            yield text
