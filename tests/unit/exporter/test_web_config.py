"""
What a web configuration file may say, and what is answered to one that says something else.
"""

from __future__ import annotations

import logging
import os
import ssl

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.exporter.web_config import WebConfigFile, load
from tests.certificates import Authority


_HASH = "$2b$04$" + "a" * 53


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("certificates")
    authority = Authority(made)
    authority.issue("server")
    authority.issue("other")
    return made  # type: ignore[return-value]  # pytest takes both.


def _config(directory: Path, text: str) -> Path:
    path = directory / "web.yml"
    path.write_text(text)
    return path


_TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key"


def test_a_full_configuration(directory: Path) -> None:
    """
    Everything that Python can do arrives where it belongs; paths are relative to the file.
    """
    config = load(
        _config(
            directory,
            _TLS
            + """, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus],
                min_version: TLS13, max_version: TLS13, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256],
                prefer_server_cipher_suites: false, curve_preferences: [CurveP256]}
http_server_config: {http2: false, headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=60}}
basic_auth_users: {prometheus: HASH}
""".replace("HASH", _HASH),
        )
    )

    assert config.tls is not None
    assert ssl.CERT_REQUIRED == config.tls.context.verify_mode
    assert ssl.TLSVersion.TLSv1_3 == config.tls.context.minimum_version
    assert frozenset({"prometheus"}) == config.tls.allowed_names
    assert not config.tls.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert {"X-Frame-Options": "deny", "Strict-Transport-Security": "max-age=60"} == config.headers
    assert {"prometheus": _HASH.encode()} == config.users
    assert _HASH not in repr(config)


def test_certificate_and_key_can_stand_in_the_file(directory: Path) -> None:
    """
    Their text does as well as their paths.
    """
    indented = {name: (directory / f"server.{name}").read_text().replace("\n", "\n    ") for name in ("pem", "key")}

    config = load(_config(directory, f"tls_server_config:\n  cert: |\n    {indented['pem']}\n  key: |\n    {indented['key']}\n"))

    assert config.tls is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tls_server_confg: {}", "Did you mean tls_server_config"),
        ("[1]", "Expected a mapping"),
        ("a: [", "not YAML"),
        ("basic_auth_users: {}\nbasic_auth_users: {}", "there twice"),
        ("basic_auth_users: {u: secret-word}", "bcrypt"),
        ("basic_auth_users: {u: 5}", "bcrypt"),
        ("basic_auth_users: [u]", "Expected a mapping"),
        ("http_server_config: {http2: true}", "HTTP/1.1 only"),
        ("http_server_config: {http2: maybe}", "true or false"),
        ("http_server_config: {headers: {X-Frame-Option: deny}}", "Did you mean X-Frame-Options"),
        ("http_server_config: {headers: {X-Frame-Options: yes}}", "Expected a text"),
        ("http_server_config: {headers: {X-Frame-Options: allow}}", "one of deny, sameorigin"),
        ('http_server_config: {headers: {Content-Security-Policy: "a\\r\\nb: c"}}', "one line"),
        ("tls_server_config: {cert_file: server.pem}", "key_file is not given"),
        ("tls_server_config: {key_file: server.key}", "cert_file is not given"),
        ("tls_server_config: {cert_file: none.pem, key_file: server.key}", "is the path none.pem"),
        ("tls_server_config: {cert_file: server.pem, key_file: other.key}", "MISMATCH"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "PEM"),
        ("tls_server_config: {cert_file: server.pem, cert: x, key_file: server.key}", "given twice"),
        (_TLS + ", client_auth_type: RequireAnyClientCert}", "cannot ask for a certificate without verifying"),
        (_TLS + ", client_auth_type: requireandverifyclientcert}", "one of NoClientCert"),
        (_TLS + ", client_auth_type: RequireAndVerifyClientCert}", "client_ca_file is not given"),
        (_TLS + ", client_ca_file: ca.pem}", "beside client_ca_file"),
        (_TLS + ", client_ca_file: server.key, client_auth_type: VerifyClientCertIfGiven}", "client_ca_file"),
        (_TLS + ", client_allowed_sans: [x]}", "beside it"),
        (_TLS + ", min_version: TLS10}", "one of TLS12, TLS13"),
        (_TLS + ", min_version: TLS13, max_version: TLS12}", "no less than"),
        (_TLS + ", cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}", "one of TLS_ECDHE"),
        (_TLS + ", cipher_suites: TLS_RSA}", "list of texts"),
        (_TLS + ", curve_preferences: [CurveP256, CurveP384]}", "only one"),
        (_TLS + ", curve_preferences: [P256]}", "Did you mean CurveP256"),
        (_TLS + ", prefer_server_cipher_suites: 1}", "true or false"),
    ],
)
def test_what_cannot_be_honoured_is_refused(directory: Path, text: str, says: str) -> None:
    """
    One paragraph that names the key, what it is and what is expected, without secrets.
    """
    with pytest.raises(ConfigurationError, match=says) as caught:
        load(_config(directory, text))

    assert "\n" not in str(caught.value)
    assert "secret-word" not in str(caught.value)
    assert "web.yml" in str(caught.value)


