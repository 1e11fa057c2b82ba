"""
``celery-obs uninstall``: take away what celery_obs left in databases, brokers and directories.
"""

from __future__ import annotations

import importlib
import os

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from celery_obs.exceptions import ConfigurationError
from celery_obs.telemetry.redaction import reason

from .operate import connected, find_redis, print_json


__all__ = ["uninstall"]


_SHOWN = 5
_FAILED = frozenset({"refused", "declined", "failed"})


@dataclass(slots=True)
class _Part:
    """
    One place where something of ours is.

    Attributes:
        name: What is there.

        look: Returns how many there are, and some of their names; may raise anything.

        remove: Removes them, and returns how many went.
    """

    name: str
    look: Callable[[], tuple[int, list[str]]]
    remove: Callable[[], int]
    found: int = 0
    examples: list[str] = field(default_factory=list)
    removed: int | None = None
    error: str = ""

    def try_to_look(self) -> None:
        try:
            self.found, self.examples = self.look()
        except Exception as error:  # noqa: BLE001 -- each place has its own; the others are looked at all the same.
            self.error = _in_words(error)

    def try_to_remove(self) -> None:
        if not self.found:
            return
        try:
            self.removed = self.remove()
        except Exception as error:  # noqa: BLE001 -- as above.
            self.error = _in_words(error)

    def line(self) -> str:
        if self.error:
            return f"  {self.name}: {self.error}"
        shown = ", ".join(self.examples[:_SHOWN]) + (", …" if len(self.examples) > _SHOWN else "")
        return f"  {self.name}: {self.found}{f' ({shown})' if shown else ''}"

    def facts(self) -> dict[str, object]:
        return {
            "name": self.name,
            "found": self.found,
            "examples": self.examples[:_SHOWN],
            "removed": self.removed,
            "error": self.error or None,
        }


