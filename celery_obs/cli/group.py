"""
The group of commands; each is loaded when it is called.
"""

from __future__ import annotations

import functools
import importlib
import os

from collections.abc import Mapping
from typing import NamedTuple

import click

from celery_obs import __version__
from celery_obs.areas import AREAS, left_out_if_broken
from celery_obs.exceptions import CeleryObsError
from celery_obs.telemetry.redaction import redact, without_secrets


__all__ = ["COMMANDS", "LazyGroup", "obs"]


class Target(NamedTuple):
    """
    Where a command is, and what the overview says of it.
    """

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, Target] = {
    "demo": Target("celery_obs.cli.demo", "demo", "Run everything on this machine, to try it out."),
    "deploy": Target("celery_obs.cli.deploy", "deploy", "Write the rules, dashboards, runbooks and manifests that come with it."),
    "doctor": Target("celery_obs.cli.doctor", "doctor", "Check the environment; one line per check."),
    "exporter": Target("celery_obs.cli.exporter", "exporter", "Serve /metrics beside a worker."),
    "forget-node": Target("celery_obs.cli.forget_node", "forget_node", "Remove a node that is gone from the page."),
    "generate": Target("celery_obs.cli.generate", "generate", "Write rules, alerts, dashboards and their pages."),
    "health": Target("celery_obs.cli.health", "health", "Show cluster health; the daily check."),
    "history": Target("celery_obs.cli.history", "history", "Show what the sidecar remembers of the last two hours."),
    "probe": Target("celery_obs.cli.group", "probe", "Answer a container's liveness or readiness probe."),
    "uninstall": Target("celery_obs.cli.uninstall", "uninstall", "Remove what celery_obs leaves behind: entries, keys, files."),
    **{
        word: Target(f"{area.package}.commands", word.replace("-", "_"), summary)
        for area in AREAS
        for word, summary in area.commands.items()
    },
}
"""
The commands, by the word that people type.
"""


class LazyGroup(click.Group):
    """
    A group that imports a command's module when the command is called, and turns our errors into one paragraph and exit code 2.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """
        Name the commands.
        """
        return sorted({*COMMANDS, *_of_others()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        Import a command.
        """
        target = COMMANDS.get(cmd_name)
        if target is None:
            return _of_others().get(cmd_name)
        command: click.Command = getattr(importlib.import_module(target.module), target.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """
        List the commands without importing them.
        """
        with formatter.section("Commands"):
            of_others = {name: command.get_short_help_str() for name, command in _of_others().items()}
            formatter.write_dl(sorted({**of_others, **{name: target.summary for name, target in COMMANDS.items()}}.items()))

    def invoke(self, ctx: click.Context) -> object:
        """
        Run the command that was asked for.
        """
        try:
            return super().invoke(ctx)
        except CeleryObsError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except click.UsageError as error:
            # It quotes what was typed: a URL in the place of an option, for example.
            words = error.format_message()
            if redact(words) == words:
                raise
            raise click.UsageError(redact(words), ctx=error.ctx) from None
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            # What none of us foresaw ends with a traceback, whose last line may quote a password.
            safe = without_secrets(error)
            if safe is error:
                raise
            raise safe from None


@functools.cache
def _of_others() -> Mapping[str, click.Command]:
    """
    Load the commands of areas that other distributions bring.
    """
    found: dict[str, click.Command] = {}
    for area in AREAS:
        if not area.is_ours:  # Ours are not loaded before they are called.
            with left_out_if_broken(area, "commands"):
                part = area.part("commands")
                found.update(part.COMMANDS if part is not None else {})
    return found


@click.group(cls=LazyGroup, name="obs", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="celery-obs")
def obs() -> None:
    """
    Observability for Celery workers.
    """
    from celery_obs.settings import environment  # noqa: PLC0415 -- every command of Celery's loads this group.

    found = environment.unknown(os.environ)
    if found:
        click.echo(f"Warning: {environment.advice(found)}.", err=True)


@click.command(
    "probe",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def probe(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """
    Answer a container's liveness or readiness probe.
    """
    from .probe import run  # noqa: PLC0415 -- the light way in does not pass here.

    ctx.exit(run(arguments))
