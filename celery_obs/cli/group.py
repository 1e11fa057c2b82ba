"""
The group of commands; each is loaded when it is called.
"""

from __future__ import annotations

import importlib
import os

from typing import NamedTuple

import click

from celery_obs import __version__
from celery_obs.exceptions import CeleryObsError
from celery_obs.telemetry.redaction import mask, without_secrets


__all__ = ["COMMANDS", "LazyGroup", "obs"]


class Target(NamedTuple):
    """
    Where a command is, and what the overview says of it.
    """

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, Target] = {
    "breaker": Target("celery_obs.areas.channels.breakers.commands", "breaker", "See circuit breakers, and overrule them."),
    "channel": Target("celery_obs.areas.channels.pauses.commands", "channel", "Pause channels and let them go on."),
    "demo": Target("celery_obs.cli.demo", "demo", "Run everything on this machine for a look."),
    "deploy": Target("celery_obs.cli.deploy", "deploy", "Write the rules, dashboards, runbooks and manifests that come with it."),
    "doctor": Target("celery_obs.cli.doctor", "doctor", "Check the surroundings; one line per check."),
    "exporter": Target("celery_obs.cli.exporter", "exporter", "Serve /metrics beside a worker."),
    "forget-node": Target("celery_obs.cli.forget_node", "forget_node", "Take a node that is gone off the page."),
    "generate": Target("celery_obs.cli.generate", "generate", "Write rules, alerts, dashboards and their pages."),
    "health": Target("celery_obs.cli.health", "health", "Tell how the cluster is; the daily check."),
    "probe": Target("celery_obs.cli.group", "probe", "Answer a container's liveness or readiness probe."),
    "rate-limit": Target("celery_obs.areas.channels.rate_limits.commands", "rate_limit", "Forget what rate limits count."),
    "reconciliation": Target("celery_obs.areas.channels.reconciliation.commands", "reconciliation", "See what reconciliation found."),
    "uninstall": Target("celery_obs.cli.uninstall", "uninstall", "Remove what celery_obs left: entries, keys, files."),
    "tokens": Target("celery_obs.areas.channels.tokens.commands", "tokens", "See how long tokens are good for."),
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
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        Import a command.
        """
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        command: click.Command = getattr(importlib.import_module(target.module), target.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """
        List the commands without importing them.
        """
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.summary) for name, target in sorted(COMMANDS.items())])

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
            if mask(words) == words:
                raise
            raise click.UsageError(mask(words), ctx=error.ctx) from None
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            # What none of us foresaw ends with a traceback, whose last line may quote a password.
            safe = without_secrets(error)
            if safe is error:
                raise
            raise safe from None


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
