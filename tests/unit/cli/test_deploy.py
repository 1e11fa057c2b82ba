"""
``celery-obs deploy``: write what comes with the package.
"""

from __future__ import annotations

import os
import re
import shlex

from collections.abc import Iterator
from pathlib import Path

import pytest

from click.testing import CliRunner, Result

from celery_obs.cli.group import obs
from celery_obs.rules.shipped import PARTS
from tests.pages import DOCS, lines_of


ALERTS = "deploy/prometheus/rules/alerts-queues.yml"


PAGES = [DOCS.parent / "README.md", *sorted(page for page in DOCS.glob("*/*.md") if page.name != "cli.md")]  # Which has placeholders.


def deploy(*arguments: str | Path) -> Result:
    """
    Run the command.
    """
    return CliRunner().invoke(obs, ["deploy", *map(str, arguments)])


def written(out: Path) -> set[str]:
    """
    Return the files below *out*.
    """
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_one_command_writes_all_that_a_general_user_loads(tmp_path: Path) -> None:
    """
    Rules, dashboards, runbooks and manifests; what is about channels is left out, and said to be.
    """
    result = deploy("--out", tmp_path)

    assert 0 == result.exit_code, result.output
    files = written(tmp_path)
    assert {ALERTS, "deploy/grafana/dashboards/celery-queues.json", "docs/runbooks/CeleryQueueBacklog.md"} <= files
    assert {"deploy/alertmanager/alertmanager.yml", "deploy/kubernetes/base/worker.yaml", "deploy/systemd/celery-beat.service"} <= files
    assert not [path for path in files if "channel" in path.lower() or "compose" in path]
    assert "files about channels left out; --channels writes them." in result.stdout
    assert "change that with --runbooks-url and --grafana-url" in result.stdout


def test_channels_are_written_when_asked_for(tmp_path: Path) -> None:
    """
    They lie beside the rest, in files of their own.
    """
    result = deploy("--out", tmp_path, "--only", "rules,runbooks", "--channels")

    assert 0 == result.exit_code, result.output
    assert {"deploy/prometheus/rules/recording-channels.yml", "docs/runbooks/ChannelSyncStalled.md"} <= written(tmp_path)
    assert "left out" not in result.stdout


def test_parts_can_be_chosen(tmp_path: Path) -> None:
    """
    With commas, or one option a part.
    """
    assert 0 == deploy("--out", tmp_path, "--only", "systemd, runbooks", "--only", "alertmanager").exit_code

    assert {"deploy/systemd", "docs/runbooks", "deploy/alertmanager"} == {"/".join(path.split("/")[:2]) for path in written(tmp_path)}


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("rulez", "unknown part 'rulez'. Expected one or more of rules, aliases, "),
        ("rulez", "Did you mean rules?"),
        (",", "no part named."),
    ],
)
def test_a_part_that_there_is_not_is_refused(tmp_path: Path, named: str, said: str) -> None:
    """
    The message lists the parts, and nothing is written.
    """
    result = deploy("--out", tmp_path, "--only", named)

    assert 2 == result.exit_code
    assert said in result.stderr
    assert set() == written(tmp_path)


def test_a_list_writes_nothing(tmp_path: Path) -> None:
    """
    Each part in a line, with its number of files.
    """
    result = deploy("--out", tmp_path, "--list")

    assert 0 == result.exit_code
    assert list(PARTS) == [line.split()[0] for line in result.stdout.splitlines()]
    assert set() == written(tmp_path)


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    """
    Files that are right are left alone.
    """
    deploy("--out", tmp_path)

    assert deploy("--out", tmp_path).stdout.startswith("0 of ")


def test_a_changed_file_is_not_replaced(tmp_path: Path) -> None:
    """
    Then nothing at all is written: the error names the file and the ways on.
    """
    (tmp_path / ALERTS).parent.mkdir(parents=True)
    (tmp_path / ALERTS).write_text("# ours\n", encoding="utf-8")

    result = deploy("--out", tmp_path)

    assert 2 == result.exit_code
    assert result.stderr.startswith(f"Error: Nothing was written: under {tmp_path}, 1 files differ from those of celery_obs ")
    assert f"{ALERTS}. Replace them with --force," in result.stderr
    assert {ALERTS} == written(tmp_path)
    assert "# ours\n" == (tmp_path / ALERTS).read_text(encoding="utf-8")


