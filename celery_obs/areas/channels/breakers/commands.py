"""
``celery-obs breaker list|open|close|reset``: show the circuit breakers, and override them.
"""

from __future__ import annotations

from typing import Any

import click

from celery_obs.cli.operate import deed, json_option, print_json, redis_option, reports, run, seconds_of


__all__ = ["breaker"]


@click.group()
def breaker() -> None:
    """
    Show circuit breakers, and override them.
    """


@breaker.command("list")
@redis_option
@json_option
@click.pass_context
def list_(ctx: click.Context, redis_url: str | None, *, as_json: bool) -> None:
    """
    Show the breaker of each channel.
    """
    with reports(ctx, redis_url) as found:
        breakers = found.breakers()
    if as_json:
        print_json(breakers)
        return
    for each in breakers:
        by_hand = f", by {each['changed_by'] or 'hand'}" if each["forced"] else ""
        since = f" since {each['opened_at']}{by_hand}" if each["state"] != "closed" and each["opened_at"] else ""
        click.echo(f"{each['state']:<9} {each['channel_type']}  {each['failure_count']} failures in a row{since}")
    if not breakers:
        click.echo("No channel has been used yet.")


@breaker.command("open")
@click.argument("name", metavar="CHANNEL")
@click.option("--for", "seconds", callback=seconds_of, metavar="TIME", help="How long, such as 30m.  [default: until it is closed]")
@deed
@click.pass_context
def open_(ctx: click.Context, /, name: str, seconds: Any, **options: Any) -> None:
    """
    Open the breaker of CHANNEL: no call goes through.
    """
    run(ctx, "breaker.open", name, seconds=seconds, **options)
    click.echo(f"The breaker of {name} is open {'until it is closed by hand' if seconds is None else f'for {seconds:g} s'}.")


@breaker.command()
@click.argument("name", metavar="CHANNEL")
@deed
@click.pass_context
def close(ctx: click.Context, /, name: str, **options: Any) -> None:
    """
    Close the breaker of CHANNEL: all calls go through again.
    """
    run(ctx, "breaker.close", name, **options)
    click.echo(f"The breaker of {name} is closed.")


@breaker.command()
@click.argument("name", metavar="CHANNEL")
@deed
@click.pass_context
def reset(ctx: click.Context, /, name: str, **options: Any) -> None:
    """
    Reset the breaker of CHANNEL: its counts are cleared, and it is closed.
    """
    run(ctx, "breaker.reset", name, **options)
    click.echo(f"The breaker of {name} is closed, and its counts are cleared.")
