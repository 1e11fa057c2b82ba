"""
Settings: where they come from, what wins, and what is said when one is wrong.
"""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celery import Celery
from celery.utils.serialization import jsonify
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.encoding import safe_repr

from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.metrics_dir import default_metrics_dir, prepare_metrics_dir
from celery_obs.settings import SETTINGS, Settings, hidden, load
from celery_obs.settings.reference import reference
from celery_obs.telemetry.redaction import redact


DIRECTORY = {"metrics_dir": "/run/celery_obs"}


def loaded(conf: dict[Any, Any] | None = None, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    """
    Load settings with a fixed directory, unless the test says otherwise.
    """
    return load(conf or {}, {"CELERY_OBS_METRICS_DIR": "/run/celery_obs", **(environ or {})}, overrides)


def refusal(conf: dict[Any, Any] | None = None, environ: dict[str, str] | None = None, **overrides: Any) -> str:
    """
    Load settings that have to be refused, and return the message.
    """
    with pytest.raises(ConfigurationError) as caught:
        loaded(conf, environ, **overrides)
    return str(caught.value)


def test_the_later_source_wins() -> None:
    """
    Dict, then key, then environment, then argument.
    """
    conf: dict[str, Any] = {"obs_label_limit": 20, "celery_obs": {"label_limit": 10}}
    environ = {"CELERY_OBS_LABEL_LIMIT": "30"}

    assert 10 == loaded({"celery_obs": {"label_limit": 10}}).label_limit
    assert 20 == loaded(conf).label_limit
    assert 30 == loaded(conf, environ).label_limit
    assert 40 == loaded(conf, environ, label_limit=40).label_limit


def test_everything_has_a_default_but_the_directory_which_is_the_users_own(tmp_path: Path) -> None:
    """
    Nothing has to be configured.
    """
    settings = load({}, {"TMPDIR": str(tmp_path)}, {})

    assert tmp_path / f"celery_obs-{os.geteuid()}" == settings.metrics_dir
    assert (True, 200, None, 65535, 5.0, ()) == (
        settings.metrics,
        settings.label_limit,
        settings.lane_limit,
        settings.gauge_limit,
        settings.heartbeat_interval,
        settings.ignore_tasks,
    )


@pytest.mark.parametrize(
    ("conf", "expected"),
    [({"CELERY_OBS_LOGS": False}, False), ({"CELERY_OBS": {"logs": False}}, False), ({"broker_url": "x", 3: 4}, True)],
    ids=["key", "dict", "others"],
)
def test_django_spells_the_keys_in_capitals(conf: dict[Any, Any], expected: bool) -> None:
    """
    With namespace="CELERY" Celery lists our keys as Django's settings spell them.
    """
    assert expected == loaded(conf).logs


def test_an_empty_variable_counts_as_not_set() -> None:
    """
    A compose file's ``CELERY_OBS_REDIS_URL=`` means none.
    """
    assert loaded(environ={"CELERY_OBS_REDIS_URL": ""}).redis_url is None


@given(st.sampled_from(["1", "true", "yes", "on", "0", "false", "no", "off"]), st.sampled_from([str.lower, str.upper, str.title]))
def test_switches_are_read_from_words_of_any_case(word: str, spell: Any) -> None:
    """
    What people write for yes and no is understood.
    """
    assert (word in {"1", "true", "yes", "on"}) == loaded(environ={"CELERY_OBS_METRICS": spell(word)}).metrics


@given(st.lists(st.floats(0.001, 1e6), min_size=1, unique=True))
def test_bucket_edges_survive_the_trip_through_the_environment(edges: list[float]) -> None:
    """
    Edges written with commas are the edges that are used.
    """
    edges.sort()

    settings = loaded(environ={"CELERY_OBS_RUNTIME_BUCKETS": ", ".join(map(repr, edges))})

    assert tuple(edges) == settings.runtime_buckets


@given(
    st.dictionaries(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))),
    st.dictionaries(st.sampled_from([s.variable for s in SETTINGS]), st.text()),
)
def test_whatever_is_configured_loads_or_is_refused_with_a_sentence(inner: dict[str, Any], environ: dict[str, str]) -> None:
    """
    No input makes anything but settings or a ConfigurationError.
    """
    try:
        settings = load({"celery_obs": inner}, environ, {})
    except ConfigurationError as refused:
        message = str(refused)
    else:
        message = "The setting "
        assert settings == load({"celery_obs": inner}, environ, {})

    assert message.startswith(("The setting ", "Unknown setting "))


