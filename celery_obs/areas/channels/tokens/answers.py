"""
What a token endpoint answered, read by what is known of its provider: whether there is a token, else what that means for the grant and for us.
"""

from __future__ import annotations

import fnmatch
import json

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from .providers import ANY_PROVIDER, Provider


__all__ = ["Answer", "Meaning", "Reading", "answer_of", "read"]


Meaning: TypeAlias = Literal["token", "dead", "throttled", "later", "ours", "unknown", "none"]
"""
*token*: there is one.  *dead*: the customer has to authorise again.  *throttled*, *later*: it passes.  *ours*: the client in the settings is wrong.
*unknown*: an error in words that nothing is known of.  *none*: neither a token nor an error.
"""

_MEANINGS: Final[tuple[Meaning, ...]] = ("dead", "throttled", "later", "ours")
"""
The fields of a `Provider` that hold codes, as they are looked through.
"""

_MOST_ERRORS: Final = 20
_LONGEST_CODE: Final = 200
_LARGEST_NUMBER_SENT: Final = 10_000


class Answer(NamedTuple):
    """
    An answer of a token endpoint.

    Attributes:
        status: The status code.

        headers: Anything that has a ``get``.

        data: The object in it.  It holds secrets or unchecked text: do not log it.

    Since 0.1.
    """

    status: int
    headers: Any
    data: Mapping[str, Any]


class Reading(NamedTuple):
    """
    What an answer means.

    Attributes:
        meaning: In one word.

        code: The pattern of ours that says so, which may be shown; empty where none does.

        token: The fields of the token by the names of OAuth2; empty without one.
    """

    meaning: Meaning
    code: str
    token: Mapping[str, Any]


def answer_of(body: bytes, content_type: str) -> Mapping[str, Any] | None:
    """
    Read the object in an answer: JSON, or the form that OAuth2's drafts had, which some send to a client that does not ask for JSON.  None where it is neither.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = _form(body, content_type)
    return found if isinstance(found, dict) else None


def _form(body: bytes, content_type: str) -> Mapping[str, Any] | None:
    try:
        fields = dict(parse_qsl(body.decode("ascii"), max_num_fields=100))
    except (ValueError, UnicodeDecodeError):
        return None
    is_form = content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"
    return fields if fields and (is_form or fields.keys() & {"access_token", "error"}) else None


def read(answer: Answer, provider: Provider) -> Reading:
    """
    Tell what an answer means.
    """
    codes = tuple(_codes(answer.data, provider))
    failed = answer.status >= 400 or not _has(answer.data, provider.success)  # noqa: PLR2004 -- where HTTP's errors begin.
    if not failed and not codes:
        token = _token(answer.data, provider)
        return Reading("token", "", token) if token else Reading("none", "", {})
    if not codes:
        return Reading("none", "", {})
    meanings = dict(_meaning(code, provider) for code in codes)
    # One who cannot be sure does not end a grant: what may be our own mistake comes first.
    order: tuple[Meaning, ...] = ("ours", "throttled", "later", "dead", "unknown")
    meaning = next(each for each in order if each in meanings)
    return Reading(meaning, meanings[meaning], {})


def _has(data: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(data.get(name) == value and isinstance(data.get(name), type(value)) for name, value in wanted.items())


def _token(data: Mapping[str, Any], provider: Provider) -> Mapping[str, Any]:
    inner = data.get(provider.envelope) if provider.envelope else data
    if not isinstance(inner, Mapping):
        return {}
    found = dict(inner)
    if provider.access_token != "access_token":  # noqa: S105 -- the name of a field.
        found["access_token"] = found.pop(provider.access_token, None)
    access = found.get("access_token")
    return found if isinstance(access, str) and access else {}


def _codes(data: Mapping[str, Any], provider: Provider) -> Iterator[str]:
    """
    Go through what an answer says is wrong, each as one text.
    """
    succeeded = bool(provider.success) and _has(data, provider.success)
    for path in provider.errors:
        outer, _, inner = path.rpartition("[].")
        places = data.get(outer) if outer else [data]
        for place in (places if isinstance(places, list) else [])[:_MOST_ERRORS]:
            code = _code(place, inner.split("/"))
            if code and not succeeded:
                yield code


def _code(place: Any, names: list[str]) -> str:
    if not isinstance(place, Mapping):
        return ""
    values = [_at(place, name) for name in names]
    if all(each is None or each is False or each == "" for each in values):
        return ""
    return "/".join(_word(each) for each in values)[:_LONGEST_CODE]


def _at(place: Any, path: str) -> Any:
    for name in path.split("."):
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_NUMBER_SENT
    return str(value) if is_number else "" if value is None else "?"


def _meaning(code: str, provider: Provider) -> tuple[Meaning, str]:
    for source in (provider, ANY_PROVIDER):
        for meaning in _MEANINGS:
            for pattern in getattr(source, meaning):
                if fnmatch.fnmatchcase(code.lower(), pattern.lower()):
                    return meaning, pattern
    return "unknown", ""
