"""
Passwords are kept out of what people read, whatever they are made of and whatever quotes them.
"""

from __future__ import annotations

import re
import traceback

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from kombu import Connection

from celery_obs.cli.group import obs
from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.probes import probe_for
from celery_obs.rules.yaml_reader import compose
from celery_obs.runtime.hub import ErrorReporter
from celery_obs.state.broker import Broker, of_url, reach, reason_of
from celery_obs.state.connection import connect
from celery_obs.telemetry.redaction import Redactor, reason, redact, redact_url, without_secrets
from tests.strategies import awkward_passwords


SHAPES = [
    "redis://:{}@cache.local:6379/0",
    "rediss://user:{}@cache.local:6379/0?ssl_cert_reqs=none",
    "redis://{}@cache.local:6379/0",
    "redis+cluster://user:{}@a.local:1,b.local:2",
    "redis+socket://:{}@/run/redis.sock",
    "redis://:{}@a.local:1/0;redis://:{}@b.local:2/0",
    "sentinel://:{}@a.local:26379;sentinel://b.local:26379/0",
    "sentinel://a.local:26379/0?sentinel_password={}",
    "amqp://user:{}@mq.local:5672//",
    "amqps://user:{}@mq.local/host?heartbeat=3",
    "sqs://user:{}@",
    "https://{}@sentry.local/42",
    "https://user:{}@collector.local:4318/v1",
]
"""
What people write, with their password in the place of the braces.
"""


def pieces(password: str) -> list[str]:
    """
    What of a password must not be found: the runs of letters that are planted in it.
    """
    return re.findall(r"Zq[a-z]{4}", password)


def fitting(password: str, shape: str) -> str:
    """
    Leave away what gives *password* another meaning in *shape*: what ends a value in a query, and what divides a user from a password.
    """
    before = shape.partition("{}")[0]
    if "?" in before:
        return re.sub(r"[&#\s@;]", "", password)
    return password if ":" in before.partition("://")[2] else password.replace(":", "")


@given(awkward_passwords(), st.sampled_from(SHAPES), st.booleans())
@example("Zqaaaa;Zqbbbb;Zqcccc", SHAPES[0], False)
@example("12/Zqaaaa", SHAPES[1], False)
@example("Zqaaaa://Zqbbbb", SHAPES[0], False)
def test_a_url_is_shown_without_its_password(password: str, shape: str, escaped: bool) -> None:
    """
    Neither `redact_url` nor a broker shows a piece of it, escaped or not.
    """
    url = shape.replace("{}", quote(password, safe="") if escaped else fitting(password, shape))

    for shown in (redact_url(url), repr(of_url(url)), of_url(url).name):
        assert not [piece for piece in pieces(password) if piece in shown]


@given(st.sampled_from(SHAPES), st.sampled_from(["swordfish", "sword%3Bfish"]))
def test_what_is_no_secret_in_a_url_stays(shape: str, password: str) -> None:
    """
    Host, port, database and harmless options are there for who has to find the server.
    """
    shown = redact_url(shape.replace("{}", password))

    assert urlsplit(shape.partition(";")[0]).scheme == urlsplit(shown.partition(";")[0]).scheme
    assert re.findall(r"[a-z]+\.local(?::\d+)?", shape) == re.findall(r"[a-z]+\.local(?::\d+)?", shown)
    assert shown == redact_url(shown)


@given(
    awkward_passwords(),
    st.sampled_from(["redis://user:{}@h:1/0", "amqp://user:{}@h//", "sentinel://:{}@h:1"]),
    st.sampled_from(["{}", "'{}'", "to {}, now"]),
)
@example("a Zqaaaa", "amqp://user:{}@h//", "{}")
def test_a_url_in_a_sentence_is_shown_without_its_password(password: str, shape: str, sentence: str) -> None:
    """
    Also with spaces and whatever else in it; only what looks as the end of the URL, because a number and a space stand there, needs to be known.
    """
    url = shape.replace("{}", password)
    text = sentence.replace("{}", url)

    assert not [piece for piece in pieces(password) if piece in redact(text, [password])]
    if not re.match(r"\d|\W", password):
        assert not [piece for piece in pieces(password) if piece in redact(text)]


@pytest.mark.parametrize(
    "text",
    [
        "redis://host:6379 w1@test is gone",
        "see https://example.com/docs, or ask ops@example.com",
        "connected to amqp://host:5672// as w1@test",
        "sqla+sqlite:///tmp/broker.db",
        "redis://[::1]:6379/0",
    ],
)
def test_a_url_without_a_password_stays(text: str) -> None:
    """
    A node's name behind a URL is no login.
    """
    assert text == redact(text)


@given(awkward_passwords(), st.sampled_from(SHAPES))
def test_no_refusal_of_a_url_quotes_the_password(password: str, shape: str) -> None:
    """
    Whatever kombu, redis-py, Python or we have to say against a URL, none of its password is in it.
    """
    url = shape.replace("{}", fitting(password, shape))

    for ask in (lambda: connect(url), lambda: probe_for(url), lambda: Connection(url).info()):
        told = _words_of(ask, url)

        assert not [piece for piece in pieces(password) if piece in told]