@given(st.sampled_from(SETTINGS), st.one_of(st.binary(), st.complex_numbers(), st.just(object())))
def test_a_value_of_a_wrong_type_is_refused_by_name_with_what_was_expected(setting: Any, value: Any) -> None:
    """
    Every setting says what it expects.
    """
    if setting.name == "metrics_dir" and isinstance(value, bytes):
        value = 3

    message = refusal(**{setting.name: value})

    assert message.startswith(f"The setting {setting.name} is ")
    assert "(argument of setup())" in message
    assert f"Expected {setting.kind.expected}" in message


def test_an_unknown_key_is_refused_and_the_right_one_proposed() -> None:
    """
    A typo is told, with place, value and proposal.
    """
    message = refusal({"celery_obs": {"metric_dir": "/run/obs"}})

    assert (
        "Unknown setting 'metric_dir' (celery_obs dict in Celery's configuration); its value is '/run/obs'. Did you mean metrics_dir?"
    ) == message


def test_an_unknown_key_that_resembles_nothing_is_answered_with_the_list() -> None:
    """
    Where nothing is near, all names are shown.
    """
    assert "Expected one of: metrics_dir, redis_url" in refusal({"obs_zzz": 1})


@pytest.mark.parametrize("variable", ["CELERY_OBS_LABEL_LIMTI", "CELERY_OBS_IMAGE_TAG", "CELERY_OBS_LEASE_PERIOD", "CELERY_OBS_PORT"])
def test_a_variable_that_is_no_setting_is_left_alone(variable: str) -> None:
    """
    It is another program's, the option of a command, or a typing error, which is told and stops nothing.
    """
    assert loaded() == loaded(environ={variable: "tcp://10.0.0.1:80"})


@pytest.mark.parametrize("text", ["maybe", "2", "ja"])
def test_a_switch_that_is_neither_yes_nor_no_is_refused(text: str) -> None:
    """
    Guessing what was meant would be worse.
    """
    message = refusal(environ={"CELERY_OBS_LOGS": text})

    assert f"The setting logs is '{text}' (environment variable CELERY_OBS_LOGS). Expected a boolean" in message


def test_a_dict_that_is_none_is_refused() -> None:
    """
    The key celery_obs holds a dict.
    """
    assert "celery_obs in Celery's configuration is 'yes'. Expected a dict" in refusal({"celery_obs": "yes"})


def test_a_password_is_shown_nowhere() -> None:
    """
    Neither repr nor an error gives a secret away.
    """
    settings = loaded(redis_url="redis://:hunter2@cache:6379/0")

    assert "redis://:***@cache:6379/0" in repr(settings)
    for message in (
        refusal({"celery_obs": {"redis_ur": "redis://:hunter2@cache"}}),
        refusal({"celery_obs": {"redis_password": "hunter2"}}),
        refusal(redis_url="http://me:hunter2@cache"),
    ):
        assert "hunter2" not in message
    assert "hunter2" not in repr(settings)


@given(st.text("abc:@/#?%é", min_size=1))
def test_a_password_is_masked_whatever_it_contains(noise: str) -> None:
    """
    An unescaped @ or / in a password does not uncover the rest of it.
    """
    assert "SECRET" not in redact(f"cannot reach redis://user:{noise}SECRET@host:6379/0 now")


