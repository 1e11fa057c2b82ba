"""
Redaction: how secrets are kept out of everything that leaves a process in words: log lines, spans, error reports, commands' answers.

`redact` is for a text of any kind, `redact_url` for what is known to be a URL, `reason` for the words of an error of another library,
`without_secrets` for an error whose traceback is logged, and a `Redactor` for what tasks say, with the names that an app adds.

A secret is known by the name that it goes under, or by its own looks.  Where one of the two is in doubt, rather too much is hidden.
What a person writes in a sentence ("the password is swordfish") looks like nothing and stays.

All work is bounded: in time, which grows no faster than the text; in depth; in size.  Nothing here raises.
"""

from __future__ import annotations

import math
import re
import traceback

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any, Final
from urllib.parse import unquote


__all__ = [
    "HIDDEN",
    "LONGEST",
    "Redactor",
    "alternatives",
    "is_secret_name",
    "reason",
    "redact",
    "redact_url",
    "secrets_in",
    "without_secrets",
]


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

_URL: Final = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}://")
_ADDRESSES: Final = r"(?:\[[0-9A-Fa-f:.%]{2,60}\]|[\w.~%-]{0,255})(?::\d{1,5})?"
_PLACE: Final = re.compile(
    rf"(?P<hosts>{_ADDRESSES}(?:,{_ADDRESSES})*)(?P<path>/[\w./%~:+,=!$*-]*)?(?:\?(?P<query>[^\s#@;?]*))?(?P<rest>#[\w-]*)?"
)
_LOGIN: Final = re.compile(r"(?P<user>[^\s:/@?#;,'\"<>]*)(?P<colon>:(?P<password>[^\s:/@?#;]*))?@")
_USER: Final = re.compile(r"[\w.~%$!*+=-]{0,255}")
_PORT: Final = re.compile(r"\d{1,5}(?=[/?#'\"<>)\]},;.:|\\]|\Z)")
_WITH_COLON: Final = re.compile(r"://(?:|[^\s/?#:@\[]+):(?!(?<=[^/]:)\d{1,5}(?!\w))")
"""
What a URL has in which a password begins and no @ ends it: a quick look, which finds more than there is.
"""

_PORT_AND_QUERY: Final = re.compile(r"[^:/?#]*:\d{1,5}/?[^:/?#]*\?")
_WEB: Final = frozenset({"http", "https"})
_WITHOUT_USERS: Final = ("redis", "valkey", "sentinel", "unix")
"""
What begins the schemes of servers for which a user without a password makes no sense: what stands there is the password.
"""

_LONGEST_URL: Final = 2_048
_EXAMPLES: Final = frozenset({"password", HIDDEN, "**"})
"""
What stands in the place of a password in our own advice, or is hidden already.
"""

_QUOTING: Final = re.compile(
    r"(?P<before>could not be cast to integer value as |with args beginning with: |found (?:undefined alias|duplicate anchor) "
    r"|for the tag |(?=netloc .{1,2048} contains invalid characters)netloc )"
    r".*?(?P<after> contains invalid characters[^\n]*)?(?=\n|\Z)"
)
_QUOTING_CLUES: Final = ("integer value as", "args beginning", "netloc ", "found undefined alias", "found duplicate anchor", "for the tag")
"""
How Python, Redis and YAML quote what they were given, which may be a part of a password: a port that is none, the arguments of an unknown command,
a value that begins with an asterisk.
"""

_SHORTEST_QUOTING: Final = 24

