"""
Redaction: how secrets are kept out of everything that leaves a process in words: log lines, spans, error reports.

A secret is known by the name that it goes under, or by its own looks.  Where one of the two is in doubt, rather too much is hidden.
What a person writes in a sentence ("the password is swordfish") looks like nothing and stays.

All work is bounded: in time, which grows no faster than the text; in depth; in size.  Nothing here raises.
"""

from __future__ import annotations

import math
import re

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final


__all__ = ["HIDDEN", "Redactor"]


HIDDEN: Final = "***"
"""
What is shown in the place of a secret.
"""

LONGEST: Final = 32_768
"""
Characters of one text that are kept.
"""

DEEPEST: Final = 8
"""
Levels of containers that are gone into.
"""

WIDEST: Final = 200
"""
Elements of one container that are kept.
"""

MOST: Final = 5_000
"""
Elements of all containers in one value that are kept.
"""

_SLACK: Final = 4_096  # Looked at beyond what is kept, so that a secret that is cut in two is still known as one.
_MORE: Final = "…"

_NAMES: Final = (
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "dsn",
    "credential",
    "sessionid",
    "session[_-]?key",
    "csrf",
    "jwt",
    "assertion",
    "code[_-]?verifier",
    "signature",
    "(?:api|access|private|encryption|signing|master|fernet|shared|account)[_-]?key",
)
"""
What makes a name a secret's, wherever it stands in the name.
"""

_CLUES: Final = (
    *("authorization", "cookie", "token", "secret", "passw", "passphrase", "pwd", "dsn", "credential", "sessionid", "session", "csrf"),
    *("jwt", "assertion", "verifier", "signature", "key"),
)
"""
Lower-case letters one of which is in every name of a secret: looking for them is fast, and most texts have none.
"""

_HARMLESS: Final = re.compile(
    r"[_-]?(?:type|url|uri|endpoint|expire[sd]?(?:[_-]?(?:at|in|on))?|expiry|count|ttl|age|seconds|at|name|status|state|errors?|source|limit|length)$",
    re.IGNORECASE,
)
"""
Ends of names that speak of a secret and hold none: ``token_type``, ``password_expires_at``.
"""

_PLURAL: Final = re.compile(r"tokens$", re.IGNORECASE)  # A number of tokens is no token.
_LARGEST_COUNT: Final = 10**9

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}):(//)([^\s'\"<>]+)")
_PORT_AND_QUERY: Final = re.compile(r"[^:/?#]*:\d{1,5}/?[^:/?#]*\?")
_SCHEMES: Final = re.compile(r"(?<![A-Za-z])(bearer|basic|negotiate)(\s{1,4})([A-Za-z0-9._~+/=-]{6,})", re.IGNORECASE)
_LOOKS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"  # JSON web tokens.
    r"|(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # Amazon.
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{30,}|[sr]k_(?:live|test)_[A-Za-z0-9]{10,}"
    r")"
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL)
_WEBHOOK: Final = re.compile(r"(hooks\.slack\.com/(?:services|workflows)/)[^\s'\"<>]+")
_CODE: Final = re.compile(r"(?<![A-Za-z0-9_])(code|state|sig)(=|[\"']\s{0,3}:\s{0,3}[\"'])([^&\s\"',;]+)")
_OF_OAUTH: Final = ("grant_type", "redirect_uri", "?code=", "&code=", "?sig=", "&sig=")

_QUOTED: Final = r"\"(?:\\.|[^\"\\])*(?:\"|\\?\Z)|'(?:\\.|[^'\\])*(?:'|\\?\Z)"
_ESCAPED: Final = r"\\+(?P<q>[\"']).*?(?:\\(?P=q)|(?P=q)|\Z)"  # JSON in a string of JSON, or in a repr.
_SCHEME: Final = r"(?:(?:bearer|basic|digest|negotiate|token|apikey)\s{1,4})?"


def _pair(names: Iterable[str]) -> re.Pattern[str]:
    """
    Return what finds a secret's name, what is between, and the secret.

    The name is found by the part that makes it a secret's, with a bounded rest: so the time does not grow with what is before it.
    """
    return re.compile(
        rf"(?P<name>(?:{'|'.join(names)})[\w-]{{0,40}})"
        r"(?:\\{0,4}[\"']?\s{0,4}(?:=>|==?|:)\s{0,4}|\\{0,4}[\"']\s{0,4},\s{0,4}(?=[bru]{0,2}\\{0,4}[\"']))(?:[bru]{1,2}(?=[\"'\\]))?"
        rf"(?P<secret>{_QUOTED}|{_ESCAPED}|{_SCHEME}[^\s,;&\"'<]+)",
        re.IGNORECASE | re.DOTALL,
    )