def test_the_default_directory_prefers_the_users_runtime_directory(tmp_path: Path) -> None:
    """
    Where the system gives each user a private directory, that is the place.
    """
    assert tmp_path / "celery_obs" == default_metrics_dir({"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": "/elsewhere"})
    assert Path(f"/elsewhere/celery_obs-{os.geteuid()}") == default_metrics_dir(
        {"XDG_RUNTIME_DIR": str(tmp_path / "missing"), "TMPDIR": "/elsewhere"}
    )


def test_the_default_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """
    No other user can look into it, or put something there.
    """
    path = prepare_metrics_dir(default_metrics_dir({"TMPDIR": str(tmp_path)}))

    assert 0o700 == stat.S_IMODE(path.stat().st_mode)
    assert path == prepare_metrics_dir(path)


def test_a_planted_link_is_refused(tmp_path: Path) -> None:
    """
    A symbolic link at the default place may be a trap.
    """
    (tmp_path / "theirs").mkdir()
    place = default_metrics_dir({"TMPDIR": str(tmp_path)})
    place.symlink_to(tmp_path / "theirs")

    with pytest.raises(ConfigurationError, match=r"is a symbolic link in a directory that all users share\. Another user"):
        prepare_metrics_dir(place)


def test_a_default_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """
    What others can write to is not ours alone.
    """
    place = default_metrics_dir({"TMPDIR": str(tmp_path)})
    place.mkdir()
    place.chmod(0o777)

    with pytest.raises(ConfigurationError, match=r"writable by others .mode 0777.*chmod 700"):
        prepare_metrics_dir(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can give files away.")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """
    Another user's directory at the default place is not used.
    """
    place = default_metrics_dir({"TMPDIR": str(tmp_path)})
    place.mkdir(mode=0o700)
    os.chown(place, 12345, 12345)

    with pytest.raises(ConfigurationError, match="belongs to uid 12345 and not to uid 0"):
        prepare_metrics_dir(place)


def test_a_directory_that_a_person_names_is_made_with_its_parents(tmp_path: Path) -> None:
    """
    A named directory need not exist.
    """
    assert prepare_metrics_dir(tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """
    A file is no directory, and we say so.
    """
    (tmp_path / "obs").touch()

    with pytest.raises(ConfigurationError, match=f"CELERY_OBS_METRICS_DIR is {tmp_path}/obs, which is not a directory"):
        prepare_metrics_dir(tmp_path / "obs")


def test_a_directory_that_cannot_be_made_is_refused_with_the_user_and_the_reason() -> None:
    """
    The message says who could not do what, and what to do.
    """
    with pytest.raises(ConfigurationError, match=rf"cannot be made by uid {os.geteuid()} \(.+\)\. Create it before the worker starts\."):
        prepare_metrics_dir(Path("/proc/1/obs"))


def test_a_directory_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The message names the directory and the user.
    """
    # Root may write anywhere, so the system's answer is stubbed.
    monkeypatch.setattr(os, "access", lambda *args: False)

    with pytest.raises(ConfigurationError, match=f"which is not writable by uid {os.geteuid()}. Create it before the worker starts"):
        prepare_metrics_dir(tmp_path)


def test_the_reference_page_of_the_settings_is_up_to_date() -> None:
    """
    The page lists what the code has; renew it with celery-obs generate.
    """
    page = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"

    assert reference() == page.read_text(encoding="utf-8")


def test_settings_need_no_celery() -> None:
    """
    The sidecar and the probes read settings without loading Celery.
    """
    code = "import sys, celery_obs.settings; print(sorted({'celery', 'kombu', 'click', 'redis'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]\n" == done.stdout


def test_log_settings_are_read_from_the_environment() -> None:
    """
    Levels, sampling and names of secrets can be written in one line each.
    """
    environ = {
        "CELERY_OBS_LOG_FORMAT": "text",
        "CELERY_OBS_LOG_LEVELS": "kombu=warning, proj.api=DEBUG",
        "CELERY_OBS_LOG_SAMPLING": "proj.ping=0.01,reports.*=1",
        "CELERY_OBS_REDACT_KEYS": "card_pin, passport",
    }

    settings = loaded(environ=environ)

    assert "console" == settings.log_format  # What the sidecar calls it, which reads the same variable.
    assert {"kombu": "WARNING", "proj.api": "DEBUG"} == settings.log_levels
    assert {"proj.ping": 0.01, "reports.*": 1.0} == settings.log_sampling
    assert ("card_pin", "passport") == settings.redact_keys


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("LOG_FORMAT", "xml", "Expected json, console or auto."),
        ("LOG_LEVELS", "kombu=LOUD", "Expected a dict from logger to DEBUG"),
        ("LOG_LEVELS", "kombu", "Expected a dict from logger to DEBUG"),
        ("LOG_SAMPLING", "proj.ping=2", "Expected a dict from task name pattern to a number from 0 to 1"),
        ("LOG_SAMPLING", "proj.ping=often", "Expected a dict from task name pattern to a number from 0 to 1"),
    ],
)
def test_wrong_log_settings_are_refused(variable: str, text: str, expected: str) -> None:
    """
    Each says what it expects.
    """
    assert expected in refusal(environ={f"CELERY_OBS_{variable}": text})


