"""
``celery-obs attempts``: search the latest attempts of the workers on this host, and watch them come; ``celery-obs simulate``: what if there were more processes;
``celery-obs stack``: where is one of them.
"""

from __future__ import annotations

import json
import time

from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from celery_obs.areas.tasks.metrics import STATES
from celery_obs.cli.operate import metrics_dir_of, metrics_dir_option, say_audit, seconds_of
from celery_obs.exceptions import ConfigurationError


if TYPE_CHECKING:
    from celery_obs.areas.tasks.simulation import Run
    from celery_obs.recorder.attempt_log import Attempt, AttemptLog, Wanted


__all__ = ["COMMANDS", "attempts", "simulate", "stack"]


_MOST_DIGITS: Final = 9
_PAUSE: Final = 0.5  # Seconds between two looks of --follow.
_LATE: Final = 5.0  # Seconds for which an attempt that ended may not be in the files yet, or a thread may be between two stores.
_STATES: Final = ("running", *(state for state in STATES if state != "revoked"))  # What is revoked was never attempted.


@click.command()
@click.option("--task", metavar="PATTERN", default="", help="Tasks by name, such as 'emails.*'.")
@click.option("--queue", metavar="PATTERN", default="", help="Queues by name.")
@click.option("--node", metavar="PATTERN", default="", help="Nodes by name, such as 'celery@web-*'.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    metavar="STATE",
    help="State, such as running; may be given several times.",
)
@click.option("--failed", is_flag=True, help="Failures, timeouts, and those terminated or lost.")
@click.option("--exception", metavar="PATTERN", default="", help="Exceptions by class, such as 'Connect*'.")
@click.option("--id", "task_id", default="", metavar="ID", help="All attempts of this task, the first one first.")
@click.option("--since", callback=seconds_of, metavar="TIME", help="Ended within this time, such as 15m.")
@click.option("--slower-than", callback=seconds_of, metavar="TIME", help="Ran for longer, such as 10 or 5m.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), metavar="N", default=50, show_default=True, help="Maximum number.")
@click.option("--follow", "-f", is_flag=True, help="Go on with attempts as they end, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on each line.")
@metrics_dir_option
@click.pass_context
def attempts(
    ctx: click.Context,
    *,
    task: str,
    queue: str,
    node: str,
    states: tuple[str, ...],
    failed: bool,
    exception: str,
    task_id: str,
    since: Any,
    slower_than: Any,
    limit: int,
    follow: bool,
    as_json: bool,
    metrics_dir: str | None,
) -> None:
    """
    Search the latest attempts of the workers on this host, the newest first.

    Each pool process keeps its last ones (setting attempt_bytes).
    """
    from celery_obs.recorder.attempt_log import AttemptLog, Wanted  # noqa: PLC0415 -- help is quick.

    directory = metrics_dir_of(ctx, metrics_dir)
    wanted = Wanted(
        id=task_id,
        task=task,
        queue=queue,
        node=node,
        state=(*states, *(("failure", "timeout", "terminated", "lost") if failed else ())),
        exception=exception,
        since=0.0 if since is None else time.time() - since,
        slower_than=-1.0 if slower_than is None else slower_than,
        limit=min(limit, 1000),
    )
    log = AttemptLog(directory)
    try:
        found = list(_pages(log, wanted, limit))
        if follow:
            _follow(log, wanted, found, as_json=as_json)
            return
    except OSError as error:
        raise ConfigurationError(_unreadable(directory, error)) from None
    for attempt in reversed(found) if task_id else found:
        _print(attempt, as_json=as_json)
    if not found and not as_json:
        click.echo(_nothing(log, directory, wanted))


@click.command("simulate")
@click.option("--queue", metavar="PATTERN", required=True, help="The queue whose waits you ask about.")
@click.option("--processes", type=int, metavar="+N", default=1, show_default="+1", help="Pool processes more, or fewer such as -1.")
@click.option("--since", callback=seconds_of, default="1h", show_default=True, metavar="TIME", help="How far to look back.")
@click.option("--node", metavar="PATTERN", default="", help="Nodes by name, such as 'celery@web-*'.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@metrics_dir_option
@click.pass_context
def simulate(ctx: click.Context, *, queue: str, processes: int, since: float, node: str, as_json: bool, metrics_dir: str | None) -> None:
    """
    Simulate another number of pool processes, with the arrivals and runtimes of the last hour.

    Tells how long tasks of the queue waited, what the model makes of that, and what it makes of the other number.
    The model takes attempts first come first served; it leaves out prefetching, priorities, and tasks that slow each other down.
    """
    from celery_obs.areas.tasks import simulation  # noqa: PLC0415 -- help is quick.
    from celery_obs.recorder.attempt_log import MOST_FOUND, AttemptLog, Wanted  # noqa: PLC0415

    directory, now = metrics_dir_of(ctx, metrics_dir), time.time()
    log = AttemptLog(directory)
    ended = _STATES[1:]
    try:
        begin = max(now - since, log.complete_since(node=node))
        found = log.search(Wanted(node=node, state=ended, since=begin, until=now, limit=MOST_FOUND)).attempts
    except OSError as error:
        raise ConfigurationError(_unreadable(directory, error)) from None
    asked = {(attempt.node, attempt.process) for attempt in found if fnmatchcase(attempt.queue, queue)}
    runs = [_run(attempt, queue) for attempt in found if (attempt.node, attempt.process) in asked]
    if not runs:
        message = f"No attempt of the queue {queue} ended since {_time(begin)}. Look for it with celery-obs attempts --queue {queue}."
        raise ConfigurationError(message)
    if all(run.wait is None for run in runs if run.is_asked_about):
        message = f"Not known how long tasks of {queue} waited: what publishes them has to call celery_obs.setup, too, to note when."
        raise ConfigurationError(message)
    try:
        answer = simulation.simulate(runs, more=processes)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if as_json:
        rows = {name: getattr(answer, name)._asdict() for name in ("measured", "simulated", "changed")}
        click.echo(json.dumps({"queue": queue, "attempts": answer.attempts, "since": answer.since, "until": answer.until, **rows}))
        return
    click.echo(f"{queue}: {answer.attempts} attempts from {_time(answer.since)} to {_time(answer.until)}")
    click.echo(f"{'':<11}{'processes':>9}{'median wait':>13}{'p95':>10}{'longest':>10}{'busy':>7}")
    for name, row in (("measured", answer.measured), ("simulated", answer.simulated), ("simulated", answer.changed)):
        waits = f"{_seconds(row.median):>13}{_seconds(row.p95):>10}{_seconds(row.longest):>10}"
        click.echo(f"{name:<11}{row.processes:>9}{waits}{row.busy:>7.0%}")
    off = answer.simulated.p95 - answer.measured.p95
    if abs(off) > max(0.1, answer.measured.p95 / 4):
        click.echo(
            f"The model is {_seconds(abs(off))} {'above' if off > 0 else 'below'} what was measured (p95): prefetching, priorities or tasks that "
            "slow each other down count here. Take its last line as a direction."
        )
    if begin > now - since:
        click.echo(f"Before {_time(begin)} attempts were written over (setting attempt_bytes).")


@click.command("stack")
@click.argument("process", metavar="NODE/PROCESS")
@click.option("--all-threads", is_flag=True, help="Ask the other threads, too.")
@click.option("--reason", default="", help="Reason, for the audit log.")
@click.option("--actor", envvar="CELERY_OBS_ACTOR", help="User, for the audit log.  [default: you@this-host]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@metrics_dir_option
@click.pass_context
def stack(
    ctx: click.Context, *, process: str, all_threads: bool, reason: str, actor: str | None, as_json: bool, metrics_dir: str | None
) -> None:
    """
    Show where a process is at this moment, such as celery@web-1/3 in the lines of attempts.

    Needs the setting stack_signal in the worker, and the worker's user.
    """
    from celery_obs.recorder.stacks import stack_shown  # noqa: PLC0415 -- help is quick.
    from celery_obs.state.audit import current_user  # noqa: PLC0415

    from .stack_order import ask_audited  # noqa: PLC0415

    node, _, number = process.rpartition("/")
    if not node or not number.isascii() or not number.isdecimal() or len(number) > _MOST_DIGITS:
        message = f"{process!r} is no process. Expected its node and number, such as celery@web-1/3: celery-obs attempts --state running has them."
        raise ConfigurationError(message)
    say_audit()
    directory = metrics_dir_of(ctx, metrics_dir)
    try:
        found = ask_audited(directory, node, int(number), all_threads=all_threads, actor=actor or current_user(), reason=reason)
    except OSError as error:
        raise ConfigurationError(_unreadable(directory, error)) from None
    if as_json:
        click.echo(json.dumps(stack_shown(found)))
        return
    for attempt in found.attempts:
        _print(attempt, as_json=False)
    if not found.attempts:
        click.echo("It runs no attempt at this moment.")
    for thread in found.threads:
        click.echo(f"\nThread {thread.thread}{', at an attempt' if thread.runs_attempt else ''}, the innermost call first:")
        click.echo("\n".join(f"  {frame}" for frame in thread.frames))
    if not found.is_whole:
        click.echo("\nThere is more, which was cut off.")


COMMANDS = {"attempts": attempts, "simulate": simulate, "stack": stack}


def _unreadable(directory: Path, error: OSError) -> str:
    return (
        f"The metrics directory {directory} cannot be read: {error.strerror or error}. "
        "Does a worker run here, and does it use the same metrics_dir?"
    )


def _run(attempt: Attempt, queue: str) -> Run:
    from celery_obs.areas.tasks.simulation import Run  # noqa: PLC0415 -- as above.

    asked = fnmatchcase(attempt.queue, queue)
    return Run((attempt.node, attempt.process), attempt.started_at, attempt.runtime, attempt.wait, asked)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def _pages(log: AttemptLog, wanted: Wanted, limit: int) -> Iterator[Attempt]:
    """
    Go through what is wanted, at most *limit* attempts, page by page.
    """
    while limit > 0:
        answer = log.search(wanted._replace(limit=min(limit, wanted.limit)))
        yield from answer.attempts
        limit -= len(answer.attempts)
        if not answer.following:
            return
        wanted = wanted._replace(after=answer.following)


def _follow(log: AttemptLog, wanted: Wanted, found: list[Attempt], *, as_json: bool) -> None:
    """
    Print what was found, the oldest first, and then each attempt as it ends.
    """
    seen: dict[tuple[object, ...], float] = {}
    while True:
        for attempt in sorted(found, key=lambda attempt: attempt.ended_at):
            if attempt.state != "running" and _identity(attempt) not in seen:
                seen[_identity(attempt)] = attempt.ended_at
                _print(attempt, as_json=as_json)
        newest = max(seen.values(), default=wanted.since)
        seen = {key: ended_at for key, ended_at in seen.items() if ended_at > newest - 2 * _LATE}
        time.sleep(_PAUSE)
        wanted = wanted._replace(since=max(wanted.since, newest - _LATE), limit=1000)
        found = list(_pages(log, wanted, 1_000_000))


def _identity(attempt: Attempt) -> tuple[object, ...]:
    return attempt.id, attempt.node, attempt.process, attempt.started_at


def _print(attempt: Attempt, *, as_json: bool) -> None:
    if as_json:
        from celery_obs.recorder.attempt_log import shown  # noqa: PLC0415 -- help is quick.

        click.echo(json.dumps(shown(attempt)))
        return
    when = datetime.fromtimestamp(attempt.started_at).astimezone().isoformat(sep=" ", timespec="milliseconds")[:23]
    facts = [f"retry {attempt.retries}"] if attempt.retries else []
    facts += [attempt.exception + (", no retry left" if attempt.exhausted else "")] if attempt.exception else []
    facts += [f"waited {_seconds(attempt.wait)}"] if attempt.wait is not None else []
    facts += [f"trace {attempt.trace_id}"] if attempt.trace_id else []
    click.echo(
        f"{when}  {attempt.state:<10} {_seconds(attempt.runtime):>8}  {attempt.task}  {attempt.id}  {attempt.queue}  "
        f"{attempt.node}/{attempt.process}  {', '.join(facts)}".rstrip()
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}ms" if seconds < 1 else f"{seconds:.2f}s" if seconds < 100 else f"{seconds:.0f}s"  # noqa: PLR2004


def _nothing(log: AttemptLog, directory: object, wanted: Wanted) -> str:
    """
    Say why nothing was found.
    """
    whole = log.search(type(wanted)(limit=1))
    if whole.attempts:
        gone = f" {whole.overwritten} earlier ones were overwritten (setting attempt_bytes)." if whole.overwritten else ""
        return f"No attempt matches; {whole.kept} are kept.{gone}"
    return f"No attempts in {directory}. Workers keep them from their first task on, unless the setting attempt_bytes is 0."