_SECRET = "hunter2/of+the=tests"
_PEM = f"-----BEGIN PRIVATE KEY-----\\n{_SECRET}\\n-----END PRIVATE KEY-----\\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"basic_auth_users: 'admin:{_SECRET}'", "basic_auth_users is a text"),
        (f"basic_auth_users: admin:{_SECRET}", "basic_auth_users is a text"),
        (f"basic_auth_users: [[admin, '{_SECRET}']]", "basic_auth_users is a list"),
        (f"basic_auth_users: [{{admin: '{_SECRET}'}}]", "basic_auth_users is a list"),
        (f"basic_auth_users: {{'admin:{_SECRET}': x}}", "a user name of basic_auth_users is one with a colon"),
        (f"basic_auth_users: {{admin: '{_SECRET}'}}", "basic_auth_users.admin is a text. Expected a bcrypt hash"),
        (f"basic_auth_users: {{admin: ['{_SECRET}']}}", "basic_auth_users.admin is a list"),
        (f"basic_auth_users: {{'$2y$05${_SECRET}': admin}}", "a key that does not look like a name is a text"),
        (f"basic_auth_users: {{a: x, '{_SECRET}': x, '{_SECRET}': x}}", "a key that does not look like a name is there twice"),
        (f"admin:{_SECRET}\nother:{_SECRET}\n", "the file is a text"),
        (f"'{_SECRET}': x", "a key that does not look like a name is not a known key"),
        (
            f'tls_server_config: {{cert_file: server.pem, key_file: "{_PEM}"}}',
            "key_file is a text of several lines. .* goes into the key without _file",
        ),
        (f"tls_server_config: {{cert_file: server.pem, key_file: '{_SECRET}'}}", "key_file is a text. Expected the path of a file"),
        (f"tls_server_config: {{cert_file: server.pem, key_file: '{_SECRET * 300}'}}", "key_file is a text. Expected the path of a file"),
        (f'tls_server_config: {{cert_file: server.pem, key_file: "\\0{_SECRET}"}}', "key_file is a text. Expected the path of a file"),
        (f'tls_server_config: {{cert_file: server.pem, key: "{_PEM}"}}', "cert_file and key_file is refused"),
        (f"tls_server_config: {{cert_file: ['{_SECRET}'], key_file: server.key}}", "cert_file is a list"),
        (_TLS + f", client_ca: '{_SECRET}', client_auth_type: RequireAndVerifyClientCert}}", "client_ca_file is refused"),
        (_TLS + f", client_auth_type: '{_SECRET}'}}", "client_auth_type is a text"),
        (_TLS + f", client_allowed_sans: ['{_SECRET}']}}", "client_allowed_sans is a list"),
        (_TLS + f", client_allowed_sans: '{_SECRET}'}}", "client_allowed_sans is a text"),
        (_TLS + f", min_version: '{_SECRET}'}}", "min_version is a text"),
        (_TLS + f", cipher_suites: ['{_SECRET}']}}", "cipher_suites is a text"),
        (_TLS + f", prefer_server_cipher_suites: '{_SECRET}'}}", "prefer_server_cipher_suites is a text"),
        (_TLS + f", password: '{_SECRET}'}}", "password is not a known key"),
        (f"http_server_config: {{headers: {{X-Frame-Options: '{_SECRET}'}}}}", "X-Frame-Options is a text"),
        (f"http_server_config: '{_SECRET}'", "http_server_config is a text"),
        ("basic_auth_users: *hunter2", "not YAML: found undefined alias … at line 1, column 19"),
        (f"basic_auth_users: !{_SECRET} x", "not YAML"),
        (f"basic_auth_users: '{_SECRET}", "not YAML"),
        (f"%{_SECRET} x\n---\n", "not YAML|is empty"),
        ("", "is empty"),
        ("[]", "the file is a list"),
        ("basic_auth_users: []", "basic_auth_users is a list"),
        ("basic_auth_users: false", "basic_auth_users is true or false"),
        ("{5: x}", "a key of the file is a number"),
        ("? [a]\n: b", "a key is a list or a mapping"),
        ("basic_auth_users: {u: 2024-01-31}", "basic_auth_users.u is a date"),
        ("basic_auth_users: {u: 2024-02-31}", "an invalid date or number"),
        ("[" * 100_000, "nested too deep"),
        ("#" * 300_000, "longer than"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(directory: Path, text: str, says: str) -> None:
    """
    The place and the kind of the value, never the value: it may be a password or a key.
    """
    with pytest.raises(ConfigurationError, match=says) as caught:
        load(_config(directory, text))

    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


_KEYS = st.sampled_from(
    ["basic_auth_users", "tls_server_config", "http_server_config", "headers", "cert_file", "key_file", "key", "u", "client_ca"]
)
_VALUES = st.recursive(
    st.sampled_from([_SECRET, f"u:{_SECRET}", f"{_SECRET}\nb", 5, None, True, 1.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(written=st.dictionaries(_KEYS, _VALUES, max_size=4), cut=st.integers(0, 400))
def test_no_value_of_a_wrong_file_is_in_what_is_said_of_it(
    tmp_path_factory: pytest.TempPathFactory, written: dict[str, object], cut: int
) -> None:
    """
    Wherever a secret stands in the file, and wherever the file breaks off.
    """
    path = tmp_path_factory.getbasetemp() / "wrong.yml"
    path.write_text(yaml.safe_dump(written)[: cut or None])

    try:
        load(path)
    except ConfigurationError as error:
        said = str(error)
    else:
        said = ""

    assert "hunter2" not in said
    assert "\n" not in said


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    """
    A FIFO or a device in the place of the file is refused at once.
    """
    os.mkfifo(tmp_path / "web.yml")

    for path in (tmp_path / "web.yml", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigurationError, match=r"not a regular file|directory"):
            load(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """
    The path is named, and the option to check.
    """
    with pytest.raises(ConfigurationError, match=r"web\.config\.file"):
        load(tmp_path / "none.yml")


def test_a_change_for_the_worse_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    The last good configuration stays in force; the bad one is said once and counted once.
    """
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users: {{u: {_HASH}}}")
    errors = InternalErrors()
    file = WebConfigFile(path, errors=errors)

    path.write_text("basic_auth_users: {u: plain-text-password}")
    with caplog.at_level(logging.ERROR):
        found = [file.current().users for _ in range(3)]

    assert [{"u": _HASH.encode()}] * 3 == found
    assert {"web_config": 1} == errors.snapshot()
    assert 1 == len(caplog.records)
    assert "plain-text-password" not in caplog.text


def test_a_change_for_the_better_is_taken(tmp_path: Path) -> None:
    """
    New users come in force without a restart, also after a bad version, and after the file was gone for a moment.
    """
    path = tmp_path / "web.yml"
    path.write_text("{}")
    file = WebConfigFile(path, errors=InternalErrors())
    path.unlink()
    assert {} == file.current().users

    path.write_text(f"basic_auth_users: {{u: {_HASH}}}")
    os.utime(path, (1, 1))

    assert {"u": _HASH.encode()} == file.current().users
