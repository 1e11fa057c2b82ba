"""
TLS, client certificates, passwords and security headers: the web configuration file of Prometheus' exporter toolkit, re-read when it changes.

Strict: what this program cannot honour is refused, because a security setting that is quietly ignored is worse than none.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import logging
import os
import re
import secrets
import ssl
import tempfile

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from celery_obs.exceptions import ConfigurationError, MissingExtraError

from .scrape import InternalErrors


__all__ = ["Passwords", "Tls", "WebConfig", "WebConfigFile", "load"]


log = logging.getLogger("celery_obs.exporter")

_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_CLIENT_AUTH: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNCHECKED_CLIENT_AUTH: Final = ("RequestClientCert", "RequireAnyClientCert")
_CIPHERS: Final = {
    f"TLS_ECDHE_{kind}_WITH_{cipher}": f"ECDHE-{kind}-{openssl}"
    for kind in ("RSA", "ECDSA")
    for cipher, openssl in {
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
        "AES_128_CBC_SHA256": "AES128-SHA256",
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
    }.items()
}
_HEADERS: Final[Mapping[str, frozenset[str]]] = {
    "Strict-Transport-Security": frozenset(),
    "X-Content-Type-Options": frozenset({"nosniff"}),
    "X-Frame-Options": frozenset({"deny", "sameorigin"}),
    "X-XSS-Protection": frozenset(),
    "Content-Security-Policy": frozenset(),
}
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_LONGEST_PASSWORD = 72
"""
Bytes of a password that bcrypt looks at.
"""


@dataclass(frozen=True, slots=True)
class Tls:
    """
    How connections are encrypted.

    Attributes:
        context: Ready for use.

        allowed_names: Names of which a client's certificate has to carry one; empty for any.

        files: What *context* was made from.
    """

    context: ssl.SSLContext
    allowed_names: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class WebConfig:
    """
    The file, read and found good.

    Attributes:
        users: User names with their bcrypt hashes.  Never shown.
    """

    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def load(path: Path) -> WebConfig:
    """
    Read the file at *path*; the paths in it are relative to its place.

    Raises:
        ConfigurationError: naming the key, what it is, and what is expected.

        MissingExtraError: if what reads YAML and checks passwords is not installed.
    """
    reader = _Reader(path)
    top = reader.mapping("", _parse(path), ("tls_server_config", "http_server_config", "basic_auth_users"))
    http = reader.mapping("http_server_config", top.get("http_server_config") or {}, ("http2", "headers"))
    if reader.boolean("http_server_config.http2", http.get("http2", False)):
        reader.refuse("http_server_config.http2", True, "false, because this exporter speaks HTTP/1.1 only")
    tls = top.get("tls_server_config")
    return WebConfig(
        tls=_tls(reader, tls) if tls else None,
        headers=_headers(reader, http.get("headers") or {}),
        users=_users(reader, top.get("basic_auth_users") or {}),
    )


class WebConfigFile:
    """
    A web configuration that follows its file.

    A file that has become wrong is said once and counted; what was good before stays in force.

    Threads: used by the event loop only.

    Raises:
        ConfigurationError: if the file is wrong from the start.
    """

    def __init__(self, path: Path, *, errors: InternalErrors) -> None:
        self._path = path
        self._errors = errors
        self._config = load(path)
        self._seen = self._look()

    def current(self) -> WebConfig:
        """
        Return what is in force now, after a look at the times of the files.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._reload()
            # The new configuration may name other files.
            self._seen = self._look()
        return self._config

    def tls_context(self) -> ssl.SSLContext | None:
        """
        Return a context for a server's sockets that uses what is in force at each handshake; None without TLS.
        """
        return _FollowingContext(self._tls_now) if self._config.tls is not None else None

    def _tls_now(self) -> ssl.SSLContext:
        tls = self.current().tls
        assert tls is not None, "A reload cannot turn TLS off."
        return tls.context

    def _reload(self) -> None:
        try:
            fresh = load(self._path)
            if (fresh.tls is None) != (self._config.tls is None):
                message = f"{self._path} turns TLS {'off' if fresh.tls is None else 'on'}, which takes a restart of the exporter."
                raise ConfigurationError(message)
        except (ConfigurationError, OSError) as error:
            self._errors.count("web_config")
            log.error("The changed web configuration is not used, the one before stays in force. %s", error)  # noqa: TRY400 -- the message is for people.
        else:
            self._config = fresh
            log.info("The web configuration %s was read again.", self._path)

    def _look(self) -> tuple[object, ...]:
        files = (self._path, *(self._config.tls.files if self._config.tls is not None else ()))
        return tuple(_signature(file) for file in files)


