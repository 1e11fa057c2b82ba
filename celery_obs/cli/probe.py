"""
``celery-obs probe liveness|readiness``: does the worker, or beat, beside us live?

Reads the heartbeat files that their main processes touch; loads the standard library only, and little of that.
"""

from __future__ import annotations

import json
import os
import sys
import time

from typing import TYPE_CHECKING, NamedTuple

from celery_obs.recorder.opening import RefusedError, open_metrics_dir, read_file


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = ["USAGE", "Heartbeat", "Unreadable", "heartbeats", "run", "standby", "verdict"]


USAGE = """\
Usage: celery-obs probe liveness|readiness [OPTIONS]

  liveness:  exit 0 while every node's heartbeat file is younger than the limit, and there is one.
  readiness: the same, and every node says that it is ready.

Options:
  --max-age SECONDS   Maximum age of a heartbeat.  [env: CELERY_OBS_PROBE_MAX_AGE; default: 30]
  --metrics-dir DIR   Directory of the metric files.  [env: CELERY_OBS_METRICS_DIR; default: your user's own]
  --node NAME         Look at this node only.      [env: CELERY_OBS_PROBE_NODE; default: all of the directory]
  -h, --help          Show this message and exit.
"""
_DEFAULT_MAX_AGE = 30.0


class Heartbeat(NamedTuple):
    """
    What one node last said.

    Attributes:
        node: Its name.

        touched_at: When, in seconds since the epoch.

        ready: Whether it works.

        role: ``worker`` or ``beat``.

        pid: Its main process.

        facts: Everything else that the file says.
    """

    node: str
    touched_at: float
    ready: bool
    role: str
    pid: int
    facts: Mapping[str, object]


class Unreadable(Exception):  # noqa: N818 -- it is an answer, not a mishap.
    """
    There is no usable heartbeat; the message says why.
    """


def heartbeats(directory: str, node: str | None = None) -> list[Heartbeat]:
    """
    Read the heartbeats below *directory*, of all nodes or of *node*.

    Raises:
        Unreadable: where there is none, or one is malformed.
    """
    try:
        descriptor = open_metrics_dir(directory)
        try:
            names = sorted(os.listdir(descriptor))  # noqa: PTH208 -- pathlib costs a third of a probe's time.
        finally:
            os.close(descriptor)
    except RefusedError as error:
        raise Unreadable(f"the metrics directory {error}") from None  # noqa: EM102, TRY003 -- the words are the refusal's.
    except OSError as error:
        message = f"cannot read the metrics directory {directory} ({error.strerror}). Is CELERY_OBS_METRICS_DIR the worker's?"
        raise Unreadable(message) from error
    found = []
    for name in names:
        stem, dot, version = name.rpartition(".v")
        if not dot or not version.isdigit() or (node is not None and stem != node):
            continue
        beat = _read(stem, f"{directory}/{name}/heartbeat")
        if beat is not None:
            found.append(beat)
    if not found:
        of = f" of node {node}" if node else ""
        message = f"no heartbeat{of} in {directory}. Has the worker started, with celery_obs set up and the same metrics directory?"
        raise Unreadable(message)
    return found


def _read(node: str, path: str) -> Heartbeat | None:
    try:
        facts = json.loads(read_file(path))
        touched_at = os.lstat(path).st_mtime
        return Heartbeat(node, touched_at, facts["ready"] is True, str(facts.get("role", "worker")), int(facts["pid"]), facts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        message = f"{path} is not a readable heartbeat ({type(error).__name__}: {str(error)[:200]})."
        raise Unreadable(message) from error


def verdict(question: str, beats: Sequence[Heartbeat], *, now: float, max_age: float) -> tuple[bool, str]:
    """
    Answer *question*, ``liveness`` or ``readiness``, with yes or no and a sentence.
    """
    for beat in beats:
        age = now - beat.touched_at
        if age > max_age:
            return False, f"{beat.role} {beat.node} (pid {beat.pid}) last beat {age:.1f} s ago; the limit is {max_age:g} s."
        if question == "readiness" and not beat.ready:
            why = "it is starting" if beat.facts.get("state") == "starting" else "it has no connection to its broker yet"
            return False, f"{beat.role} {beat.node} (pid {beat.pid}) lives, but is not ready: {why}."
    oldest = max(now - beat.touched_at for beat in beats)
    word = "live" if question == "liveness" else "ready"
    standing_by = "".join(f" {beat.role} {beat.node} {standby(beat)}." for beat in beats if standby(beat))
    return True, f"{word}: {len(beats)} node(s), oldest heartbeat {max(oldest, 0.0):.1f} s ago.{standing_by}"


def standby(beat: Heartbeat) -> str:
    """
    Return what a node that stands by waits for, as the end of a sentence; empty for one that works.
    """
    if beat.facts.get("state") != "standby":
        return ""
    return f"stands by: it waits for {str(beat.facts.get('waits_for') or 'its turn')[:200]}"


def run(arguments: Sequence[str]) -> int:
    """
    Run the command and return its exit code: 0 yes, 1 no, 2 wrong usage.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0 if arguments else 2
    try:
        question, options = _parse(arguments, os.environ)
        max_age = _positive(options["max-age"])
    except ValueError as error:
        sys.stderr.write(f"Error: {error} See celery-obs probe --help.\n")
        return 2
    directory = options["metrics-dir"] or _default_directory()
    try:
        healthy, sentence = verdict(question, heartbeats(directory, options["node"] or None), now=time.time(), max_age=max_age)
    except Unreadable as problem:
        healthy, sentence = False, str(problem)
    (sys.stdout if healthy else sys.stderr).write(sentence + "\n")
    return 0 if healthy else 1


def _parse(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    options = {
        "max-age": environ.get("CELERY_OBS_PROBE_MAX_AGE") or str(_DEFAULT_MAX_AGE),
        "metrics-dir": environ.get("CELERY_OBS_METRICS_DIR", ""),
        "node": environ.get("CELERY_OBS_PROBE_NODE", ""),
    }
    questions = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            questions.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name not in options:
            message = f"unknown option --{name}. Expected --max-age, --metrics-dir or --node."
            raise ValueError(message)
        if not equals and not rest:
            message = f"--{name} needs a value."
            raise ValueError(message)
        options[name] = value if equals else rest.pop(0)
    if len(questions) != 1 or questions[0] not in {"liveness", "readiness"}:
        message = f"expected liveness or readiness, got {' '.join(questions) or 'neither'}."
        raise ValueError(message)
    return questions[0], options


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    message = f"the maximum age is {text!r}. Expected a number of seconds above 0."
    raise ValueError(message)


def _default_directory() -> str:
    # Only here, because it loads more than the rest together.
    from celery_obs.recorder.metrics_dir import default_metrics_dir  # noqa: PLC0415

    return str(default_metrics_dir(os.environ))
