"""
Endpoints: route templates, and making one of a path that has ids in it, so that ten thousand listings are one label value.
"""

from __future__ import annotations

import logging
import re
import threading

from functools import lru_cache
from typing import Final

from celery_obs.vocabulary.spec import OTHER


__all__ = ["Endpoints", "template_of"]


ID: Final = "{id}"

_MOST_SEGMENTS: Final = 12
_LONGEST_PATH: Final = 2000
_LONGEST_SEGMENT: Final = 40
_LONGEST_WORD: Final = 20
_MOST_ENDPOINTS: Final = 200
_MOST_CHANNELS: Final = 200

_ORIGIN: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*")
_PLACEHOLDER: Final = re.compile(r"\{[A-Za-z_][\w.:-]{0,39}\}|<[A-Za-z_][\w.:-]{0,39}>|:[A-Za-z_]\w{0,39}", re.ASCII)
_VERSION: Final = re.compile(r"v\d{1,3}(\.\d{1,3}){0,2}(alpha|beta)?\d?", re.ASCII | re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z_$-][A-Za-z_$.~-]*\d{0,2}(\.[A-Za-z]{1,5})?", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-fA-F]{8,}", re.ASCII)


@lru_cache(maxsize=4096)
def template_of(path: str) -> str:
    """
    Make a route template of *path*: numbers, UUIDs, dates, hexadecimal and other long or quoted names become ``{id}``.

    What is a template already stays what it is.  Scheme, host, query and fragment are left out, for they may hold secrets.
    """
    path = _ORIGIN.sub("", path[:_LONGEST_PATH], count=1)
    path = re.split(r"[?#]", path, maxsplit=1)[0]
    segments = [segment for segment in path.split("/") if segment]
    shown = [_segment(segment) for segment in segments[:_MOST_SEGMENTS]]
    return "/" + "/".join(shown + (["*"] if len(segments) > _MOST_SEGMENTS else []))


def _segment(segment: str) -> str:
    if _PLACEHOLDER.fullmatch(segment) or _VERSION.fullmatch(segment) or segment == "*":
        return segment
    is_word = len(segment) <= _LONGEST_SEGMENT and _WORD.fullmatch(segment) is not None
    return segment if is_word and not _looks_random(segment) else ID


def _looks_random(word: str) -> bool:
    """
    Tell whether letters alone are rather a token than a word: hexadecimal, or long and of both cases without a separator.
    """
    if _HEX.fullmatch(word):
        return True
    long = len(word) > _LONGEST_WORD and not re.search(r"[-_.]", word)
    return long and word != word.lower() and word != word.upper()


class Endpoints:
    """
    The endpoints of each channel that this process has seen, a bounded number.

    Threads: safe.  Forks: see `after_fork`.
    """

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """
        Become usable in a child, whatever other threads of the parent were doing.
        """
        self._lock = threading.Lock()

    def label(self, channel: str, endpoint: str) -> tuple[str, bool]:
        """
        Return the label value for *endpoint*, and whether that is another than was given.
        """
        template = template_of(endpoint)
        seen = self._seen.get(channel)
        if seen is None or template not in seen:
            template = self._take(channel, template)
        folded = template != endpoint
        if folded and channel not in self._warned:
            self._tell(channel, template)
        return template, folded

    def _take(self, channel: str, template: str) -> str:
        with self._lock:
            seen = self._seen.get(channel)
            if seen is None:
                if len(self._seen) >= _MOST_CHANNELS:
                    return OTHER
                seen = self._seen[channel] = set()
            if len(seen) >= _MOST_ENDPOINTS:
                return OTHER
            seen.add(template)
        return template

    def _tell(self, channel: str, template: str) -> None:
        """
        Say once a channel that its endpoints are no templates; never what was given, which may hold anything.
        """
        with self._lock:
            if channel in self._warned or len(self._warned) >= _MOST_CHANNELS:
                return
            self._warned.add(channel)
        logging.getLogger("celery_obs").warning(
            "celery_obs: calls to %r name paths instead of route templates; they are counted as templates such as %s. "
            "Name the template where you make the call: /listings/{id}. Said once a channel.",
            channel[:100],
            template,
        )