_REPRESENTED: Final = re.compile(r"(?<=[(,]password=)(?!\*\*\*).*?(?=,[a-z_]{2,40}=|\)>|\n|\Z)", re.DOTALL)
"""
The password in what older versions of redis-py say that a connection is, which has no quotes.
"""
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
            text = _without_logins(text)
        if "begin " in low:
            text = _PEM.sub(HIDDEN, text)
        if "bearer" in low or "basic" in low or "negotiate" in low:
            text = _SCHEMES.sub(_without_login_of_scheme, text)
        if any(clue in low for clue in self._clues):
            if "password=" in low and "connection(" in low:
                text = _REPRESENTED.sub(HIDDEN, text)
            text = _LINE.sub(rf"\g<1>{HIDDEN}", text)
            text = self._pair.sub(self._without_value, text)
            if "--" in low:
                text = _OPTION.sub(_without_argument, text)
        if any(sign in low for sign in _OF_OAUTH):
            text = _CODE.sub(rf"\g<1>\g<2>{HIDDEN}", text)
        if len(low) >= _SHORTEST_QUOTING and any(clue in low for clue in _QUOTING_CLUES):
            text = _QUOTING.sub(_without_quote, text)
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
            # Not the methods of a user's own subclass of str.
            return self.text(value if type(value) is str else str.__str__(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, depth, left)
            if isinstance(value, list | tuple | AbstractSet):
                return self._sequence(value, depth, left)
            return self.text(_as_text(value))
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
            name = key if type(key) is str else _as_text(key)
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
            name = _as_text(value[0]) if isinstance(value[0], str | bytes) else ""
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


def _as_text(value: object) -> str:
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


def _without_quote(found: re.Match[str]) -> str:
    return f"{found['before']}{HIDDEN}{found['after'] or ''}"


# --- URLs -------------------------------------------------------------------------------------------------------------------------


def alternatives(url: str) -> list[str]:
    """
    Divide a list of URLs at ``;``; what follows one that stands in a password belongs to it.
    """
    parts: list[str] = []
    for part in url.split(";"):
        # A password ends at an @: before there is one, a ; is a part of it.
        if parts and ("://" not in part or _is_open(parts[-1])) and ("@" in part or _is_open(parts[-1])):
            parts[-1] += ";" + part
        else:
            parts.append(part)
    return parts


def _is_open(url: str) -> bool:
    """
    Tell whether *url* ends in the middle of a password: there is a colon and what follows is no port, and no @.
    """
    _, found, rest = url.partition("://")
    _, colon, after = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition(":")
    return bool(found and colon) and "@" not in rest and not rest.startswith("[") and not re.fullmatch(r"\d{0,5}", after)


def redact_url(url: str) -> str:
    """
    Return *url*, or several divided by ``;``, without secrets: the passwords of all its hosts, and what goes under a secret's name in its query.

    What does not look as a URL should, because a password in it is not escaped, is hidden as far as the last ``@``.
    """
    shown = [_shown(part) for part in re.split(r";(?=[A-Za-z][A-Za-z0-9+.-]*://)|;(?!.*@)", url)]
    schemes = {part.partition("://")[0][:4].lower() for part in shown if part and "://" in part}
    if None not in shown and len(schemes) <= 1:
        return ";".join(part for part in shown if part is not None)
    return _shown_in_part(url)


def _shown(url: str) -> str | None:
    """
    Return a single URL without secrets; None where it is not written as it should be.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return _of_place(url)
    login = _LOGIN.match(rest)
    place = _of_place(rest[login.end() if login else 0 :])
    if place is None or not _URL.fullmatch(f"{scheme}://"):
        return None
    return f"{scheme}://{_of_login(scheme, login)}{place}"


def _of_login(scheme: str, login: re.Match[str] | None) -> str:
    if login is None:
        return ""
    user, is_secret = login["user"], scheme.lower() in _WEB or (login["colon"] is None and scheme.lower().startswith(_WITHOUT_USERS))
    return f"{HIDDEN}@" if is_secret and user else f"{user}{f':{HIDDEN}' if login['colon'] else ''}@"


def _of_place(text: str) -> str | None:
    found = _PLACE.fullmatch(text)
    if found is None:
        return None
    query = found["query"]
    pairs = [] if query is None else [_of_pair(pair) for pair in query.split("&")]
    return f"{found['hosts']}{found['path'] or ''}{'' if query is None else '?'}{'&'.join(pairs)}{found['rest'] or ''}"


def _of_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not pair or (re.fullmatch(r"\w{1,60}", name) and equals and not is_secret_name(name) and re.fullmatch(r"[\w./:,%+-]*", value)):
        return pair
    return f"{name}={HIDDEN}" if equals and re.fullmatch(r"[\w-]{1,60}", name) else HIDDEN


def _shown_in_part(url: str) -> str:
    """
    Return of a URL that is not written as it should be what is certainly no password: the scheme, the user, and what follows the last @.
    """
    scheme, found, rest = url.partition("://")
    if not found or not _URL.fullmatch(f"{scheme}://"):
        scheme, found, rest = "", "", url
    login, at, after = rest.rpartition("@")
    user, colon, _ = (login if at else rest).partition(":")
    known = user if colon and found and _USER.fullmatch(user) and scheme.lower() not in _WEB else None
    # An @ may stand in a password that stands in the query.
    is_in_query = any(is_secret_name(name) for name in re.findall(r"[?&]([\w-]{1,60})=", login))
    place = _of_place(after) if at and not is_in_query else None
    return f"{scheme}{found}{'' if known is None else f'{known}:'}{HIDDEN}{'' if place is None else f'@{place}'}"


def _without_logins(text: str) -> str:
    """
    Hide the passwords of all URLs in a text; of those of the web also the user, which often is one.
    """
    if "hooks.slack.com" in text.lower():
        text = _WEBHOOK.sub(rf"\g<1>{HIDDEN}", text)
    if "@" not in text and not _WITH_COLON.search(text):
        return text
    parts: list[str] = []
    done = 0
    for found in _URL.finditer(text):
        if found.start() < done:  # In a password.
            continue
        shown, end = _without_login(text, found)
        parts += [text[done : found.end()], shown]
        done = end
    return "".join(parts) + text[done:] if parts else text


def _without_login(text: str, found: re.Match[str]) -> tuple[str, int]:
    """
    Return what may be shown of what follows a scheme in a text, and where in the text that ends.
    """
    begin, scheme = found.end(), found[0][:-3].lower()
    token = _token(text, found)
    login, at, _ = token.rpartition("@")
    if at:
        return _without_token_login(scheme, login), begin + len(login)
    user, colon, rest = re.split(r"[/?#]", token, maxsplit=1)[0].partition(":")
    if not colon or user.startswith("[") or (user and (_PORT.match(rest) or not rest)):
        return "", begin
    # A password with a space in it, or one that was cut off.
    line = text[begin : begin + _LONGEST_URL].partition("\n")[0]
    login, at, _ = line.rpartition("@")
    if not at and (rest in _EXAMPLES or scheme == "file"):
        return "", begin
    return f"{user}:{HIDDEN}", begin + (len(login) if at else len(token))


def _token(text: str, found: re.Match[str]) -> str:
    """
    Return what follows a scheme as far as the URL may go: to a space, or to the end of the quotes that it stands in.
    """
    token = re.match(r"\S*", text[found.end() : found.end() + _LONGEST_URL])[0]  # type: ignore[index]  # It matches the empty text.
    quote = text[found.start() - 1 : found.start()]
    if quote in {"'", '"', "`"} and quote:
        ends = re.search(rf"{quote}(?!\w)", token)
        return token[: ends.start()] if ends else token
    return token


def _without_token_login(scheme: str, login: str) -> str:
    authority = re.split(r"[/?#]", login, maxsplit=1)[0]
    user, colon, password = login.partition(":")
    is_web = scheme in _WEB
    if password in _EXAMPLES and colon:
        return login
    if ":" not in authority or (is_web and _PORT_AND_QUERY.match(login)):
        if authority != login and is_web:  # An @ further on: in a path, or an address in a query.
            return login
        return HIDDEN if login and (is_web or scheme.startswith(_WITHOUT_USERS)) else login
    return HIDDEN if is_web and authority == login else f"{user}:{HIDDEN}"


def secrets_in(url: str) -> Iterator[str]:
    """
    Go through what is secret in *url*, or in several divided by ``;``, and through the pieces in which a library that reads it wrongly may quote it.
    """
    for part in {*alternatives(url), url}:
        rest = part.partition("://")[2]
        login, at, after = rest.rpartition("@")
        user, colon, password = login.partition(":")
        written = [password] if colon else [user] if part.lower().startswith(_WITHOUT_USERS) else []
        written += [value for name, value in re.findall(r"([\w-]{1,60})=([^&;#]*)", after if at else rest) if is_secret_name(name)]
        for secret in written:
            yield from {secret, unquote(secret)}
            yield from (piece for piece in re.split(r"[/?#;@:&=\s\[\]\\]+", secret) if len(piece) >= _SHORTEST_PIECE)


_SHORTEST_PIECE: Final = 3


# --- texts of any kind ------------------------------------------------------------------------------------------------------------


@cache
def _plain() -> Redactor:
    return Redactor()


def is_secret_name(name: str) -> bool:
    """
    Tell whether what goes under *name* is a secret.
    """
    return _plain().is_secret(name)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """
    Return *text* without the secrets in it: passwords in URLs, what goes under a secret's name, what looks like a token or a key.

    Args:
        text: Any text; for what is wholly a URL, `redact_url` knows more.

        secrets: What is known to be secret, which is hidden wherever it stands.
    """
    for secret in sorted({secret for secret in secrets if secret}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)" if len(secret) < _SHORTEST_PIECE else re.escape(secret), HIDDEN, text)
    return _plain().text(text)


def reason(error: BaseException, *urls: str, secrets: Iterable[str] = ()) -> str:
    """
    Return the words of an error of another library on one line, without the secrets in them; the name of its type where it has none.

    Args:
        error: Of kombu, redis-py or any other.

        urls: What it is about: what is secret in them is hidden, whole or in pieces, however the library quotes it.

        secrets: What else is known to be secret.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 -- a user's __str__.
        text = ""
    return redact(text, [*secrets, *(secret for url in urls for secret in secrets_in(url))]) or type(error).__name__


def without_secrets(error: BaseException) -> BaseException:
    """
    Return what to log the traceback of: *error* itself, or one in its place, with the same frames, if a secret stands in its words or its causes'.
    """
    try:
        shown = "".join(traceback.format_exception_only(type(error), error))
        causes = error.__cause__, error.__context__
        safe = tuple(cause and without_secrets(cause) for cause in causes)
        if redact(shown) == shown and safe == causes:
            return error
        kind = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})
        other: BaseException = kind(reason(error)).with_traceback(error.__traceback__)
        other.__cause__, other.__context__ = safe
        other.__suppress_context__ = error.__suppress_context__
    except Exception:  # noqa: BLE001 -- a user's __str__, or a chain without end.
        return Exception(type(error).__name__).with_traceback(error.__traceback__)
    return other


def _without_login_of_scheme(found: re.Match[str]) -> str:
    """
    Hide what follows the name of a scheme; but "basic authentication" is only two words.
    """
    scheme, space, rest = found[1], found[2], found[3]
    if scheme.lower() == "basic" and rest.islower() and rest.isalpha():
        return found[0]
    return f"{scheme}{space}{HIDDEN}"