class _FollowingContext(ssl.SSLContext):
    """
    Stands for whichever context is in force when a connection comes in.
    """

    _now: Callable[[], ssl.SSLContext]

    def __new__(cls, now: Callable[[], ssl.SSLContext]) -> _FollowingContext:
        made: _FollowingContext = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._now = now
        return made

    def __init__(self, now: Callable[[], ssl.SSLContext]) -> None:
        """
        Made by ``__new__``.
        """

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """
        Begin a connection; asyncio calls this one.
        """
        return self._now().wrap_bio(*args, **kwargs)


class Passwords:
    """
    Checks user names and passwords without telling by its time which of them was wrong.

    bcrypt is slow on purpose.  What was found right is remembered under a keyed hash, so that only the first scrape pays for it.
    """

    most_remembered = 100

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}

    def remembers(self, user: str, password: bytes, hashed: bytes) -> bool:
        """
        Tell at once whether this was found right before.
        """
        return self._digest(user, password, hashed) in self._right

    def check(self, user: str, password: bytes, users: Mapping[str, bytes]) -> bool:
        """
        Find out; takes as long as bcrypt takes, also for a user that does not exist.
        """
        import bcrypt

        # For strangers: any hash, as dear as the others, so that the time says nothing.
        hashed = users.get(user)
        against = hashed if hashed is not None else next(iter(users.values()))
        right = bcrypt.checkpw(password[:_LONGEST_PASSWORD], against) and hashed is not None
        if right and hashed is not None:
            while len(self._right) >= self.most_remembered:
                self._right.pop(next(iter(self._right)), None)
            self._right[self._digest(user, password, hashed)] = None
        return right

    def _digest(self, user: str, password: bytes, hashed: bytes) -> bytes:
        parts = (user.encode(), hashed, password)
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), hashlib.sha256)