SENTRY_DSN = "https://0c5ffee@sentry.example.com/42"
REDIS_URL = "redis://:swordfish@localhost:6379/0"


def configured(namespace: str | None = None, **conf: Any) -> Celery:
    """
    Return an app with this configuration, as far as ours is concerned hidden.
    """
    app = Celery("shop", set_as_current=False)
    app.config_from_object(conf, namespace=namespace)
    for key, value in hidden(app.conf).items():
        app.conf[key] = value
    return app


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(lambda: configured(celery_obs={"sentry_dsn": SENTRY_DSN, "redis_url": REDIS_URL, "label_limit": 20}), id="dict"),
        pytest.param(lambda: configured(obs_sentry_dsn=SENTRY_DSN, obs_redis_url=REDIS_URL, obs_label_limit=20), id="keys"),
        pytest.param(
            lambda: configured("CELERY", CELERY_OBS_SENTRY_DSN=SENTRY_DSN, CELERY_OBS_REDIS_URL=REDIS_URL, CELERY_OBS_LABEL_LIMIT=20),
            id="keys in Django",
        ),
        pytest.param(
            lambda: configured("CELERY", CELERY_OBS={"sentry_dsn": SENTRY_DSN, "redis_url": REDIS_URL, "label_limit": 20}),
            id="dict in Django",
        ),
    ],
)
def test_who_shows_the_configuration_shows_no_secret_of_ours(app: Callable[[], Celery]) -> None:
    """
    ``celery report`` and ``inspect conf`` show that there is a DSN and a Redis; the settings still have them.
    """
    shown = app()

    reported = shown.bugreport()
    inspected = json.dumps(jsonify(shown.conf.table(), unknown_type_filter=safe_repr))
    settings = load(shown.conf, {}, DIRECTORY)
    for text in (reported, inspected):
        assert (False, False, True, True) == tuple(word in text for word in ("0c5ffee", "swordfish", "redis://:***@localhost", "20"))
    assert (SENTRY_DSN, REDIS_URL, 20) == (settings.sentry_dsn, settings.redis_url, settings.label_limit)
    assert {} == hidden(shown.conf)


def test_what_hides_a_secret_survives_the_way_to_another_process() -> None:
    """
    Spawned pool processes get the configuration pickled.
    """
    app = configured(celery_obs={"sentry_dsn": SENTRY_DSN})

    assert SENTRY_DSN == load(pickle.loads(pickle.dumps(dict(app.conf))), {}, DIRECTORY).sentry_dsn  # noqa: S301 -- our own.


def test_a_misspelt_secret_is_not_shown_either() -> None:
    """
    The message names what was probably meant, and not what it holds.
    """
    message = refusal({"celery_obs": {"sentry_dns": SENTRY_DSN}})

    assert (True, False) == ("Did you mean sentry_dsn?" in message, SENTRY_DSN in message)
