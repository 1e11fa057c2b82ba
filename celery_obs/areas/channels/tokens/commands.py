"""
``celery-obs tokens expiring``: whose token ends soon.
"""

from __future__ import annotations

import click

from celery_obs.cli.operate import json_option, print_json, redis_option, reports, seconds_of


__all__ = ["tokens"]


_MOST = 50_000


@click.group()
def tokens() -> None:
    """
    Show how long tokens are valid.
    """


@tokens.command()
@click.option("--within", callback=seconds_of, default="7d", show_default=True, metavar="TIME", help="How far to look ahead.")
@redis_option
@json_option
@click.pass_context
def expiring(ctx: click.Context, within: float, redis_url: str | None, *, as_json: bool) -> None:
    """
    List the tokens that expire soon or have expired, the earliest first.
    """
    with reports(ctx, redis_url) as found:
        ends = found.expiring(within=within, limit=_MOST)
    if as_json:
        print_json(ends)
        return
    for each in ends:
        when = "EXPIRED" if each["expired"] else f"{each['expires_in_days']:g} d"
        click.echo(f"{when:<8} {each['expires_at'] or 'unknown'}  {each['channel_type']}  {each['connection_id']!r}")
    if not ends:
        click.echo("No token expires in that time.")