class _Reader:
    """
    Takes values out of the file and says what is wrong with them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refuse(self, key: str, got: object, expected: str, *, hint: str = "") -> None:
        message = f"{self._path}: {key or 'the file'} is {got!r}. Expected {expected}.{hint}"
        raise ConfigurationError(message)

    def mapping(self, key: str, value: object, known: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(key, value, f"a mapping of {', '.join(known)}" if known else "a mapping")
            raise AssertionError
        for name in value:
            if known and name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                place = f"{key}.{name}" if key else str(name)
                message = f"{self._path}: {place} is not a known key. Expected one of {', '.join(known)}." + (
                    f" Did you mean {near[0]}?" if near else ""
                )
                raise ConfigurationError(message)
        return {str(name): inner for name, inner in value.items()}

    def boolean(self, key: str, value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse(key, value, "true or false")
        return bool(value)

    def text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            self.refuse(key, value, "a text")
        return str(value)

    def texts(self, key: str, value: object) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(key, value, "a list of texts")
            raise AssertionError
        return value

    def choice(self, key: str, value: object, known: Mapping[str, Any]) -> Any:
        name = self.text(key, value)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            self.refuse(key, name, f"one of {', '.join(known)}", hint=f" Did you mean {near[0]}?" if near else "")
        return known[name]

    def file(self, key: str, value: object) -> Path:
        path = self._path.parent / self.text(key, value)
        if not path.is_file() or not os.access(path, os.R_OK):
            self.refuse(key, str(value), f"a file that uid {os.geteuid()} can read; {path} is none")
        return path


def _parse(path: Path) -> object:
    try:
        import yaml
    except ImportError as error:
        feature = "A web configuration file"
        raise MissingExtraError(feature, extra="exporter") from error
    try:
        written = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        message = f"The web configuration {path} cannot be read: {reason}. Expected a YAML file; check --web.config.file."
        raise ConfigurationError(message) from error
    try:
        return yaml.load(written, Loader=_strict_loader()) or {}  # noqa: S506 -- a subclass of the safe loader.
    except yaml.YAMLError as error:
        # A line number, never the line: it may hold a key or a hash.
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        message = f"The web configuration {path} is not YAML: {getattr(error, 'problem', None) or 'it cannot be parsed'}{place}."
        raise ConfigurationError(message) from None


def _strict_loader() -> type[Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """
        Refuses a key that is there twice, of which YAML would silently take the later.
        """

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 -- PyYAML's signature.
            seen: set[object] = set()
            for key_node, _ in node.value:
                key = key_node.value
                if key in seen:
                    problem = f"the key {key} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

    return Loader


_TLS_KEYS: Final = (
    "cert_file",
    "key_file",
    "cert",
    "key",
    "client_ca_file",
    "client_ca",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)


def _tls(reader: _Reader, written: object) -> Tls:
    key = "tls_server_config"
    given = reader.mapping(key, written, _TLS_KEYS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files: list[Path] = []
    context.minimum_version = reader.choice(f"{key}.min_version", given.get("min_version", "TLS12"), _VERSIONS)
    context.maximum_version = reader.choice(f"{key}.max_version", given.get("max_version", "TLS13"), _VERSIONS)
    if context.minimum_version > context.maximum_version:
        reader.refuse(f"{key}.max_version", given["max_version"], f"no less than min_version {given.get('min_version', 'TLS12')}")
    _certificate(reader, given, context, files)
    _clients(reader, given, context, files)
    _ciphers(reader, given, context)
    allowed = reader.texts(f"{key}.client_allowed_sans", given.get("client_allowed_sans") or [])
    if allowed and context.verify_mode == ssl.CERT_NONE:
        reader.refuse(f"{key}.client_allowed_sans", allowed, "client_auth_type RequireAndVerifyClientCert or VerifyClientCertIfGiven beside it")
    return Tls(context=context, allowed_names=frozenset(allowed), files=tuple(files))


def _one_of(reader: _Reader, given: Mapping[str, Any], name: str, files: list[Path]) -> tuple[Path | None, str]:
    """
    Read a thing that is either the path of a file or the thing itself.
    """
    key = "tls_server_config"
    path, inline = given.get(f"{name}_file"), given.get(name)
    if path and inline:
        reader.refuse(f"{key}.{name}", "given twice", f"either {name}_file or {name}")
    if path:
        found = reader.file(f"{key}.{name}_file", path)
        files.append(found)
        return found, ""
    return None, reader.text(f"{key}.{name}", inline) if inline else ""


def _certificate(reader: _Reader, given: Mapping[str, Any], context: ssl.SSLContext, files: list[Path]) -> None:
    key = "tls_server_config"
    chain, chain_text = _one_of(reader, given, "cert", files)
    private, private_text = _one_of(reader, given, "key", files)
    for name, path, text in (("cert", chain, chain_text), ("key", private, private_text)):
        if path is None and not text:
            reader.refuse(f"{key}.{name}_file", None, f"the path of a PEM file, or its text as {key}.{name}")
    # Python's ssl takes files only.
    with tempfile.TemporaryDirectory() as directory:
        chain = chain or _spill(Path(directory, "cert.pem"), chain_text)
        private = private or _spill(Path(directory, "key.pem"), private_text)
        try:
            # Without a password callback, OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(chain, private, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            reader.refuse(
                f"{key}.cert_file and key_file", reason, "a PEM certificate with its chain, and the private key that belongs to it, not encrypted"
            )


def _clients(reader: _Reader, given: Mapping[str, Any], context: ssl.SSLContext, files: list[Path]) -> None:
    key = "tls_server_config"
    authority, authority_text = _one_of(reader, given, "client_ca", files)
    has_authority = authority is not None or bool(authority_text)
    wanted = given.get("client_auth_type") or "NoClientCert"
    if wanted in _UNCHECKED_CLIENT_AUTH:
        reader.refuse(
            f"{key}.client_auth_type",
            wanted,
            f"one of {', '.join(_CLIENT_AUTH)}, because Python's ssl cannot ask for a certificate without verifying it",
        )
    mode = reader.choice(f"{key}.client_auth_type", wanted, _CLIENT_AUTH)
    if has_authority and mode == ssl.CERT_NONE:
        reader.refuse(f"{key}.client_auth_type", wanted, "RequireAndVerifyClientCert or VerifyClientCertIfGiven beside client_ca_file")
    if mode != ssl.CERT_NONE and not has_authority:
        reader.refuse(f"{key}.client_ca_file", None, f"the authority that signed the clients' certificates, because client_auth_type is {wanted}")
    if has_authority:
        try:
            context.load_verify_locations(cafile=authority, cadata=authority_text or None)
        except (ssl.SSLError, OSError, ValueError) as error:
            reader.refuse(f"{key}.client_ca_file", getattr(error, "reason", None) or error, "PEM certificates")
    context.verify_mode = mode


def _ciphers(reader: _Reader, given: Mapping[str, Any], context: ssl.SSLContext) -> None:
    key = "tls_server_config"
    names = reader.texts(f"{key}.cipher_suites", given.get("cipher_suites") or [])
    if names:
        context.set_ciphers(":".join(reader.choice(f"{key}.cipher_suites", name, _CIPHERS) for name in names))
    if reader.boolean(f"{key}.prefer_server_cipher_suites", given.get("prefer_server_cipher_suites", True)):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    curves = reader.texts(f"{key}.curve_preferences", given.get("curve_preferences") or [])
    if len(curves) > 1:
        reader.refuse(f"{key}.curve_preferences", curves, "one curve at most, because Python's ssl can set only one")
    for curve in curves:
        try:
            context.set_ecdh_curve(reader.choice(f"{key}.curve_preferences", curve, _CURVES))
        except (ssl.SSLError, ValueError):
            reader.refuse(f"{key}.curve_preferences", curve, "a curve that this machine's OpenSSL offers")


def _headers(reader: _Reader, written: object) -> dict[str, str]:
    key = "http_server_config.headers"
    headers = reader.mapping(key, written, tuple(_HEADERS))
    for name, value in headers.items():
        allowed = _HEADERS[name]
        text = reader.text(f"{key}.{name}", value)
        if allowed and text not in allowed:
            reader.refuse(f"{key}.{name}", text, f"one of {', '.join(sorted(allowed))}")
        if not text.isprintable() or not text.isascii():
            reader.refuse(f"{key}.{name}", text, "one line of printable ASCII")
    return headers


def _users(reader: _Reader, written: object) -> dict[str, bytes]:
    users = reader.mapping("basic_auth_users", written)
    if users:
        try:
            import bcrypt  # noqa: F401 -- say it at start, not at the first request.
        except ImportError as error:
            feature = "Basic authentication"
            raise MissingExtraError(feature, extra="exporter") from error
    for name, hashed in users.items():
        if not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            # Not shown: it may be the password.
            reader.refuse(f"basic_auth_users.{name}", "…", "a bcrypt hash such as $2y$10$…; make one with: htpasswd -nBC 10 ''")
    return {name: hashed.encode() for name, hashed in users.items()}


def _spill(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _signature(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_size, status.st_ino
