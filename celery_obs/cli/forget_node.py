"""
``celery-obs forget-node``: take a node that is gone off the page at once.
"""

from __future__ import annotations

import difflib
import os

from pathlib import Path

import click

from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.format import folder_name, node_name
from celery_obs.recorder.opening import RefusedError, open_metrics_dir

from .operate import metrics_dir_of, metrics_dir_option


__all__ = ["forget_node"]


@click.command("forget-node")
@click.argument("name")
@metrics_dir_option
@click.option("--force", is_flag=True, help="Forget a node that is alive, too: its counts until its restart are lost.")
@click.pass_context
def forget_node(ctx: click.Context, name: str, metrics_dir: str | None, force: bool) -> None:  # noqa: FBT001 -- click's.
    """
    Forget the node NAME, such as celery@web-3, at once.

    Its gauges leave the page, celery_worker_up too; what it counted stays in the totals.
    Without this a node is forgotten when it has given no sign of life for an hour (setting forget_after).
    """
    from celery_obs.recorder.attempts import AttemptMeter  # noqa: PLC0415 -- help is quick.
    from celery_obs.recorder.recorder import Identity, Recorder  # noqa: PLC0415
    from celery_obs.recorder.retiring import Retiring  # noqa: PLC0415
    from celery_obs.recorder.slots import is_alive  # noqa: PLC0415

    directory = metrics_dir_of(ctx, metrics_dir)
    try:
        os.close(open_metrics_dir(directory))
    except RefusedError as error:
        raise ConfigurationError(f"The metrics directory {error}") from None  # noqa: EM102, TRY003 -- the words are the refusal's.
    except OSError:
        pass  # It is told below, with the nodes that are known.
    folder = directory / folder_name(name)
    if not folder.is_dir():
        raise ConfigurationError(_unknown(name, directory))
    if not force and is_alive(folder):
        message = f"The node {name} is alive. Stop it first; then it leaves the page by itself. With --force, its counts until its restart are lost."
        raise ConfigurationError(message)
    meter = AttemptMeter(Recorder(directory, identify=lambda: Identity(node=name, role="publisher")))
    try:
        done = Retiring(directory, own=None, settle=meter.settle).forget(name, force=force)
    except OSError as error:
        message = f"The node {name} cannot be forgotten: {error}. Run this as the user that the workers run as."
        raise ConfigurationError(message) from error
    if not done:
        message = f"The node {name} was not forgotten: a file in {folder} cannot be read, or it has just come back. Look at the files, or try again."
        raise ConfigurationError(message)
    click.echo(f"Forgot {name}. What it counted stays in the totals.")


def _unknown(name: str, directory: Path) -> str:
    try:
        known = sorted(node for entry in directory.iterdir() if (node := node_name(entry.name)) is not None)
    except OSError as error:
        return (
            f"Cannot read the metrics directory {directory}: {error.strerror}. Give --metrics-dir, or run celery -A proj obs forget-node."
        )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    shown = ", ".join(known[:20]) or "none"
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""  # noqa: PLR2004 -- as many as are shown.
    return f"There is no node {name!r} in {directory}.{hint} Known are: {shown}{more}."
