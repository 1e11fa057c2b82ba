"""
``celery-obs reconciliation pending``: whose calendar differs from the channel's.
"""

from __future__ import annotations

import click

from celery_obs.cli.operate import json_option, print_json, redis_option, reports


__all__ = ["reconciliation"]


_MOST = 50_000


@click.group()
def reconciliation() -> None:
    """
    Show what reconciliation found.
    """


@reconciliation.command()
@redis_option
@json_option
@click.pass_context
def pending(ctx: click.Context, redis_url: str | None, *, as_json: bool) -> None:
    """
    List the connections whose calendars differ, those with the most days first.
    """
    with reports(ctx, redis_url) as found:
        left = found.pending(limit=_MOST)
    if as_json:
        print_json(left)
        return
    click.echo(f"{left['count']} connections differ, on {left['days']} days together.")
    for each in left["connections"]:
        types = ", ".join(f"{count} {name}" for name, count in each["conflicts"].items())
        click.echo(f"{each['days']:>5} d  {each['channel_type']}  {each['connection_id']!r}  {types}, first {_first(each)}")


def _first(entry: dict[str, list[dict[str, str]]]) -> str:
    return entry["sample"][0]["day"] if entry["sample"] else "unknown"
