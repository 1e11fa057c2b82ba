"""
``celery-obs deploy``: write the files that come with the package: rules, dashboards, runbooks, manifests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import click

from celery_obs import __version__
from celery_obs.exceptions import ConfigurationError
from celery_obs.rules.links import Links
from celery_obs.rules.render import Output, differences, write
from celery_obs.rules.shipped import PARTS, shipped
from celery_obs.rules.yaml_reader import did_you_mean


__all__ = ["deploy"]


_MOST_NAMES: Final = 5


def _parts(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """
    Take lists with commas apart.
    """
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            message = f"unknown part {name!r}. Expected one or more of {', '.join(PARTS)}.{did_you_mean(name, PARTS)}"
            raise click.BadParameter(message)
    if values and not names:
        message = f"no part named. Expected one or more of {', '.join(PARTS)}."
        raise click.BadParameter(message)
    return tuple(dict.fromkeys(names))


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="here",
    envvar="CELERY_OBS_OUT",
    help="Directory under which to write deploy/ and docs/runbooks/.",
)
@click.option("--only", multiple=True, metavar="PART,...", callback=_parts, help="Write these parts only; --list shows them.")
@click.option("--channels", is_flag=True, help="Include rules, dashboards and runbooks about channels, for apps with sync tasks.")
@click.option("--list", "only_list", is_flag=True, help="Write nothing; list the parts.")
@click.option("--force", is_flag=True, help="Replace files that differ from those of this version.")
@click.option(
    "--runbooks-url", default=Links().runbooks, show_default=True, envvar="CELERY_OBS_RUNBOOKS_URL", help="Where you serve docs/runbooks."
)
@click.option("--grafana-url", default=Links().grafana, show_default=True, envvar="CELERY_OBS_GRAFANA_URL", help="Where your Grafana is.")
def deploy(*, out: Path, only: tuple[str, ...], channels: bool, only_list: bool, force: bool, runbooks_url: str, grafana_url: str) -> None:
    """
    Write the rules, dashboards, runbooks and manifests that come with celery_obs.

    For rules with thresholds or objectives of your own, run celery-obs generate afterwards.
    """
    links = Links(runbooks=runbooks_url, grafana=grafana_url)
    if only_list:
        _list(only or tuple(PARTS), channels=channels)
        return
    made = shipped(only, channels=channels, links=links)
    if not force:
        _refuse_to_replace(out, made)
    written = write(out, made)
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"{len(written)} of {len(made)} files written; the others are as they should be.")
    left_out = len(shipped(only, channels=True)) - len(made)
    if left_out:
        click.echo(f"{left_out} files about channels left out; --channels writes them.")
    if links == Links() and any("runbook_url" in output.text for output in made):
        click.echo(f"Alerts link to {links.runbooks} and {links.grafana}; change that with --runbooks-url and --grafana-url.")


def _list(names: Iterable[str], *, channels: bool) -> None:
    for name in names:
        part = PARTS[name]
        count = len(shipped([name], channels=channels))
        more = len(shipped([name], channels=True)) - count
        notes = [f"{count} files" + (f", {more} more with --channels" if more else "")]
        notes += ["only with --only"] if part.only_when_named else []
        click.echo(f"{name:<13} {part.summary} ({'; '.join(notes)})")


def _refuse_to_replace(out: Path, made: Iterable[Output]) -> None:
    """
    Refuse to replace what differs: someone may have changed it.

    Raises:
        ConfigurationError: naming the files; nothing has been written then.
    """
    changed = [each.path for each in differences(out, made) if (out / each.path).exists()]
    if not changed:
        return
    more = f" and {len(changed) - _MOST_NAMES} more" if len(changed) > _MOST_NAMES else ""
    message = (
        f"Nothing was written: under {out}, {len(changed)} files differ from those of celery_obs {__version__}: "
        f"{', '.join(changed[:_MOST_NAMES])}{more}. Replace them with --force, write other parts with --only, or give another directory with --out."
    )
    raise ConfigurationError(message)