def test_force_replaces_a_changed_file(tmp_path: Path) -> None:
    """
    And leaves what is not of ours.
    """
    (tmp_path / ALERTS).parent.mkdir(parents=True)
    (tmp_path / ALERTS).write_text("# ours\n", encoding="utf-8")
    (tmp_path / "deploy/prometheus/rules/mine.yml").write_text("groups: []\n", encoding="utf-8")

    assert 0 == deploy("--out", tmp_path, "--force").exit_code

    assert "CeleryQueueBacklog" in (tmp_path / ALERTS).read_text(encoding="utf-8")
    assert "deploy/prometheus/rules/mine.yml" in written(tmp_path)


def test_programs_can_be_run(tmp_path: Path) -> None:
    """
    A script keeps its right to be run; a configuration has none.
    """
    deploy("--out", tmp_path, "--only", "scripts,prometheus", "--channels")

    assert os.access(tmp_path / "deploy/scripts/daily-health-check.sh", os.X_OK)
    assert not (tmp_path / "deploy/prometheus/prometheus.yml").stat().st_mode & 0o111


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["careful", "forced"])
def test_a_place_where_nothing_can_be_written_is_one_paragraph(tmp_path: Path, force: tuple[str, ...]) -> None:
    """
    A file where a folder has to be: the error says so, without a traceback.
    """
    (tmp_path / "deploy").write_text("in the way", encoding="utf-8")

    result = deploy("--out", tmp_path, *force)

    assert 2 == result.exit_code
    assert result.stderr.startswith(f"Error: Cannot write {tmp_path}/deploy/")


def test_alerts_lead_where_one_says(tmp_path: Path) -> None:
    """
    Addresses are written into the rules, and an address that is none is refused.
    """
    addresses = ("--runbooks-url", "https://wiki.example.org/runbooks", "--grafana-url", "https://grafana.example.org")
    result = deploy("--out", tmp_path, "--only", "rules", *addresses)
    refused = deploy("--out", tmp_path, "--grafana-url", "grafana")

    assert "Alerts link to" not in result.stdout
    assert "https://wiki.example.org/runbooks/CeleryQueueBacklog.md" in (tmp_path / ALERTS).read_text(encoding="utf-8")
    assert (2, True) == (refused.exit_code, refused.stderr.startswith("Error: The URL of Grafana is 'grafana'."))


def test_numbers_of_ones_own_can_be_laid_over_it(tmp_path: Path) -> None:
    """
    `generate` writes over the same files, and misses no runbook on channels in a folder without any.
    """
    (tmp_path / "mine.yml").write_text("alerts:\n  CeleryQueueBacklog: {threshold: 4321}\n", encoding="utf-8")
    deploy("--out", tmp_path)

    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path), "--alerts", str(tmp_path / "mine.yml")])

    assert 0 == result.exit_code, result.output
    assert "celery_queue_depth) > 4321" in (tmp_path / ALERTS).read_text(encoding="utf-8")


def commands_on_the_pages() -> Iterator[str]:
    """
    Go through the commands that README and pages have their readers type, in blocks and in sentences.
    """
    for page in PAGES:
        yield from re.findall(r"celery-obs deploy(?: [^`\n]*)?(?=[`\n])", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", sorted(set(commands_on_the_pages())))
def test_the_commands_on_the_pages_work(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As they stand there, in an empty folder.
    """
    monkeypatch.chdir(tmp_path)

    result = deploy(*shlex.split(command)[2:])

    assert 0 == result.exit_code, result.output


def test_what_the_page_copies_has_been_written(tmp_path: Path) -> None:
    """
    The page on Prometheus, Alertmanager and Grafana copies files that its first command wrote.
    """
    deploy("--out", tmp_path)
    copies = [line for line in lines_of((DOCS / "how-to/watch-it.md").read_text(encoding="utf-8")) if line.startswith("cp ")]
    sources = [word for line in copies for word in line.split() if word.startswith("deploy/")]

    assert sources
    assert not [source for source in sources if not list(tmp_path.glob(source.removesuffix("/.")))]
