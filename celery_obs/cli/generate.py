"""
``celery-obs generate``: rules, alerts, SLOs, aliases, dashboards and reference pages, from the catalogue.
"""

from __future__ import annotations

import functools

from pathlib import Path

import click

from celery_obs.rules import alerts, reference, slo
from celery_obs.rules.changes import NOTHING, read_changes
from celery_obs.rules.dashboards.pages import DASHBOARDS
from celery_obs.rules.links import Links
from celery_obs.rules.objectives import DEFAULT, read
from celery_obs.rules.render import builders, differences, outputs, write
from celery_obs.rules.rules import Alert
from celery_obs.rules.shipped import without_channels
from celery_obs.rules.validation import (
    RUNBOOKS,
    everything,
    known_to,
    refuse_missing_dashboards,
    refuse_missing_runbooks,
    refuse_the_same_twice,
    refuse_unknown_names,
)

from . import reference as commands


__all__ = ["generate"]


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 and name the files that differ.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="here",
    envvar="CELERY_OBS_OUT",
    help="Directory that holds deploy/ and docs/.",
)
@click.option("--channels", is_flag=True, help="Include rules and dashboards about channels, for apps with sync tasks.")
@click.option(
    "--runbooks-url", default=Links().runbooks, show_default=True, envvar="CELERY_OBS_RUNBOOKS_URL", help="Where you serve docs/runbooks."
)
@click.option("--grafana-url", default=Links().grafana, show_default=True, envvar="CELERY_OBS_GRAFANA_URL", help="Where your Grafana is.")
@click.option(
    "--slo",
    "objectives",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CELERY_OBS_SLO",
    default=DEFAULT,
    show_default="those that come with the package",
    help="Your own file of objectives.",
)
@click.option(
    "--alerts",
    "changed",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CELERY_OBS_ALERTS",
    show_default="as they come",
    help="Your own thresholds and severities.",
)
@click.pass_context
def generate(
    ctx: click.Context,
    *,
    out: Path,
    objectives: Path,
    changed: Path | None,
    channels: bool,
    runbooks_url: str,
    grafana_url: str,
    check: bool,
) -> None:
    """
    Write rules, alerts, SLOs, dashboards and reference pages.

    Exit code 0 if everything is written or up to date; with --check 1 if a file differs.
    """
    chosen = builders()
    groups = everything(objectives)
    refuse_the_same_twice(groups)
    refuse_missing_dashboards(groups, DASHBOARDS)
    shipped = [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]
    changes = read_changes(changed, shipped) if changed else NOTHING
    runbooks = out / RUNBOOKS
    refuse_missing_runbooks((alert.name for alert in changes.within(shipped)), runbooks)
    refuse_unknown_names(groups, known_to(groups, read(objectives)), pages=DASHBOARDS, runbooks=runbooks)
    chosen["alerts"] = functools.partial(alerts.build, changes=changes)
    chosen["slo"] = functools.partial(slo.build, path=objectives, changes=changes)
    chosen["reference"] = functools.partial(reference.build, path=objectives, changes=changes)
    if ctx.parent is not None and isinstance(ctx.parent.command, click.Group):
        chosen["commands"] = functools.partial(commands.build, group=ctx.parent.command)
    everywhere = outputs(
        Links(runbooks=runbooks_url, grafana=grafana_url), chosen.values(), on_lack=lambda lack: click.echo(str(lack), err=True)
    )
    made = everywhere if channels else tuple(without_channels(everywhere))
    if check:
        stale = list(differences(out, made))
        for difference in stale:
            click.echo(f"{difference.path} {difference.problem}.", err=True)
        if stale:
            click.echo("Run celery-obs generate, and commit what it writes.", err=True)
            ctx.exit(1)
        click.echo(f"All {len(made)} files are up to date.")
        return
    written = write(out, made)
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"{len(written)} of {len(made)} files written; the others are up to date.")
    left_out = [output.path for output in everywhere if all(output.path != each.path for each in made)]
    if left_out:
        there = sum((out / path).exists() for path in left_out)
        stale_ones = f" {there} of them are there from before and were not updated." if there else ""
        click.echo(f"{len(left_out)} files about channels left out; --channels writes them.{stale_ones}")
