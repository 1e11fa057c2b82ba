"""
What a web configuration file may say, and what is answered to one that says something else.
"""

from __future__ import annotations

import logging
import os
import ssl

from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.exporter.web_config import Passwords, WebConfigFile, load
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
        ("tls_server_config: {cert_file: server.pem}", "key_file is None"),
        ("tls_server_config: {key_file: server.key}", "cert_file is None"),
        ("tls_server_config: {cert_file: none.pem, key_file: server.key}", "none.pem is none"),
        ("tls_server_config: {cert_file: server.pem, key_file: other.key}", "MISMATCH"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "PEM"),
        ("tls_server_config: {cert_file: server.pem, cert: x, key_file: server.key}", "given twice"),
        (_TLS + ", client_auth_type: RequireAnyClientCert}", "cannot ask for a certificate without verifying"),
        (_TLS + ", client_auth_type: requireandverifyclientcert}", "one of NoClientCert"),
        (_TLS + ", client_auth_type: RequireAndVerifyClientCert}", "client_ca_file is None"),
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


def test_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The right one is right, is remembered, and is forgotten when its hash changes; strangers cost one bcrypt as everybody does.
    """
    users = {"u": bcrypt.hashpw(b"right", bcrypt.gensalt(4))}
    passwords = Passwords()
    calls: list[bytes] = []
    real = bcrypt.checkpw

    def checked(password: bytes, hashed: bytes) -> bool:
        calls.append(password)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", checked)

    assert passwords.check("u", b"right", users)
    assert not passwords.check("u", b"wrong", users)
    assert not passwords.check("stranger", b"right", users)

    assert 3 == len(calls)
    assert passwords.remembers("u", b"right", users["u"])
    assert not passwords.remembers("u", b"wrong", users["u"])
    assert not passwords.remembers("u", b"right", bcrypt.hashpw(b"right", bcrypt.gensalt(4)))
