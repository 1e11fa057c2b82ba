"""
The metric files, taken away: only what we wrote, and nothing that a link leads to.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from celery_obs.exceptions import LayoutError

from .format import node_name
from .metrics_dir import HISTORY
from .opening import RefusedError, open_file, open_metrics_dir
from .slots import holder_lives, slot_numbers


__all__ = ["Remains", "live_nodes", "look_for_files", "remove_files"]


_OURS: Final = re.compile(
    r"layout(\.[0-9]+\.new|\.bad)?|slot-[0-9]+(\.bad|\.new)?|attempts-[0-9]+(\.new)?|stack-[0-9]+|lock|heartbeat(\.new)?|about(\.[0-9]+)?|shortage(\.[0-9]+|\.new)?",
    re.ASCII,
)
_OF_ALL: Final = re.compile(rf"remainder(\.lock|\.new)?|{HISTORY}(\.bad)?", re.ASCII)
_OTHER_VERSION: Final = re.compile(r".+\.v[0-9]+", re.ASCII)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Remains:
    """
    What is in a metrics directory.

    Attributes:
        files: How many files of ours.

        folders: The nodes' folders, by name.

        foreign: What is none of ours, and stays.

        problem: Why nothing is touched there; empty where it may be.
    """

    files: int = 0
    folders: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class _Found:
    files: dict[str, list[str]] = field(default_factory=dict)
    of_all: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def look_for_files(path: Path) -> Remains:
    """
    Look what there is, and change nothing.
    """
    try:
        os.close(open_metrics_dir(path))
        descriptor = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return Remains()
    except RefusedError as error:
        return Remains(problem=error.problem)
    except OSError as error:
        problem = (
            "is a symbolic link"
            if path.is_symlink()
            else "is not a directory"
            if not path.is_dir()
            else f"cannot be read ({error.strerror})"
        )
        return Remains(problem=problem)
    try:
        found = _look(descriptor)
    except OSError as error:
        return Remains(problem=f"cannot be read ({error.strerror})")
    finally:
        os.close(descriptor)
    if found.foreign and not found.files and not found.of_all:
        return Remains(foreign=tuple(found.foreign), problem="is not a metrics directory: it has other entries, and no folder of a node")
    return Remains(sum(map(len, found.files.values())) + len(found.of_all), tuple(found.files), tuple(found.foreign))


def remove_files(path: Path, *, itself: bool) -> int:
    """
    Remove our files and the folders that are empty then; return how many files went.

    Args:
        path: The metrics directory; one that `look_for_files` has a problem with is left alone.

        itself: Whether the directory goes as well, if it is empty then.

    Raises:
        OSError: if something cannot be removed.
    """
    if look_for_files(path).problem or not path.exists():
        return 0
    removed = 0
    descriptor = os.open(path, _DIRECTORY)
    try:
        found = _look(descriptor)
        for name in found.of_all:
            os.unlink(name, dir_fd=descriptor)
            removed += 1
        for folder, files in found.files.items():
            inner = os.open(folder, _DIRECTORY, dir_fd=descriptor)
            try:
                for name in files:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=inner)
                        removed += 1
            finally:
                os.close(inner)
            with contextlib.suppress(OSError):  # Something of another's is in it.
                os.rmdir(folder, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    if itself:
        with contextlib.suppress(OSError):
            path.rmdir()
    return removed


def live_nodes(path: Path) -> list[str]:
    """
    Name the nodes of which a process runs.
    """
    live = []
    for folder in look_for_files(path).folders:
        with contextlib.suppress(OSError, LayoutError):
            lock = open_file(path / folder / "lock")
            try:
                if any(holder_lives(lock, number) for number in slot_numbers(path / folder)):
                    live.append(node_name(folder) or folder)
            finally:
                os.close(lock)
    return live


def _look(directory: int) -> _Found:
    found = _Found()
    for name in sorted(os.listdir(directory)):
        mode = os.lstat(name, dir_fd=directory).st_mode
        is_folder = stat.S_ISDIR(mode)
        if stat.S_ISREG(mode) and _OF_ALL.fullmatch(name):
            found.of_all.append(name)
            continue
        if not is_folder or not (node_name(name) is not None or _OTHER_VERSION.fullmatch(name)):
            found.foreign.append(name)
            continue
        inner = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            modes = {each: os.lstat(each, dir_fd=inner).st_mode for each in os.listdir(inner)}  # noqa: PTH208 -- by its descriptor, so that nothing is put in its place.
        finally:
            os.close(inner)
        ours = sorted(each for each, found_mode in modes.items() if stat.S_ISREG(found_mode) and _OURS.fullmatch(each))
        if ours or not modes:
            found.files[name] = ours
        found.foreign += sorted(f"{name}/{each}" for each in modes.keys() - set(ours))
    return found