@pytest.mark.parametrize(
    "url", ["redis://user:PLAN;TED@h:1/0", "redis://user:12/PLANTED@h", "amqp://user:PLAN?TED@h//", "amqp://u:PL AN/TED@h"]
)
def test_kombus_own_words_are_known(url: str) -> None:
    """
    It quotes a part of the password in the place of a port.
    """
    told = reach(of_url(url), within=0.1) if url.startswith("amqp") else _refusal(url)

    assert told
    assert not re.search("PLAN|TED", told)


def _refusal(url: str) -> str:
    return _words_of(lambda: connect(url).ping(), url)


def _words_of(ask: Callable[[], object], url: str) -> str:
    try:
        ask()
    except Exception as error:  # noqa: BLE001 -- any of them.
        return str(error) if isinstance(error, ConfigurationError) else reason_of(error, url)
    return ""


@pytest.mark.parametrize(
    "words",
    [
        "Port could not be cast to integer value as 'PLANTED'",
        "unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'PLANTED' ",
        "netloc 'user:PLANTED@℀' contains invalid characters under NFKC normalization",
        "No master found for 'm' : Redis<ConnectionPool<Connection(host=h,username=None,password=PLANTED,db=0)>> - AuthenticationError()",
        "No master found for 'm' : <Redis(<ConnectionPool(<Connection(host=h,password=of, PLANTED; words,db=0)>)>)>",
        "found undefined alias 'PLANTED'\n  in line 1",
        "could not determine a constructor for the tag '!PLANTED'",
        "invalid_client: client_secret=PLANTED is wrong",
        "redis://user:PLANTED",
    ],
)
def test_what_libraries_quote_is_known(words: str) -> None:
    """
    Python, Redis, redis-py and OAuth libraries quote what they were given; that is hidden, and the rest of their words stays.
    """
    for told in (redact(words), reason(ValueError(words)), Redactor().text(words)):
        assert "PLANTED" not in told
        assert words[:7] == told[:7]


def test_what_an_error_is_about_is_hidden_in_it() -> None:
    """
    Who knows the URL that an error is about says so, and no piece of its password is told.
    """
    broker = Broker(arguments={"transport": "sentinel", "transport_options": {"sentinel_kwargs": {"password": "of,the sentinels"}}})

    assert "host '***' and *** unknown" == reason(ValueError("host 'PLAN' and TED unknown"), "redis://u:PLAN;TED@h")
    assert "password=***, 1" == reason_of(ValueError("password=of,the sentinels, 1"), broker)
    assert "ValueError" == reason(ValueError())


def test_a_traceback_is_logged_without_the_secrets_of_its_errors(caplog: pytest.LogCaptureFixture) -> None:
    """
    Its frames stay, and so do errors that tell no secret; the words of one that does, and of its causes, are masked.
    """
    caught: Exception
    try:
        try:
            raise KeyError("token=PLANTED")
        except KeyError as cause:
            raise RuntimeError("amqp://u:PLANTED@h") from cause
    except RuntimeError as error:
        caught = error
    harmless = ValueError("nothing to hide")

    ErrorReporter()(caught, component="test")

    told = "".join(traceback.format_exception(without_secrets(caught)))
    assert harmless is without_secrets(harmless)
    assert 'raise RuntimeError("amqp' in told
    assert ("RuntimeError: amqp://u:***@h" in told, "KeyError: token=***" in told.replace("'", "")) == (True, True)
    assert "amqp://u:***@h" in caplog.text
    assert not re.search(r"Error: .*PLANTED", told + caplog.text)


def test_an_error_that_is_its_own_cause_is_logged() -> None:
    """
    A chain without an end has an end here.
    """
    error = ValueError("password=PLANTED")
    error.__context__ = other = KeyError("x")
    other.__context__ = error

    assert "PLANTED" not in "".join(traceback.format_exception(without_secrets(error)))


@pytest.mark.parametrize(
    "text", ["password: *PLANTED", 'a: "\\qPLANTED"', "a: &PLANTED 1\nb: &PLANTED 2\n*PLANTED", "a: 'PLANTED", "[" * 5000]
)
def test_a_file_that_is_no_yaml_is_refused_without_its_content(tmp_path: Path, text: str) -> None:
    """
    The place and the problem are told; what YAML quotes is a password as often as not.
    """
    path = tmp_path / "objectives.yml"
    path.write_text(text)

    with pytest.raises(ConfigurationError) as refused:
        compose(path, what="objectives", option="--slo", expected="a list")

    assert str(path) in str(refused.value)
    assert "PLANTED" not in str(refused.value)


def test_a_command_that_is_typed_wrongly_does_not_quote_a_password() -> None:
    """
    A URL that stands where none is expected is told without its password.
    """
    answer = CliRunner().invoke(obs, ["doctor", "redis://user:PLAN;TED x@cache.local/0"])

    assert 2 == answer.exit_code
    assert "redis://user:***@cache.local/0" in answer.output
    assert not re.search("PLAN|TED", answer.output)
