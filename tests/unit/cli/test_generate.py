"""
``celery-obs generate``: write, or check.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from click.testing import CliRunner

from celery_obs.cli.group import obs
from celery_obs.rules.dashboards import pages as dashboards
from celery_obs.rules.render import NotBuiltError
from celery_obs.rules.shipped import is_about_channels


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Everything, written once.
    """
    out = tmp_path_factory.mktemp("out")
    result = CliRunner().invoke(obs, ["generate", "--channels", "--out", str(out)])
    assert 0 == result.exit_code, result.output
    return out


def test_what_was_written_passes_the_check(generated: Path) -> None:
    """
    Writing and checking agree.
    """
    result = CliRunner().invoke(obs, ["generate", "--channels", "--check", "--out", str(generated)])

    assert 0 == result.exit_code
    assert "files are up to date." in result.stdout


def test_a_second_run_writes_nothing(generated: Path) -> None:
    """
    Files that are right are left alone.
    """
    assert CliRunner().invoke(obs, ["generate", "--channels", "--out", str(generated)]).stdout.startswith("0 of ")


def test_what_is_about_channels_is_written_when_it_is_asked_for(generated: Path, tmp_path: Path) -> None:
    """
    An app without channels sees no rule, no dashboard and no resource about them, and is told how to have them.
    """
    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path)])

    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    everything = {path.relative_to(generated).as_posix() for path in generated.rglob("*") if path.is_file()}
    assert made < everything
    assert all(is_about_channels(path) for path in everything - made)
    assert not any(is_about_channels(path) for path in made)
    assert f"{len(everything - made)} files about channels left out; --channels writes them.\n" in result.stdout
    rules = "".join(path.read_text() for path in (tmp_path / "deploy").rglob("*.y*ml") if "aliases" not in path.parts)
    assert "channel_" not in rules
    assert "alerts-syncs" not in rules
    assert 0 == CliRunner().invoke(obs, ["generate", "--check", "--out", str(tmp_path)]).exit_code


def test_files_about_channels_that_are_left_as_they_were_are_told(tmp_path: Path) -> None:
    """
    Who forgets the option after an upgrade hears that what is there is old.
    """
    CliRunner().invoke(obs, ["generate", "--channels", "--out", str(tmp_path)])

    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path)])

    assert " of them are there from before and were not updated." in result.stdout


def test_the_check_names_what_differs(tmp_path: Path) -> None:
    """
    It writes nothing, says which file and what to do, and exits with 1.
    """
    result = CliRunner().invoke(obs, ["generate", "--check", "--out", str(tmp_path)])

    assert 1 == result.exit_code
    assert "deploy/prometheus/rules/recording.yml is missing." in result.stderr
    assert "Run celery-obs generate, and commit what it writes." in result.stderr
    assert [] == list(tmp_path.iterdir())


def test_links_and_objectives_can_be_ones_own(tmp_path: Path) -> None:
    """
    Alerts lead to where this team keeps its pages.
    """
    (tmp_path / "mine.yml").write_text("slos: []\n", encoding="utf-8")
    arguments = ["--runbooks-url", "https://r.example.org", "--grafana-url", "https://g.example.org", "--slo", str(tmp_path / "mine.yml")]

    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path), *arguments])

    rules = tmp_path / "deploy" / "prometheus" / "rules"
    assert 0 == result.exit_code, result.output
    assert "https://r.example.org/Watchdog.md" in (rules / "alerts-ourselves.yml").read_text(encoding="utf-8")
    assert "groups: []" in (rules / "slo.yml").read_text(encoding="utf-8")


def test_a_mistake_is_one_paragraph(tmp_path: Path) -> None:
    """
    No traceback for who mistyped.
    """
    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path), "--grafana-url", "grafana"])

    assert 2 == result.exit_code
    assert result.stderr.startswith("Error: The URL of Grafana is 'grafana'.")


