"""
TLS, client certificates, passwords and security headers: the web configuration file of Prometheus' exporter toolkit, re-read when it changes.

Strict: what this program cannot honour is refused, because a security setting that is quietly ignored is worse than none.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import ssl
import stat
import tempfile

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from celery_obs.exceptions import CeleryObsError, ConfigurationError, MissingExtraError

from .scrape import InternalErrors


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["Tls", "WebConfig", "WebConfigFile", "load"]


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
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9_./@ -]{1,200}\.[A-Za-z]{1,8}")
"""
What a name and a path look like; what looks otherwise may be a secret in the wrong place, and is not shown.
"""

_LONGEST_FILE = 256 * 1024
_DEEPEST = 10


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
    http = reader.mapping("http_server_config", top.get("http_server_config"), ("http2", "headers"))
    if reader.boolean("http_server_config.http2", http.get("http2", False)):
        reader.refuse("http_server_config.http2", http["http2"], "false, because this exporter supports HTTP/1.1 only", shown="true")
    tls = reader.mapping("tls_server_config", top.get("tls_server_config"), _TLS_KEYS)
    return WebConfig(
        tls=_tls(reader, tls) if tls else None,
        headers=_headers(reader, http.get("headers")),
        users=_users(reader, top.get("basic_auth_users")),
    )


class WebConfigFile:
    """
    A web configuration that follows its file.

    A file that has become wrong is said once and counted; what was good before stays in force.
    So it does where the file demands less of callers than before: an empty file must not open the door.

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
        if self._look() != self._seen:
            self.reload()
        return self._config

    def reload(self) -> None:
        """
        Read the files again, changed or not.
        """
        files = self._files()
        # Looked at before they are read: what changes meanwhile is another change.
        self._seen = self._look()
        self._take(self._fresh())
        if self._files() != files:
            self._seen = self._look()

    def tls_context(self) -> ssl.SSLContext | None:
        """
        Return a context for a server's sockets that uses what is in force at each handshake; None without TLS.
        """
        return _FollowingContext(self._tls_now) if self._config.tls is not None else None

    def _tls_now(self) -> ssl.SSLContext:
        tls = self.current().tls
        if tls is None:
            message = "A reload cannot turn TLS off."
            raise AssertionError(message)
        return tls.context

    def _fresh(self) -> WebConfig | str:
        """
        Read the file; return in words why what it says is not used.
        """
        try:
            fresh = load(self._path)
        except CeleryObsError as error:
            return " ".join(str(error).split())
        except Exception as error:  # noqa: BLE001 -- whatever a file holds, the door stays as it is; its text may be a secret.
            return f"{self._path} cannot be read ({type(error).__name__})."
        less = _less_demanded(self._config, fresh)
        return f"{self._path} {less}, which takes a restart of the exporter." if less else fresh

    def _take(self, fresh: WebConfig | str) -> None:
        if isinstance(fresh, str):
            self._errors.count("web_config")
            log.error("The changed web configuration is invalid, so the previous one stays in force. %s", fresh)
        else:
            self._config = fresh
            log.info("The web configuration %s was read again.", self._path)

    def _look(self) -> tuple[object, ...]:
        return tuple(_signature(file) for file in self._files())

    def _files(self) -> tuple[Path, ...]:
        return (self._path, *(self._config.tls.files if self._config.tls is not None else ()))


class _FollowingContext(ssl.SSLContext):
    """
    Stands for whichever context is in force when a connection comes in.
    """

    _now: Callable[[], ssl.SSLContext]

    def __new__(cls, now: Callable[[], ssl.SSLContext]) -> Self:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
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


def _less_demanded(before: WebConfig, after: WebConfig) -> str:
    """
    Say what callers had to show before, and would not have to any more; empty for nothing.
    """
    if (after.tls is None) != (before.tls is None):
        return f"turns TLS {'off' if after.tls is None else 'on'}"
    if before.users and not after.users:
        return "has no users (basic_auth_users) any more"
    if before.tls is not None and after.tls is not None:
        if after.tls.context.verify_mode < before.tls.context.verify_mode:
            return "requires less of clients' certificates (client_auth_type) than before"
        if before.tls.allowed_names and not after.tls.allowed_names:
            return "allows clients of any name (client_allowed_sans)"
    return ""


