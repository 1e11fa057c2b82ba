"""
The page of the commands says what ``--help`` says.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from click.testing import CliRunner

from celery_obs.cli import reference
from celery_obs.cli.group import obs
from celery_obs.rules.links import Links


PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """
    Go through all commands, those in groups too.
    """
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


EVERY = list(commands(obs))


def section_of(words: tuple[str, ...]) -> str:
    """
    Return what the committed page says of a command.
    """
    found = re.search(rf"^#+ `celery-obs {' '.join(words)}`\n(.*?)(?=^#+ |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def bare(text: str) -> str:
    """
    Take from *text* what lays it out: blanks, lines and the marks of tables.
    """
    return re.sub(r"[\s|`\\-]+|environment", "", text)


@pytest.mark.parametrize(("words", "command"), EVERY, ids=[" ".join(words) for words, _ in EVERY])
def test_the_page_has_each_line_of_the_help(words: tuple[str, ...], command: click.Command) -> None:
    """
    Usage, promise, options and defaults read there as in a terminal.
    """
    said = CliRunner().invoke(obs, [*words, "--help"], terminal_width=1000, max_content_width=1000, prog_name="celery-obs").stdout
    section = bare(section_of(words))

    lines = said.partition("\nCommands:")[0].removeprefix("Usage: ").splitlines()
    missing = [line for line in lines if line.strip() and "--help" not in line and line.strip() != "Options:" and bare(line) not in section]

    assert [] == missing


@pytest.mark.parametrize(("words", "command"), EVERY, ids=[" ".join(words) for words, _ in EVERY])
def test_the_page_has_each_environment_variable(words: tuple[str, ...], command: click.Command) -> None:
    """
    An option that a variable can set says which, and no other variable is named for the command.
    """
    if words == ("probe",):
        pytest.skip("It says its variables in its help.")
    read = {name for each in command.params for name in ([each.envvar] if isinstance(each.envvar, str) else each.envvar or ())}

    columns = [line.rsplit("|", 2)[1] for line in section_of(words).splitlines() if line.startswith("| `")]

    assert read == {name for column in columns for name in re.findall(r"`(\w+)`", column)}


def test_the_committed_pages_are_what_would_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    They name no machine, no user and no folder of the author's, and nothing of the environment is not in them.
    """
    for _, command in EVERY:
        for each in command.params:
            for name in [each.envvar] if isinstance(each.envvar, str) else each.envvar or ():
                monkeypatch.setenv(name, "77")

    made = {output.path: output.text for output in reference.build(Links(), group=obs)}

    assert {"docs/reference/cli.md", "docs/reference/settings.md"} == made.keys()
    assert made == {path: (PAGE.parents[2] / path).read_text(encoding="utf-8") for path in made}
