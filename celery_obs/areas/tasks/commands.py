"""
``celery-obs attempts``: search the latest attempts of the workers on this host, and watch them come.
"""

from __future__ import annotations

import json
import os
import time

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from celery_obs.cli.operate import seconds_of
from celery_obs.exceptions import ConfigurationError


if TYPE_CHECKING:
    from celery_obs.recorder.attempt_log import Attempt, AttemptLog, Wanted


__all__ = ["COMMANDS", "attempts"]


_PAUSE: Final = 0.5  # Seconds between two looks of --follow.
_LATE: Final = 5.0  # Seconds for which an attempt that ended may not be in the files yet, or a thread may be between two stores.
_STATES: Final = ("running", "success", "failure", "retry", "ignored", "rejected", "lost", "timeout", "terminated")


@click.command()
@click.option("--task", metavar="PATTERN", default="", help="Tasks by name, such as 'emails.*'.")
@click.option("--queue", metavar="PATTERN", default="", help="Queues by name.")
@click.option("--node", metavar="PATTERN", default="", help="Nodes by name, such as 'celery@web-*'.")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(_STATES), help="Only attempts in this state; may be given several times."
)
@click.option("--failed", is_flag=True, help="Only attempts that failed, timed out, were terminated or lost.")
@click.option("--exception", metavar="PATTERN", default="", help="Exceptions by class, such as 'Connect*'.")
@click.option("--id", "task_id", default="", help="All attempts of the task with this id, the first one first.")
@click.option("--since", callback=seconds_of, metavar="TIME", help="Only those that ended within this time, such as 15m.")
@click.option("--slower-than", callback=seconds_of, metavar="TIME", help="Only those that ran for longer, such as 10.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="Maximum number of attempts.")
@click.option("--follow", "-f", is_flag=True, help="Go on with attempts as they end, until you press Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on each line, as the exporter's API has them.")
@click.option(
    "--metrics-dir", envvar="CELERY_OBS_METRICS_DIR", help="Directory of the metric files.  [default: the app's, or your user's own]"
)
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

    An attempt is one execution of a task; a task that was retried twice has three.
    Each pool process keeps its last ones (setting attempt_bytes), and those that did not succeed longer.
    """
    from celery_obs.recorder.attempt_log import AttemptLog, Wanted  # noqa: PLC0415 -- help is quick.
    from celery_obs.settings import load  # noqa: PLC0415

    app = getattr(ctx.obj, "app", None)
    directory = load(app.conf if app is not None else {}, os.environ, {"metrics_dir": metrics_dir} if metrics_dir else {}).metrics_dir
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
        message = f"The metrics directory {directory} cannot be read: {error.strerror or error}. Does a worker run here, and does it use the same metrics_dir?"
        raise ConfigurationError(message) from None
    for attempt in reversed(found) if task_id else found:
        _print(attempt, as_json=as_json)
    if not found and not as_json:
        click.echo(_nothing(log, directory, wanted))


COMMANDS = {"attempts": attempts}


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
