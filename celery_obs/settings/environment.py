"""
Environment variables with our prefix that neither a setting nor a command reads: most are typing errors, some are other programs'.

Worker, beat, exporter and commands often share one environment, so what is one's option is no error for another.
What commands read is asked of the commands themselves, and only where there is something that is no setting: they are not loaded otherwise.
"""

from __future__ import annotations

import difflib
import re

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from . import SETTINGS


if TYPE_CHECKING:
    import click


__all__ = ["READ_DIRECTLY", "advice", "known", "unknown", "variables_of"]


_PREFIX: Final = "CELERY_OBS_"

READ_DIRECTLY: Final = frozenset(
    {
        "CELERY_OBS_APP",  # Where Django's projects keep their app, one of Django's own settings.
        "CELERY_OBS_BROKER_SENTINEL_PASSWORD",  # No option, because a command line is for all to see.
        "CELERY_OBS_DEMO_CLIENT_SECRET",  # How the demo's processes know each other.
        "CELERY_OBS_DEMO_PROVIDER",
        "CELERY_OBS_DEMO_RECEIVER_PORT",
        "CELERY_OBS_DEMO_WEBHOOK_SECRET",
        "CELERY_OBS_DEMO_ZOO",
        "CELERY_OBS_OPERATIONS_TOKEN",  # As above.
        "CELERY_OBS_PROBE_MAX_AGE",  # The probe loads no command line library.
        "CELERY_OBS_PROBE_NODE",
        "CELERY_OBS_URL",  # Of the shell script for the daily check.
    }
)
"""
Variables that are read without being a setting or the option of a command.
"""

_OTHERS: Final = re.compile(
    # Of our own tests ...
    r"CELERY_OBS_(TESTS_.+"
    # ... and what Kubernetes puts into every pod when a Service is called celery-obs or celery-obs-something.
    r"|(.+_)?SERVICE_HOST|(.+_)?SERVICE_PORT(_.+)?|(.+_)?PORT(_\d+_(TCP|UDP)(_.+)?)?)"
)


def unknown(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variables of *environ* with our prefix that nothing of ours reads, each with the known name next to it, or nothing.
    """
    candidates = [name for name in environ if name.startswith(_PREFIX) and environ[name].strip() and not _OTHERS.fullmatch(name)]
    settings = {setting.variable for setting in SETTINGS}
    if settings.issuperset(candidates):
        return {}
    all_known = sorted(known())
    return {
        name: next(iter(difflib.get_close_matches(name, all_known, n=1, cutoff=0.85)), "") for name in candidates if name not in all_known
    }


def advice(found: Mapping[str, str]) -> str:
    """
    Say of the variables *found*, which there must be, that they have no effect, in one sentence without a value: one may be a secret.
    """
    names = ", ".join(f"{name} (did you mean {close}?)" if close else name for name, close in found.items())
    return f"unknown environment variable{'s' if len(found) > 1 else ''}, without effect: {names}"


def known() -> frozenset[str]:
    """
    Return all variables that something of ours reads.
    """
    settings = {setting.variable for setting in SETTINGS}
    commands = {variable for entry in entry_points(group="celery.commands", name="obs") for variable in variables_of(entry.load())}
    return READ_DIRECTLY | settings | commands


def variables_of(command: click.Command) -> Iterator[str]:
    """
    Go through the variables that *command*, and those below it, take their options from.
    """
    import click  # noqa: PLC0415 -- a program that publishes needs no command line library.

    for parameter in command.params:
        named: Any = parameter.envvar
        yield from (named,) if isinstance(named, str) else named or ()
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from variables_of(below)
