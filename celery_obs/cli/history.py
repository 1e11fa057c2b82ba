"""
``celery-obs history``: what the sidecar on this host remembers, in the terminal.
"""

from __future__ import annotations

import json
import math

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.metrics_dir import HISTORY

from .operate import metrics_dir_of, metrics_dir_option, seconds_of


if TYPE_CHECKING:
    from celery_obs.exporter.history.view import Line


__all__ = ["history"]


_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 30


@click.command()
@click.argument("series", default="*", required=False)
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=PATTERN", help="Label, such as 'task=emails.*'; may be given several times."
)
@click.option("--since", callback=seconds_of, default="10m", show_default=True, metavar="TIME", help="How far to look back, up to 2h.")
@click.option("--step", callback=seconds_of, metavar="TIME", help="Time between two values.  [default: 1s up to 10m, else 1m]")
@click.option("--limit", type=click.IntRange(1), metavar="N", default=100, show_default=True, help="Maximum number of series.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as the exporter's API does.")
@metrics_dir_option
@click.pass_context
def history(
    ctx: click.Context,
    *,
    series: str,
    labels: tuple[str, ...],
    since: float,
    step: Any,
    limit: int,
    as_json: bool,
    metrics_dir: str | None,
) -> None:
    """
    Show what the sidecar on this host remembers of SERIES, such as 'celery_task_*'.

    Each line has a series, its lowest, highest and last value, and its course; what only grows is shown per second.
    A blank in the course is a time of which nothing is known.
    """
    from celery_obs.exporter.api.history import asked, told  # noqa: PLC0415 -- help is quick.
    from celery_obs.exporter.api.history import labels as known  # noqa: PLC0415
    from celery_obs.exporter.history.file import moment  # noqa: PLC0415
    from celery_obs.exporter.history.sampler import read_path  # noqa: PLC0415
    from celery_obs.exporter.history.view import look  # noqa: PLC0415

    path = metrics_dir_of(ctx, metrics_dir) / HISTORY
    given = {"series": series, "since": str(-since), "limit": str(limit), **({} if step is None else {"step": str(step)})}
    try:
        wanted = asked(given | dict(_pair(each) for each in labels), known())
        found = look(read_path(path, fine=wanted.step < 60), wanted, now=moment())  # noqa: PLR2004 -- a minute.
    except FileNotFoundError:
        message = f"There is no history at {path}. Does celery-obs exporter run here, with the same metrics directory?"
        raise ConfigurationError(message) from None
    except OSError as error:
        message = f"The history {path} cannot be read: {error.strerror or error}."
        raise ConfigurationError(message) from None
    except ValueError as error:
        message = f"{path} {error}." if not str(error).endswith(".") else str(error)
        raise ConfigurationError(message) from None
    if as_json:
        click.echo(json.dumps(told(found)))
        return
    for line in found.lines:
        click.echo(_shown(line))
    if not found.lines:
        click.echo("No series matches.")
    elif found.more:
        click.echo(f"… and more; see them with --limit above {limit}.")


def _pair(text: str) -> tuple[str, str]:
    name, equals, pattern = text.partition("=")
    if not equals:
        message = f"--label is {text!r}. Expected a label and a pattern, such as task=emails.*"
        raise click.UsageError(message)
    return name, pattern


def _shown(line: Line) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in line.name.labels)
    text = "".join(char if char.isprintable() else "?" for char in f"{line.name.metric}{{{labels}}}")
    values = [value for value in line.values if value is not None]
    if not values:
        return f"{text}  (nothing is known of this time)"
    unit = "/s" if line.name.grows else ""
    numbers = f"min {min(values):.4g}{unit}, max {max(values):.4g}{unit}, last {values[-1]:.4g}{unit}"
    return f"{_course(line.values)}  {text}  {numbers}"


def _course(values: Sequence[float | None]) -> str:
    """
    Draw values as bars, several of them as the highest of theirs.
    """
    size = math.ceil(len(values) / _WIDTH)
    parts = [[value for value in values[at : at + size] if value is not None] for at in range(0, len(values), size)]
    highest = max((max(part) for part in parts if part), default=0.0)
    return "".join(_bar(max(part), highest) if part else " " for part in parts).ljust(_WIDTH)


def _bar(value: float, highest: float) -> str:
    return _BARS[min(len(_BARS) - 1, max(0, int(value / highest * (len(_BARS) - 1) + 0.5)))] if highest > 0 else _BARS[0]