class _Reader:
    """
    Takes values out of the file and says what is wrong with them: the place and the kind, never the value, which may be a secret.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refuse(self, key: str, got: object, expected: str, *, shown: str = "", hint: str = "") -> NoReturn:
        """
        Raise what is wrong.

        Args:
            shown: What to say of *got* instead of its kind, where that is no secret.
        """
        message = f"{self._path}: {key or 'the file'} is {shown or _kind(got)}. Expected {expected}.{hint}"
        raise ConfigurationError(message)

    def mapping(self, key: str, value: object, known: tuple[str, ...] = ()) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.refuse(key, value, f"a mapping of {', '.join(known)}" if known else "a mapping")
        for name in value:
            if not isinstance(name, str):
                self.refuse(f"a key of {key or 'the file'}", name, "a text; put it into quotes")
            if known and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                place = _shown_name(name, of=key)
                message = f"{self._path}: {place} is not a known key. Expected one of {', '.join(known)}." + (
                    f" Did you mean {near[0]}?" if near else ""
                )
                raise ConfigurationError(message)
        return value

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
        return value

    def choice(self, key: str, value: object, known: Mapping[str, Any]) -> Any:
        name = self.text(key, value)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            self.refuse(key, name, f"one of {', '.join(known)}", hint=f" Did you mean {near[0]}?" if near else "")
        return known[name]

    def file(self, key: str, value: object) -> Path:
        text = self.text(key, value)
        try:
            path = self._path.parent / text
            is_there = path.is_file() and os.access(path, os.R_OK)
        except (OSError, ValueError):  # Too long for a path, or with a NUL in it.
            is_there = False
        if not is_there:
            shown = f"the path {text}" if _PATH.fullmatch(text) else ""
            hint = " The text of a PEM file goes into the key without _file." if "\n" in text else ""
            self.refuse(key, text, f"the path of a file that uid {os.geteuid()} can read", shown=shown, hint=hint)
        return path


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a text of several lines" if "\n" in value else "a text" if value else "an empty text"
    kinds = {type(None): "not given", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return kinds.get(type(value), "a date" if isinstance(value, date) else "of another kind")


def _shown_name(name: str, *, of: str = "") -> str:
    shown = name if _NAME.fullmatch(name) else "a key that does not look like a name"
    return f"{of}.{shown}" if of else shown


def _parse(path: Path) -> object:
    try:
        import yaml
    except ImportError as error:
        feature = "A web configuration file"
        raise MissingExtraError(feature, extra="exporter") from error
    written = _text_of(path)
    try:
        found = yaml.load(written, Loader=_strict_loader())  # noqa: S506 -- a subclass of the safe loader.
    except yaml.YAMLError as error:
        message = f"The web configuration {path} is not YAML: {_problem(error)}."
        raise ConfigurationError(message) from None
    except (ValueError, TypeError, ArithmeticError, AttributeError):
        # The 31st of February, a number of a million digits: what looks like a value of YAML and is none.
        message = f"The web configuration {path} cannot be read: it has an invalid date or number. Put texts into quotes."
        raise ConfigurationError(message) from None
    if found is None:
        message = f"The web configuration {path} is empty. Expected tls_server_config, http_server_config or basic_auth_users; {{}} asks for nothing."
        raise ConfigurationError(message)
    return found


def _text_of(path: Path) -> str:
    """
    Read a regular file of a bounded size, without ever waiting for one that is not.
    """
    reason = ""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                reason = "it is not a regular file"
            written = b"" if reason else opened.read(_LONGEST_FILE + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        if len(written) > _LONGEST_FILE:
            reason = f"it is longer than {_LONGEST_FILE} bytes"
        if not reason:
            try:
                return written.decode("utf-8")
            except UnicodeDecodeError:
                reason = "it is not UTF-8 text"
    message = f"The web configuration {path} cannot be read: {reason}. Expected a YAML file; check --web.config.file."
    raise ConfigurationError(message)


def _problem(error: Any) -> str:
    """
    Say what is wrong and where, without the words of the file that PyYAML quotes: they may be of a key or a password.
    """
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    problem = re.sub(r"'(?!<[a-z ]+>').*'|\".*\"", "…", problem, flags=re.DOTALL)
    mark = getattr(error, "problem_mark", None)
    return problem if mark is None else f"{problem} at line {mark.line + 1}, column {mark.column + 1}"


def _strict_loader() -> type[Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """
        Refuses a key that is there twice, of which YAML would silently take the later, one that is not text, and what is nested too deep.
        """

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > _DEEPEST:
                problem = "it is nested too deep"
                raise yaml.composer.ComposerError(None, None, problem, self.get_mark())
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 -- PyYAML's signature.
            seen: set[object] = set()
            for key_node, _ in node.value:
                key = key_node.value
                problem = ""
                if not isinstance(key_node, yaml.ScalarNode):
                    problem = "a key is a list or a mapping"
                elif key in seen:
                    problem = f"{_shown_name(key)} is there twice"
                if problem:
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


def _tls(reader: _Reader, given: Mapping[str, Any]) -> Tls:
    key = "tls_server_config"
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
        reader.refuse(
            f"{key}.client_allowed_sans", allowed, "client_auth_type RequireAndVerifyClientCert or VerifyClientCertIfGiven beside it"
        )
    return Tls(context=context, allowed_names=frozenset(allowed), files=tuple(files))


def _one_of(reader: _Reader, given: Mapping[str, Any], name: str, files: list[Path]) -> tuple[Path | None, str]:
    """
    Read a thing that is either the path of a file or the thing itself.
    """
    key = "tls_server_config"
    path, inline = (None if given.get(each) == "" else given.get(each) for each in (f"{name}_file", name))
    if path is not None and inline is not None:
        reader.refuse(f"{key}.{name}", inline, f"either {name}_file or {name}", shown="given twice")
    if path is not None:
        found = reader.file(f"{key}.{name}_file", path)
        files.append(found)
        return found, ""
    return None, reader.text(f"{key}.{name}", inline) if inline is not None else ""


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
            reader.refuse(
                f"{key}.cert_file and key_file",
                error,
                "a PEM certificate with its chain, and the private key that belongs to it, not encrypted",
                shown=_refusal_of(error),
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
            shown=wanted,
        )
    mode = reader.choice(f"{key}.client_auth_type", wanted, _CLIENT_AUTH)
    if has_authority and mode == ssl.CERT_NONE:
        expected = "RequireAndVerifyClientCert or VerifyClientCertIfGiven beside client_ca_file"
        reader.refuse(f"{key}.client_auth_type", wanted, expected, shown=wanted)
    if mode != ssl.CERT_NONE and not has_authority:
        reader.refuse(
            f"{key}.client_ca_file", None, f"the authority that signed the clients' certificates, because client_auth_type is {wanted}"
        )
    if has_authority:
        try:
            context.load_verify_locations(cafile=authority, cadata=authority_text or None)
        except (ssl.SSLError, OSError, ValueError) as error:
            reader.refuse(f"{key}.client_ca_file", error, "PEM certificates", shown=_refusal_of(error))
    context.verify_mode = mode


def _refusal_of(error: Exception) -> str:
    """
    Say why a file was refused, in OpenSSL's or the system's words, which quote nothing of it.
    """
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return f"refused ({reason})"


def _ciphers(reader: _Reader, given: Mapping[str, Any], context: ssl.SSLContext) -> None:
    key = "tls_server_config"
    names = reader.texts(f"{key}.cipher_suites", given.get("cipher_suites") or [])
    if names:
        chosen = ":".join(reader.choice(f"{key}.cipher_suites", name, _CIPHERS) for name in names)
        try:
            context.set_ciphers(chosen)
        except ssl.SSLError:
            reader.refuse(f"{key}.cipher_suites", names, "ciphers that this machine's OpenSSL offers", shown=", ".join(names))
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
            reader.refuse(f"{key}.curve_preferences", curve, "a curve that this machine's OpenSSL offers", shown=curve)


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
        if ":" in name:
            reader.refuse(
                "a user name of basic_auth_users",
                name,
                "a name without a colon, and after it a colon and a space",
                shown="one with a colon",
            )
        if not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            expected = "a bcrypt hash such as $2y$10$…; make one with: htpasswd -nBC 10 ''"
            reader.refuse(_shown_name(name, of="basic_auth_users"), hashed, expected)
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
