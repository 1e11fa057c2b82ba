"""
``celery-obs channel pause|resume``: hold back a channel's syncs, and resume them.
"""

from __future__ import annotations

from typing import Any

import click

from celery_obs.cli.operate import deed, run, seconds_of


__all__ = ["channel"]


@click.group()
def channel() -> None:
    """
    Pause and resume channels.
    """


@channel.command()
@click.argument("name", metavar="CHANNEL")
@click.option("--for", "seconds", callback=seconds_of, metavar="TIME", help="How long, such as 30m.  [default: until it is resumed]")
@deed
@click.pass_context
def pause(ctx: click.Context, /, name: str, seconds: Any, **options: Any) -> None:
    """
    Hold back all syncs of CHANNEL; they are delayed, not lost.
    """
    run(ctx, "channel.pause", name, seconds=seconds, **options)
    until = "until it is resumed by hand" if seconds is None else f"for {seconds:g} s"
    click.echo(f"{name} is paused {until}.")


@channel.command()
@click.argument("name", metavar="CHANNEL")
@deed
@click.pass_context
def resume(ctx: click.Context, /, name: str, **options: Any) -> None:
    """
    Resume the syncs of CHANNEL.
    """
    result = run(ctx, "channel.resume", name, **options)
    click.echo(f"{name} is resumed." if result["was_paused"] else f"{name} was not paused.")