def test_what_cannot_be_written_here_is_said_and_the_rest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who lacks Grafana's SDK gets everything but the dashboards, and hears how to get these; a check passes over them likewise.
    """
    monkeypatch.setattr(dashboards, "_writer", _lacking)

    written = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path)])
    checked = CliRunner().invoke(obs, ["generate", "--check", "--out", str(tmp_path)])

    assert (0, 0) == (written.exit_code, checked.exit_code)
    assert ("No SDK here.\n", "No SDK here.\n") == (written.stderr, checked.stderr)
    assert (tmp_path / "deploy/prometheus/rules/recording.yml").exists()
    assert not (tmp_path / dashboards.FOLDER).exists()


def _lacking() -> NoReturn:
    message = "No SDK here."
    raise NotBuiltError(message)


def test_thresholds_can_be_ones_own(tmp_path: Path) -> None:
    """
    Rules and the list of alerts have the numbers of the team.
    """
    (tmp_path / "mine.yml").write_text(
        "alerts:\n  CeleryQueueBacklog: {threshold: 4321, except: [{queue: bulk, threshold: 9876}, {queue: slow, enabled: false}]}\n"
        "  SLOErrorBudgetExhausted: off\n",
        encoding="utf-8",
    )

    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path), "--alerts", str(tmp_path / "mine.yml")])

    assert 0 == result.exit_code, result.output
    assert "celery_queue_depth) > 4321" in (tmp_path / "deploy/prometheus/rules/alerts-queues.yml").read_text(encoding="utf-8")
    assert "SLOErrorBudgetExhausted" not in (tmp_path / "deploy/prometheus/rules/slo.yml").read_text(encoding="utf-8")
    reference = (tmp_path / "docs/reference/alerts.md").read_text(encoding="utf-8")
    assert "| warning | 4321; 9876 for queue bulk; off for queue slow |  | 15m |" in reference
    assert "SLOErrorBudgetExhausted" not in reference


def test_a_threshold_that_cannot_be_writes_nothing(tmp_path: Path) -> None:
    """
    A mistake is told with its line before anything is replaced.
    """
    (tmp_path / "mine.yml").write_text("alerts:\n  CeleryQueueBacklog:\n    threshold: lots\n", encoding="utf-8")

    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path / "out"), "--alerts", str(tmp_path / "mine.yml")])

    assert 2 == result.exit_code
    assert result.stderr.startswith(f"Error: {tmp_path / 'mine.yml'}, line 3: The threshold of CeleryQueueBacklog: There is 'lots'.")
    assert not (tmp_path / "out").exists()


def test_an_alert_whose_runbook_is_missing_is_refused(tmp_path: Path) -> None:
    """
    Where runbooks are, each alert has to have one.
    """
    (tmp_path / "docs" / "runbooks").mkdir(parents=True)

    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path)])

    assert 2 == result.exit_code
    assert result.stderr.startswith("Error: The alert CeleryTaskFailureRateHigh (celery_obs/areas/tasks/alerts.py, line ")
    assert "docs/runbooks/CeleryTaskFailureRateHigh.md is missing." in result.stderr


GOOD = "slos:\n  - name: a\n    description: d\n    objective: 99\n    events: {metric: channel_sync_total, bad: {status: failure}}\n"


@pytest.mark.parametrize(
    ("option", "text", "refusal"),
    [
        ("--slo", GOOD.replace("99", "100"), ", line 4: The objective of a is 100 percent. Expected more than 0 and less than 100."),
        (
            "--slo",
            GOOD.replace("99", "90"),
            ", line 4: The objective of a is 90 percent over 30 days, and its alert on 1h would need 144 percent",
        ),
        (
            "--slo",
            GOOD.replace("channel_sync_total, bad: {status: failure}", "channel_sync_duration_seconds, below: 7"),
            ", line 5: The metric channel_sync_duration_seconds has no bucket that ends at 7, so how many were within that is not known.",
        ),
        ("--slo", GOOD.replace("sync_total", "sink_total"), ", line 5: There is no metric 'channel_sink_total' in the catalogue."),
        ("--slo", GOOD + GOOD[6:], ", line 6: The name a is taken by the objective in line 2. Give another one."),
        ("--slo", GOOD.replace("99", "99\n    period: 90d"), ", line 5: The objective a looks back 90 days, and Prometheus keeps 45,"),
        (
            "--alerts",
            "alerts: {CeleryQueueBaklog: off}\n",
            ", line 1: There is no alert 'CeleryQueueBaklog'. Did you mean CeleryQueueBacklog?",
        ),
        (
            "--alerts",
            "alerts:\n  ChannelWebhookSlow: {threshold: 5s}\n",
            ", line 2: The threshold of ChannelWebhookSlow: It is 5s. Expected less than 5s",
        ),
    ],
)
def test_what_cannot_work_is_one_paragraph_with_the_line(tmp_path: Path, option: str, text: str, refusal: str) -> None:
    """
    Its author learns the file, the line, and what was expected; and nothing is replaced.
    """
    (tmp_path / "mine.yml").write_text(text, encoding="utf-8")

    result = CliRunner().invoke(obs, ["generate", "--out", str(tmp_path / "out"), option, str(tmp_path / "mine.yml")])

    assert 2 == result.exit_code
    assert result.stderr.startswith(f"Error: {tmp_path / 'mine.yml'}{refusal}")
    assert 1 == len(result.stderr.splitlines())
    assert not (tmp_path / "out").exists()