_LINE: Final = re.compile(r"((?:authorization|cookie)[\w-]{0,20}\s{0,4}:\s{0,4})(?![\s\"'\\])[^\r\n\"']+", re.IGNORECASE)
_OPTION: Final = re.compile(rf"((?:{'|'.join(_NAMES)})[\w-]{{0,40}}\s{{1,4}})(?!-)([^\s,;\"']+|{_QUOTED})", re.IGNORECASE | re.DOTALL)
_OPTION_BEGINS: Final = re.compile(r"--[\w-]*$")


class Redactor:
    """
    Hides secrets.

    Args:
        keys: Names besides ours under which there are secrets; each is found as a word, or several in a row, of a longer name:
            ``pin`` in ``card_pin`` and ``pinCode``, and not in ``shipping``.

        longest: Characters of one text that are kept.

    Threads: safe.  Forks: safe.

    Since 0.1.
    """

    def __init__(self, keys: Iterable[str] = (), *, longest: int = LONGEST) -> None:
        keys = tuple(keys)
        self._longest = longest
        own = [_words(key) for key in keys]
        self._clues = (*_CLUES, *(re.split(r"[\W_]+", key.strip("_- ").lower())[0] for key in keys if key.strip("_- ")))
        names = (*_NAMES, *(pattern for pattern in own if pattern))
        self._name = re.compile("|".join(names), re.IGNORECASE)
        self._pair = _pair(names)
        self._known: dict[str, bool] = {}

    def is_secret(self, name: str) -> bool:
        """
        Tell whether what goes under *name* is a secret.
        """
        known = self._known.get(name)
        if known is None:
            known = self._name.search(name[:LONGEST]) is not None and _HARMLESS.search(name[-LONGEST:]) is None
            if len(self._known) < MOST and len(name) <= WIDEST:
                self._known[name] = known
        return known

    def text(self, text: str) -> str:
        """
        Return *text* without the secrets in it, and without what it has too much.
        """
        if len(text) > self._longest:
            return self._hidden(text[: self._longest + _SLACK])[: self._longest] + _MORE
        return self._hidden(text)

    def _hidden(self, text: str) -> str:
        low = text.lower()
        if "://" in low:
            text = _URL.sub(_without_login, text)
            if "hooks.slack.com" in low:
                text = _WEBHOOK.sub(rf"\g<1>{HIDDEN}", text)
        if "begin " in low:
            text = _PEM.sub(HIDDEN, text)
        if "bearer" in low or "basic" in low or "negotiate" in low:
            text = _SCHEMES.sub(_without_login_of_scheme, text)
        if any(clue in low for clue in self._clues):
            text = _LINE.sub(rf"\g<1>{HIDDEN}", text)
            text = self._pair.sub(self._without_value, text)
            if "--" in low:
                text = _OPTION.sub(_without_argument, text)
        if any(sign in low for sign in _OF_OAUTH):
            text = _CODE.sub(rf"\g<1>\g<2>{HIDDEN}", text)
        return _LOOKS.sub(HIDDEN, text)

    def _without_value(self, found: re.Match[str]) -> str:
        name, secret = found["name"], found["secret"]
        if _HARMLESS.search(name) or (_PLURAL.search(name) and secret.isdigit()):
            return found[0]
        quote = secret[: len(secret) - len(secret.lstrip("\\"))] if secret[0] == "\\" else ""
        quote += secret[len(quote)] if secret[len(quote) :][:1] in {'"', "'"} else ""
        return f"{found[0][: -len(secret)]}{quote}{HIDDEN}{quote}"

    def value(self, value: object) -> object:
        """
        Return a copy of *value* without the secrets in it, made of what JSON knows; what it does not know becomes text.
        """
        return self._copy(value, 0, [MOST])

    def _copy(self, value: object, depth: int, left: list[int]) -> object:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            # Not the methods of whoever made a kind of text of their own.
            return self.text(value if type(value) is str else str.__str__(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, depth, left)
            if isinstance(value, list | tuple | AbstractSet):
                return self._sequence(value, depth, left)
            return self.text(_told(value))
        except Exception:  # noqa: BLE001 -- objects of others may do anything when one looks at them.
            return f"<{type(value).__name__}>"

    def _mapping(self, value: Mapping[Any, Any], depth: int, left: list[int]) -> object:
        if depth >= DEEPEST:
            return {_MORE: _MORE} if value else {}
        copy: dict[str, object] = {}
        for key in value:
            if len(copy) >= WIDEST or left[0] <= 0:
                copy[_MORE] = _MORE
                break
            left[0] -= 1
            name = key if type(key) is str else _told(key)
            # A secret may be the key, too.
            copy[self.text(name)] = self.under(name, value[key], depth + 1, left)
        return copy

    def under(self, name: str, value: object, depth: int = 0, left: list[int] | None = None) -> object:
        """
        Return a copy of *value*, which goes under *name*, without the secrets in it.
        """
        if not self.is_secret(name) or value is None or isinstance(value, bool) or value in ("", b""):
            return self._copy(value, depth, [MOST] if left is None else left)
        if isinstance(value, int) and _PLURAL.search(name) and 0 <= value < _LARGEST_COUNT:
            return value
        return HIDDEN

    def _sequence(self, value: Any, depth: int, left: list[int]) -> object:
        if depth >= DEEPEST:
            return [_MORE] if value else []
        if len(value) == 2 and isinstance(value, list | tuple):  # noqa: PLR2004 -- a header and its value, as ASGI and HTTP clients have them.
            name = _told(value[0]) if isinstance(value[0], str | bytes) else ""
            if name and self.is_secret(name):
                return [self.text(name), self.under(name, value[1], depth + 1, left)]
        copy: list[object] = []
        for element in value:
            if len(copy) >= WIDEST or left[0] <= 0:
                copy.append(_MORE)
                break
            left[0] -= 1
            copy.append(self._copy(element, depth + 1, left))
        return copy


def _told(value: object) -> str:
    """
    Return in words what *value* is.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value[: LONGEST + _SLACK]).decode("utf-8", "backslashreplace")
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    # Dates, times, UUIDs and decimals read better so; everything else has its type in its repr.
    return str(value) if type(value).__module__ in {"datetime", "decimal", "fractions", "pathlib", "uuid"} else repr(value)


def _words(key: str) -> str:
    """
    Return the pattern of *key* as a word, or several in a row, of a longer name.
    """
    words = [re.escape(word) for word in re.split(r"[\W_]+", key) if word]
    if not words:
        return ""
    begins = r"(?:(?<![A-Za-z0-9])|(?-i:(?<=[a-z0-9])(?=[A-Z])))"
    ends = r"(?:(?![A-Za-z0-9])|(?-i:(?=[A-Z])))"
    return begins + r"[_-]?".join(words) + ends


def _without_argument(found: re.Match[str]) -> str:
    """
    Hide what follows an option of a command line: ``--redis-password swordfish``.
    """
    before = found.string[max(0, found.start() - 40) : found.start()]
    return f"{found[1]}{HIDDEN}" if _OPTION_BEGINS.search(before) else found[0]


def _without_login(found: re.Match[str]) -> str:
    """
    Hide the password of a URL; of one of the web also the name, which often is one.

    Where a password is not escaped as it should be, rather too much is hidden.
    """
    scheme, slashes, rest = found[1], found[2], found[3]
    login, at, host = rest.rpartition("@")
    if not at or login.endswith(f":{HIDDEN}"):
        return found[0]
    authority = re.split(r"[/?#]", login, maxsplit=1)[0]
    user, colon, _ = login.partition(":")
    if ":" not in authority or _PORT_AND_QUERY.match(login):
        if authority != login:  # An @ further on: in a path, or an address in a query.
            return found[0]
        return f"{scheme}:{slashes}{HIDDEN}@{host}" if scheme.lower() in {"http", "https"} else found[0]
    shown = HIDDEN if scheme.lower() in {"http", "https"} and authority == login else f"{user}{colon}{HIDDEN}"
    return f"{scheme}:{slashes}{shown}@{host}"


def _without_login_of_scheme(found: re.Match[str]) -> str:
    """
    Hide what follows the name of a scheme; but "basic authentication" is only two words.
    """
    scheme, space, rest = found[1], found[2], found[3]
    if scheme.lower() == "basic" and rest.islower() and rest.isalpha():
        return found[0]
    return f"{scheme}{space}{HIDDEN}"
