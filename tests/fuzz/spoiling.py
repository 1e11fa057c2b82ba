"""
Ways to spoil a metrics directory: odd names, odd kinds of files, odd contents; as Hypothesis strategies that describe, and functions that do it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import struct

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from celery_obs.recorder.format import Header, folder_name
from celery_obs.recorder.layout import header_line


__all__ = ["SPOILED", "Spoiling", "spoilings"]


SPOILED: Final = "spoiled@host"
"""
The node whose files are spoiled.
"""

_FOLDER: Final = folder_name(SPOILED).encode()
_NAMES: Final = [
    b"layout",
    b"slot-0",
    b"slot-1",
    b"slot-7",
    b"slot-007",
    b"slot-99999999999999999999",
    "slot-٣".encode(),
    b"slot-\xff",
    b"slot-0.new",
    b"slot-0.bad",
    b"lock",
    b"heartbeat",
    b"heartbeat.new",
    b"about",
    b"shortage",
    b"layout.bad",
    b"\xff\xfe",
]
_AT_THE_TOP: Final = [
    b"remainder",
    b"remainder.new",
    b"remainder.lock",
    b"\xff\xfe.v1",
    b"a%41.v1",
    b".v1",
    b"other@host.v1",
    b"other@host.v2",
    b"%ED%A0%80.v1",
    b"x.v99999999999999999999",
    b"a\nb.v1",
    b"counter_1.db",
]
_SHOWN: Final = 600
_ITSELF: Final = os.O_NONBLOCK | os.O_NOFOLLOW  # What a link leads to is another's, and a FIFO is not waited for.
_NUMBERS: Final = [0, 1, -1, 2, 31, 32, 33, 511, 4096, 65535, 65536, 2**31 - 1, 2**31, 2**53, 2**60, 2**61, 2**62, 2**63 - 1, -(2**63)]
_VALUES: Final[list[Any]] = [
    None,
    True,
    -1,
    0,
    1,
    2**80,
    0.0,
    5e-324,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "a\nb",
    'a"b',
    "counter",
    "gauge",
    "histogram",
    "sum",
    [],
    {},
    ["a", "a"],
    ["le"],
    ["\ud800"],
    [1, 0.5],
    [1.0, 2.0],
]
_FAMILIES: Final = [
    "spoiled_total",
    "celery_task_started_total",
    "celery_task_runtime_seconds",
    "celery_worker_up",
    "celery_obs_metric_files",
    "celery_obs_internal_errors_total",
    "celery_task_started",
]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < _SHOWN else f"{text[:_SHOWN]}... ({len(text)})"


@dataclass(frozen=True, repr=False)
class Spoiling:
    """
    One thing that is done to a directory: what, where, and with which content.
    """

    what: str
    path: bytes
    content: Any = None

    def __repr__(self) -> str:
        """
        Show as much as a person reads.
        """
        return f"Spoiling({self.what!r}, {_shown(self.path)}, {_shown(self.content)})"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """
        Have Hypothesis show the same, and not all fields of the dataclass.
        """
        printer.text(repr(self))

    def apply(self, root: Path) -> None:
        """
        Do it; what cannot be done here, such as making a device without being root, is left out.
        """
        path = root / os.fsdecode(self.path)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            _DEEDS[self.what](path, self.content)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    """
    Put another file there.
    """
    _clear(path)
    with path.open("xb") as file:
        file.write(content)


def _overwrite(path: Path, content: list[tuple[int, int]]) -> None:
    """
    Change words of the file that is there.
    """
    with os.fdopen(os.open(path, os.O_RDWR | _ITSELF), "r+b") as file:
        for word, number in content:
            file.seek(word * 8)
            file.write(struct.pack("=q", number))


def _append(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | _ITSELF), "ab") as file:
        file.write(content)


def _truncate(path: Path, content: int) -> None:
    with os.fdopen(os.open(path, os.O_RDWR | _ITSELF), "r+b") as file:
        os.truncate(file.fileno(), content)


def _link(path: Path, content: str) -> None:
    _clear(path)
    path.symlink_to(content)


def _fifo(path: Path, _: object) -> None:
    _clear(path)
    os.mkfifo(path)


def _device(path: Path, _: object) -> None:
    _clear(path)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def _socket(path: Path, _: object) -> None:
    _clear(path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fsencode(path))


def _directory(path: Path, _: object) -> None:
    _clear(path)
    path.mkdir()


def _remove(path: Path, _: object) -> None:
    _clear(path)


def _deny(path: Path, _: object) -> None:
    if not path.is_symlink():
        path.chmod(0)


_DEEDS: Final[dict[str, Callable[[Path, Any], None]]] = {
    "write": _write,
    "overwrite": _overwrite,
    "append": _append,
    "truncate": _truncate,
    "link": _link,
    "fifo": _fifo,
    "device": _device,
    "socket": _socket,
    "directory": _directory,
    "remove": _remove,
    "deny": _deny,
}

_paths = st.one_of(
    st.sampled_from(_NAMES).map(lambda name: _FOLDER + b"/" + name),
    st.sampled_from([b"layout", b"slot-0", b"slot-1", b"lock"]).map(lambda name: _FOLDER + b"/" + name),
    st.sampled_from(_AT_THE_TOP),
    st.sampled_from([b"other@host.v1/layout", b"other@host.v1/slot-0", _FOLDER]),
    st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in {b".", b".."}),
)
_existing = st.sampled_from([b"layout", b"slot-0", b"slot-1", b"heartbeat"]).map(lambda name: _FOLDER + b"/" + name)
_links = st.sampled_from(
    ["/dev/zero", "/dev/null", "/dev/tty", "layout", "slot-0", "nowhere", ".", "../good@host.v1", "../good@host.v1/slot-0", "/etc/hostname"]
)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


@st.composite
def _family_lines(draw: st.DrawFn) -> bytes:
    """
    A family that is nearly one: some of its facts are odd.
    """
    family: dict[str, Any] = {
        "name": draw(st.sampled_from(_FAMILIES)),
        "kind": draw(st.sampled_from(["counter", "gauge", "histogram"])),
        "help": "Why?",
        "labels": ["task"],
        "buckets": [0.1, 1.0],
        "resolution": 1.0,
        "aggregate": "sum",
    }
    for fact in draw(st.lists(st.sampled_from([*family, "more"]), max_size=2, unique=True)):
        family[fact] = draw(st.sampled_from(_VALUES))
    return _json(family)


_lines = st.one_of(
    _family_lines(),
    st.builds(
        lambda number, value: _json([number, value]),
        st.sampled_from([0, 1, 2, 3, -1, 10**30, "0", None]),
        st.sampled_from([*_VALUES, "odd"]),
    ),
    st.sampled_from(
        [
            b"[" * 100_000 + b"\n",
            b'{"a":' * 100_000 + b"\n",
            b"\x00" * 100_000,
            b"[" + b"9" * 100_000 + b"]\n",
            b'[0,"' + b"x" * 3_000_000,
            b"\n" * 1000,
            b"\n",
        ]
    ),
    st.binary(max_size=40),
)
_layouts = st.builds(
    lambda head, lines: head + b"".join(lines),
    st.sampled_from(
        [header_line(77), header_line(77), b"", b"{}\n", header_line(2**70), b'{"celery_obs":1,"id":"x"}\n', b'{"celery_obs":1,"id":77']
    ),
    st.lists(_lines, max_size=6),
)
_contents = st.one_of(
    _layouts,
    st.binary(max_size=300),
    st.builds(
        lambda pending, merged, lines: _json({"celery_obs": 1, "pending": pending}) + _json(merged) + b"".join(lines),
        st.sampled_from([{}, {"7": "x.v1"}, {"x": 1}, [], {"7": "../.."}]),
        st.sampled_from([{}, {"7": 1.0}, {"x": None}, [], {"7": float("inf")}]),
        st.lists(
            st.one_of(_lines, st.sampled_from([b'[0,"odd",[1]]\n', b'[0,"odd",[1e400,1e400]]\n', b'[0,"odd",[' + b"9" * 5000 + b"]]\n"])),
            max_size=4,
        ),
    ),
    st.sampled_from(
        [b"", b"[" * 100_000, b"{}", b"null", b'{"pid": 1e999, "role": "beat"}', b'{"pid": 1, "role": "worker", "ready": true}\n']
    ),
)
_words = st.one_of(st.integers(0, Header.WORDS - 1), st.integers(0, Header.WORDS - 1), st.integers(32, 600))

spoilings = st.one_of(
    st.builds(Spoiling, st.just("write"), _paths, _contents),
    st.builds(Spoiling, st.just("append"), st.just(_FOLDER + b"/layout"), st.lists(_lines, min_size=1, max_size=4).map(b"".join)),
    st.builds(
        Spoiling,
        st.just("overwrite"),
        st.sampled_from([b"slot-0", b"slot-1"]).map(lambda name: _FOLDER + b"/" + name),
        st.lists(st.tuples(_words, st.sampled_from(_NUMBERS)), min_size=1, max_size=3),
    ),
    st.builds(Spoiling, st.just("truncate"), _existing, st.sampled_from([0, 1, 7, 8, 100, 255, 256, 257, 4096, 2**20, 2**30, 2**40])),
    st.builds(Spoiling, st.just("link"), _paths, _links),
    st.builds(Spoiling, st.sampled_from(["fifo", "device", "socket", "directory", "remove"]), _paths, st.none()),
    st.builds(Spoiling, st.just("deny"), _existing, st.none()),
)
"""
One thing that is done to a directory in which `SPOILED` is a node with two slots.
"""