@click.command()
@click.option("--redis-url", envvar="CELERY_OBS_REDIS_URL", help="Redis of the cluster's state.  [default: the app's, or the broker]")
@click.option("--metrics-dir", envvar="CELERY_OBS_METRICS_DIR", help="Directory of the metric files.  [default: the app's, or yours]")
@click.option("--schedule", type=click.Path(path_type=Path), help="Beat's schedule file.  [default: the app's]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--force", is_flag=True, help="Even while workers, beats or exporters run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; needs --yes or --dry-run.")
@click.pass_context
def uninstall(
    ctx: click.Context,
    *,
    redis_url: str | None,
    metrics_dir: str | None,
    schedule: Path | None,
    yes: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """
    Remove what celery_obs leaves behind: schedule entries, messages, keys, files.

    As "celery -A proj obs uninstall" it also finds what only the app knows: entries in django-celery-beat and RedBeat, waiting messages.
    Exit code 0 if nothing is left, else 1.
    """
    if as_json and not (yes or dry_run):
        message = "--json does not ask for confirmation. Give --yes or --dry-run, too."
        raise click.UsageError(message)
    app = getattr(ctx.obj, "app", None)
    settings = _settings(app, redis_url, metrics_dir)
    parts = [*_of_app(app, settings, schedule), *_of_redis(ctx, redis_url, settings), _files(settings.metrics_dir)]
    for part in parts:
        part.try_to_look()
    running = _running(ctx, redis_url, settings.metrics_dir)
    say = _say_nothing if as_json else click.echo
    status = _reported(parts, running, say) or ("would_remove" if dry_run else _permitted(running, say, yes=yes, force=force))
    if not status:
        status = _removed(parts, say)
    if as_json:
        print_json({"status": status, "running": running, "parts": [part.facts() for part in parts]})
    ctx.exit(1 if status in _FAILED or any(part.error for part in parts) else 0)


def _say_nothing(_: str) -> None:
    """
    Leave it to the JSON.
    """


def _reported(parts: Sequence[_Part], running: Sequence[str], say: Callable[[str], object]) -> str:
    """
    Say what there is; return *nothing* where there is nothing.
    """
    found = [part for part in parts if part.found or part.error]
    if not found:
        say("Nothing of celery_obs is left.")
        return "nothing"
    say("Found of celery_obs:")
    for part in found:
        say(part.line())
    if running:
        say(f"Still running: {', '.join(running[:_SHOWN])}.")
    return ""


def _permitted(running: Sequence[str], say: Callable[[str], object], *, yes: bool, force: bool) -> str:
    """
    Return why nothing may be removed: *refused* or *declined*; empty where it may.
    """
    if running and not force:
        say("Nothing was removed: they would write it again. Stop them first, or give --force.")
        return "refused"
    if not yes and not click.confirm("Remove all that?"):
        say("Nothing was removed.")
        return "declined"
    return ""


def _removed(parts: Sequence[_Part], say: Callable[[str], object]) -> str:
    for part in parts:
        part.try_to_remove()
        if part.error:
            say(f"FAIL {part.name}: {part.error}")
        elif part.found:
            say(f"OK   {part.name}: {part.removed} removed.")
    return "failed" if any(part.error for part in parts) else "removed"


def _settings(app: Any, redis_url: str | None, metrics_dir: str | None) -> Any:
    from celery_obs.settings import load  # noqa: PLC0415 -- help is quick.

    given = {"metrics_dir": metrics_dir, "redis_url": redis_url}
    return load(app.conf if app is not None else {}, os.environ, {name: value for name, value in given.items() if value})


def _of_app(app: Any, settings: Any, schedule: Path | None) -> Iterator[_Part]:
    """
    Go through the places that the app's schedulers and broker know; without an app there is the schedule's file only, if it is given.
    """
    from celery_obs.runtime.builtin_tasks.removal import RedBeat, Shelf, WaitingMessages, django_rows, names_of  # noqa: PLC0415

    names = names_of(settings)
    if app is not None:
        rows = django_rows(names)
        if rows is not None:
            yield _Part(
                "rows of django-celery-beat", lambda: _listed(sorted(map(str, rows.values_list("name", flat=True)))), lambda: _delete(rows)
            )
        if RedBeat.may_be_used(app):
            yield _Part("entries of RedBeat", lambda: _listed(RedBeat(app, names).found()), lambda: RedBeat(app, names).remove())
    path = schedule or (Path(str(app.conf.beat_schedule_filename)) if app is not None else None)
    if path is not None:
        shelf = Shelf(path, names)
        yield _Part(f"entries in {path}", lambda: _listed(shelf.found()), shelf.remove)
    if app is not None:
        yield _Part(
            "waiting messages of our tasks",
            lambda: (WaitingMessages(app, names.tasks).found(), []),
            lambda: WaitingMessages(app, names.tasks).remove(),
        )


def _delete(rows: Any) -> int:
    count = int(rows.count())
    rows.delete()
    importlib.import_module("django_celery_beat.models").PeriodicTasks.update_changed()  # A beat that runs reads its schedule anew.
    return count


def _of_redis(ctx: click.Context, redis_url: str | None, settings: Any) -> Iterator[_Part]:
    from celery_obs.state import removal  # noqa: PLC0415
    from celery_obs.state.keys import part  # noqa: PLC0415

    try:
        find_redis(ctx, redis_url)
    except ConfigurationError:
        return  # There was none to write to.
    configured = frozenset(map(part, settings.channels))

    def look() -> tuple[int, list[str]]:
        with connected(ctx, redis_url) as redis:
            counts = removal.count_keys(redis, removal.channels_of(redis) | configured)
        return sum(counts.values()), [f"{count} {prefix}:…" for prefix, count in sorted(counts.items())]

    def remove() -> int:
        with connected(ctx, redis_url) as redis:
            return removal.remove_keys(redis, removal.channels_of(redis) | configured)

    yield _Part("keys in Redis", look, remove)


def _files(metrics_dir: Path) -> _Part:
    from celery_obs.recorder.metrics_dir import default_metrics_dir  # noqa: PLC0415
    from celery_obs.recorder.removal import look_for_files, remove_files  # noqa: PLC0415

    def look() -> tuple[int, list[str]]:
        remains = look_for_files(metrics_dir)
        if remains.problem:
            message = f"left alone, because it {remains.problem}. Give --metrics-dir, or remove it by hand."
            raise ConfigurationError(message)
        return remains.files, list(remains.folders)

    return _Part(f"files in {metrics_dir}", look, lambda: remove_files(metrics_dir, itself=metrics_dir == default_metrics_dir(os.environ)))


def _running(ctx: click.Context, redis_url: str | None, metrics_dir: Path) -> list[str]:
    from celery_obs.recorder.removal import live_nodes  # noqa: PLC0415
    from celery_obs.state.removal import running_on  # noqa: PLC0415

    found = live_nodes(metrics_dir)
    try:
        with connected(ctx, redis_url) as redis:
            found += running_on(redis)
    except ConfigurationError:
        pass  # The keys have a line that says so.
    return found


def _listed(names: list[str]) -> tuple[int, list[str]]:
    return len(names), names


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {reason(error)[:200]}"
