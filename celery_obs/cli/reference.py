"""
The reference pages of commands and settings: what ``--help`` prints, and the environment variables.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Final

import click

from celery_obs.rules.docstrings import sentences
from celery_obs.rules.links import Links
from celery_obs.rules.render import Output, marked
from celery_obs.settings.reference import reference as settings

from . import probe


__all__ = ["build"]


_HEAD: Final = """\
# Commands

Each is run as `celery-obs …`, or as `celery -A proj obs …`, which takes from the app what is not given.
`--help` prints the same as this page.

An option wins over its environment variable, and both over the app's configuration; an empty variable counts as not set.
For an option that may be repeated, the variable has several values, separated by spaces.

Exit codes, unless a command says something else:

| code | means |
| --- | --- |
| 0 | it did what was asked, or the answer is yes |
| 1 | the answer is no, or it was declined or interrupted |
| 2 | a wrong option, argument or setting, or what it needs cannot be reached; standard error has one paragraph that says what to do |
"""


def build(links: Links, *, group: click.Group) -> Iterator[Output]:
    """
    Write the page of the commands in *group*, and that of the settings.
    """
    yield Output("docs/reference/settings.md", settings())
    text = _HEAD + "".join(_commands(click.Context(group, info_name="celery-obs"), group, depth=2))
    yield Output("docs/reference/cli.md", marked("celery_obs/cli and celery_obs/areas/**/commands.py", text, comment="<!--", end=" -->"))


def _commands(parent: click.Context, group: click.Group, *, depth: int) -> Iterator[str]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = command.make_context(name, [], parent=parent, resilient_parsing=True)
        yield f"\n{'#' * depth} `{context.command_path}`\n"
        if name == "probe":
            yield f"\n{cleandoc(command.help or '')}\n\n```\n{probe.USAGE.rstrip()}\n```\n"  # It has no options of click's: it has to be quick.
            continue
        yield from _command(context, command)
        if isinstance(command, click.Group):
            yield from _commands(context, command, depth=depth + 1)


def _command(context: click.Context, command: click.Command) -> Iterator[str]:
    yield f"\n```\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        yield f"\n{sentences(paragraph)}\n"
    rows = [row for parameter in command.params if isinstance(parameter, click.Option) for row in _row(context, parameter)]
    if rows:
        yield "\n| option | what it is | environment |\n| --- | --- | --- |\n"
        yield from rows


def _row(context: click.Context, parameter: click.Option) -> Iterator[str]:
    record = parameter.get_help_record(context)
    if record is not None:
        names, words = record
        given = parameter.envvar or ()
        variables = ", ".join(f"`{name}`" for name in ([given] if isinstance(given, str) else given))
        yield f"| `{names.replace('|', chr(92) + '|')}` | {' '.join(words.split()).replace('|', chr(92) + '|')} | {variables} |\n"
