"""
``celery-obs demo``: a whole installation on this machine, for a look.
"""

from __future__ import annotations

import os
import sys

from pathlib import Path

import click

from celery_obs.exceptions import MissingExtraError
from celery_obs.settings import Settings
from celery_obs.telemetry.switches import is_installed, reaches, switches


__all__ = ["demo"]


@click.command()
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    envvar="CELERY_OBS_DEMO_DURATION",
    help="Seconds after which it ends.  [default: at Ctrl-C]",
)
@click.option("--port", type=click.IntRange(1, 65535), envvar="CELERY_OBS_DEMO_PORT", help="Port of the exporter.  [default: a free one]")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="CELERY_OBS_DEMO_DIR",
    help="Directory for logs and metric files; kept.  [default: a temporary one, removed]",
)
@click.option(
    "--providers",
    "with_providers",
    is_flag=True,
    envvar="CELERY_OBS_DEMO_PROVIDERS",
    help="Play the token endpoints of twelve real providers, too, with the answers that they document.",
)
@click.pass_context
def demo(ctx: click.Context, duration: float | None, port: int | None, directory: Path | None, *, with_providers: bool) -> None:
    """
    Run Redis, fake channels, a worker, beat, an exporter and some load on this machine, and show the metrics.

    Ends at Ctrl-C, and takes everything down.  Exit code 0 if everything came up and was scraped.
    """
    if not all(map(is_installed, ("authlib", "cryptography", "httpx", "prometheus_client", "uvicorn"))):
        feature = "The demo"
        raise MissingExtraError(feature, extra="demo")
    from celery_obs.demo.run import run  # noqa: PLC0415 -- not needed to show help.

    settings = Settings(metrics_dir=Path())  # Those of the demo's worker, as far as it is about logs, traces and errors.
    for finding in switches(settings, os.environ, installed=is_installed, unreachable=reaches):
        if finding.name != "metrics":
            click.echo(f"{finding.name.capitalize() + ':':<8} {finding.text}")
    ctx.exit(run(duration=duration, port=port, directory=directory, out=sys.stdout, with_providers=with_providers))
