"""
``celery-obs rate-limit clear``: reset the counters of rate limits.
"""

from __future__ import annotations

from typing import Any

import click

from celery_obs.cli.operate import deed, run


__all__ = ["rate_limit"]


@click.group("rate-limit")
def rate_limit() -> None:
    """
    Reset rate-limit counters.
    """


@rate_limit.command()
@click.argument("name", metavar="CHANNEL")
@deed
@click.pass_context
def clear(ctx: click.Context, /, name: str, **options: Any) -> None:
    """
    Reset the rate-limit counters of CHANNEL, so that it may be called up to its limit at once.

    Scans all keys of Redis, in small steps.
    """
    result = run(ctx, "rate_limit.clear", name, **options)
    click.echo(f"Rate-limit counters of {name} reset: {result['cleared']}.")
