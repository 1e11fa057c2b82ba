"""
What the options about brokers make, and what they refuse.
"""

from __future__ import annotations

import json
import re
import shlex
import ssl

from pathlib import Path
from typing import Any

import click
import pytest

from celery import Celery
from click.testing import CliRunner

from celery_obs.cli.brokers import BrokerOptions, broker_options
from celery_obs.cli.exporter import exporter
from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.probes import probe_for
from celery_obs.state.broker import Broker


DOCS = Path(__file__).parents[3] / "docs" / "how-to"


def brokers(*arguments: str, app: Any = None, **environ: str) -> tuple[Broker, ...]:
    """
    Give a command these arguments, and return the brokers that it gets.
    """
    made: list[tuple[Broker, ...]] = []

    @click.command()
    @broker_options
    def command(brokers: BrokerOptions) -> None:
        made.append(brokers.brokers(app))

    result = CliRunner().invoke(command, arguments, env=environ, catch_exceptions=False)
    assert 0 == result.exit_code, result.output
    return made[0]


def test_urls_come_from_options_environment_and_a_file(tmp_path: Path) -> None:
    """
    Spaces divide brokers in the environment, lines in a file; a ; divides servers of one broker.
    """
    file = tmp_path / "urls"
    file.write_text("redis://:secret@c:1/0\n\nredis://d:1/0\n")

    by_environment = brokers(CELERY_OBS_BROKER_URL="redis://a:1/0;redis://a2:1/0 redis://b:1/0")
    by_file = brokers("--broker-url-file", str(file))

    assert ["a:1/0", "b:1/0"] == [broker.name for broker in by_environment]
    assert ["c:1/0", "d:1/0"] == [broker.name for broker in by_file]


def test_transport_options_are_read_as_json_where_they_are() -> None:
    """
    Lists and numbers are themselves, other words are texts; what is given singly wins.
    """
    (broker,) = brokers(
        "--broker-url=redis://h", "--broker-transport-option=priority_steps=[0, 5]", "--broker-transport-option=sep=|",
        CELERY_OBS_BROKER_TRANSPORT_OPTIONS='{"sep": ":", "global_keyprefix": "shop:"}',
    )  # fmt: skip

    assert {"priority_steps": [0, 5], "sep": "|", "global_keyprefix": "shop:"} == broker.options


def test_a_list_of_options_is_one_for_each_broker() -> None:
    """
    Brokers may differ in how they store their queues.
    """
    found = brokers("--broker-url=redis://a", "--broker-url=redis://b", '--broker-transport-options=[{"sep": "1"}, {"sep": "2"}]')

    assert [{"sep": "1"}, {"sep": "2"}] == [broker.options for broker in found]


def test_what_is_given_wins_over_the_app() -> None:
    """
    Without a URL the app's broker is taken, with its options; single ones are replaced.
    """
    app = Celery("shop", broker="redis://h:1/3", set_as_current=False)
    app.conf.broker_transport_options = {"sep": ":", "global_keyprefix": "shop:"}

    (of_the_app,) = brokers("--broker-transport-option=sep=|", app=app)
    (given,) = brokers("--broker-url=redis://other:1/0", app=app)

    assert ("h:1/3", {"sep": "|", "global_keyprefix": "shop:"}) == (of_the_app.name, of_the_app.options)
    assert ("other:1/0", {}) == (given.name, given.options)


@pytest.mark.parametrize(
    ("url", "names"), [("redis://h", ("ssl_ca_certs", "ssl_cert_reqs")), ("amqps://u:p@h//", ("ca_certs", "cert_reqs"))]
)
def test_tls_is_said_as_the_transport_wants_it(tmp_path: Path, url: str, names: tuple[str, str]) -> None:
    """
    Redis and RabbitMQ have other names for the same.
    """
    ca = tmp_path / "ca.pem"
    ca.touch()

    (broker,) = brokers("--broker-url", url, "--broker-tls-ca-file", str(ca))

    assert dict(zip(names, (str(ca), ssl.CERT_REQUIRED), strict=True)) == broker.arguments["ssl"]


def test_the_password_of_sentinels_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """
    It need not stand on a command line, and is shown nowhere.
    """
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    url = "--broker-url=sentinel://a:1;sentinel://b:1"

    found = [*brokers(url, CELERY_OBS_BROKER_SENTINEL_PASSWORD="hunter2"), *brokers(url, "--broker-sentinel-password-file", str(file))]

    assert ["hunter2"] * 2 == [broker.options["sentinel_kwargs"]["password"] for broker in found]
    assert "hunter2" not in repr(found)


COMMANDS = re.findall(r"^celery-obs (exporter .*)$", (DOCS / "connect-to-your-broker.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_page_are_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every command that the how-to prints is taken by the sidecar, and leads to brokers that it can ask.
    """
    made: list[Any] = []
    monkeypatch.setattr("celery_obs.exporter.server.run", made.append)
    for name in ("/run/secrets/broker-urls", "/etc/ssl/ca.pem", "/etc/ssl/client.pem", "/etc/ssl/client.key"):
        file = tmp_path / Path(name).name
        file.write_text("redis://a:1/0\n")
        line = line.replace(name, str(file))

    result = CliRunner().invoke(exporter, shlex.split(line)[1:], catch_exceptions=False)

    assert (0, 1) == (result.exit_code, len(made)), result.output
    assert made[0].brokers
    for broker in made[0].brokers:
        probe_for(broker).close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--broker-transport-options", json.dumps([{}, {}])),
        ("--broker-transport-options", "{secret"),
        ("--broker-transport-options", "3"),
        ("--broker-transport-option", "secret"),
        ("--broker-tls-ca-file", "/nonexistent/ca.pem"),
        ("--broker-sentinel-password-file", "/nonexistent/password"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(arguments: tuple[str, ...]) -> None:
    """
    It says what was expected, and repeats nothing that may be a secret.
    """
    with pytest.raises(ConfigurationError) as caught:
        brokers("--broker-url=redis://h", *arguments)

    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
