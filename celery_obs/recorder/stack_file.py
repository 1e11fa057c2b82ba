"""
The file in which a process that runs attempts writes where it is when it is asked: its name, and what the process says of itself on its first line.

It lies beside the slot's file.  Behind the first line is the last answer, which the asker removes before the next question.

Loads little, for pool processes read it.
"""

from __future__ import annotations

import contextlib
import json
import os

from pathlib import Path
from typing import Final, NamedTuple

from .opening import new_file, open_file


__all__ = ["LONGEST_HEAD", "Head", "begin_file", "catches", "read_head", "stack_name", "started_at"]


LONGEST_HEAD: Final = 1024
"""
Bytes that the first line has at most.
"""


class Head(NamedTuple):
    """
    What a process says of itself.

    Attributes:
        signal: The signal by which it is asked; 0 where it cannot be.

        process: When the process was started, as the kernel counts (`started_at`): with its id, that is what it is known by.

        threads: Whether attempts run in other threads than the main one.

        refusal: Why it cannot be asked; empty where it can.
    """

    signal: int
    process: int
    threads: bool = False
    refusal: str = ""


def stack_name(number: int) -> str:
    """
    Return the name of the file of slot *number*.
    """
    return f"stack-{number}"


def begin_file(folder: Path, number: int, head: Head) -> int:
    """
    Make the file of slot *number* with nothing but its first line; return its descriptor, which appends.

    Raises:
        OSError: if it cannot be made.
    """
    path = folder / stack_name(number)
    descriptor = new_file(path, mode=0o600)
    try:
        os.write(descriptor, json.dumps(head._asdict()).encode()[: LONGEST_HEAD - 1] + b"\n")
        appending = open_file(path, os.O_RDWR | os.O_APPEND)
    finally:
        os.close(descriptor)
    return appending


def read_head(descriptor: int) -> tuple[Head, int] | None:
    """
    Return what the first line of an open file says, and how many bytes it has; None where it is none of ours.
    """
    line, end, _ = os.pread(descriptor, LONGEST_HEAD, 0).partition(b"\n")
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(line)
        head = Head(found["signal"], found["process"], found["threads"], found["refusal"])
        if end and all(type(value) is kind for value, kind in zip(head, (int, int, bool, str), strict=True)):
            return head, len(line) + 1
    return None


def started_at(pid: int | str = "self") -> int:
    """
    Return when a process was started, in ticks since the machine was; 0 where that cannot be read, as where there is no /proc.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def catches(signal: int, pid: int | str = "self", *, or_ignores: bool = False) -> bool | None:
    """
    Tell whether a process has a handler for a signal, in Python or not; None where that cannot be read.

    Args:
        or_ignores: Whether to ignore the signal counts, too.
    """
    wanted = {b"SigCgt", b"SigIgn"} if or_ignores else {b"SigCgt"}
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
        masks = [int(value, 16) for name, _, value in (line.partition(b":") for line in lines) if name in wanted]
    except (OSError, ValueError):
        return None
    return any(mask >> (signal - 1) & 1 for mask in masks) if masks else None
