"""
Signatures of webhooks: whether a body comes from who says so, and is not an old one sent again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from celery_obs.areas.channels.api_calls.headers import lowered, moment_of
from celery_obs.exceptions import CeleryObsError, ConfigurationError


if TYPE_CHECKING:
    from .schemes import SignatureScheme


__all__ = ["Algorithm", "InvalidSignatureError", "Reason", "Secret", "Signed", "check_scheme", "check_signature"]


Algorithm: TypeAlias = Literal["sha256", "sha384", "sha512", "sha1"]

Secret: TypeAlias = str | bytes
"""
What the channel and we share; a text is taken as UTF-8.
"""

Reason: TypeAlias = Literal["missing", "malformed", "wrong", "too_old", "in_the_future"]

_DIGESTS: Final = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512, "sha1": hashlib.sha1}
_LONGEST: Final = 4096
_MOST_SIGNATURES: Final = 10
_LONGEST_STAMP: Final = 40


class InvalidSignatureError(CeleryObsError):
    """
    A webhook does not come from who it says, or is an old one.  Answer 401, and do nothing else with it.

    Attributes:
        reason: missing, malformed, wrong, too_old or in_the_future.

    Since 0.1.
    """

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


class Signed(NamedTuple):
    """
    What a right signature also vouches for.

    Attributes:
        event_id: The event's id, where the scheme signs it; else empty.

        at: When it was signed, in seconds since the epoch; None where the scheme signs no time.

    Since 0.1.
    """

    event_id: str
    at: float | None


# --- by the header's value --------------------------------------------------------------------------------------------------------


def check_signature(
    body: bytes,
    signature: str | None,
    *,
    secrets: Sequence[Secret],
    algorithm: Algorithm,
    tolerance: float | None,
    timestamp: str | None,
    now: float,
) -> None:
    """
    Check a signature; see `celery_obs.areas.channels.webhooks.api.Hook.verify`.

    Raises:
        InvalidSignatureError: if it is not right.

        ConfigurationError: if it could never be right, because the program asks for nonsense.
    """
    keys = _keys(secrets)
    if algorithm not in _DIGESTS:
        message = f"The algorithm of the webhook's signature is {algorithm!r}. Expected one of {', '.join(_DIGESTS)}."
        raise ConfigurationError(message)
    _check_body(body)
    if not signature:
        raise _missing("signature", "the header that the channel documents")  # noqa: EM101 -- words of the message.
    if len(signature) > _LONGEST:
        raise _malformed()
    signed, given = body, [signature]
    if tolerance is not None:
        stamp, given = _timed(signature, timestamp)
        _check_age(stamp, tolerance, now)
        signed = stamp.encode() + b"." + signed
    size = _DIGESTS[algorithm]().digest_size
    digests = [digest for each in given[:_MOST_SIGNATURES] for digest in _digests(each, algorithm, size)]
    if not digests:
        raise _malformed()
    _check_match(digests, keys, signed, algorithm)


def _check_body(body: object) -> None:
    if not isinstance(body, bytes):
        message = (
            f"A signature is over the bytes of the body as they came in, and this body is a {type(body).__name__}. "
            "Pass request.body (Django), request.get_data() (Flask) or await request.body() (FastAPI), and parse it afterwards."
        )
        raise ConfigurationError(message)


def _check_match(digests: Sequence[bytes], keys: Sequence[bytes], signed: bytes, algorithm: Algorithm) -> None:
    if not _any_matches(digests, [hmac.new(key, signed, _DIGESTS[algorithm]).digest() for key in keys]):
        message = "The webhook's signature is wrong: it was not made over this body with a known secret."
        raise InvalidSignatureError(message, reason="wrong")


def _missing(what: str, where: str) -> InvalidSignatureError:
    message = f"The webhook has no {what}. Expected one in {where}."
    return InvalidSignatureError(message, reason="missing")


def _keys(secrets: Sequence[Secret]) -> list[bytes]:
    keys = [secret.encode() if isinstance(secret, str) else secret for secret in secrets]
    if not keys or not all(keys):
        message = "The secret of the webhook's signature is empty: anyone could sign. Expected a text or bytes, or several of them."
        raise ConfigurationError(message)
    return keys


def _malformed() -> InvalidSignatureError:
    message = "The webhook's signature is malformed: expected hexadecimal or base64 digits, or t=…,v1=… where a time is signed, too."
    return InvalidSignatureError(message, reason="malformed")


def _timed(signature: str, timestamp: str | None) -> tuple[str, list[str]]:
    # As in t=1700000000,v1=…,v1=…; or the time has a header of its own.
    pairs = [each.strip().partition("=") for each in signature.split(",")]
    stamps = [value for name, _, value in pairs if name == "t"]
    if timestamp is None and stamps:
        return stamps[0], [value for name, _, value in pairs if name.startswith("v")]
    return timestamp or "", [signature]


def _check_age(stamp: str, tolerance: float, now: float) -> float:
    """
    Return the moment that *stamp* tells, if it is not too far from *now*.
    """
    moment = _moment(stamp)
    if moment is None:
        message = "The webhook's signature has no time, or an invalid one. Expected seconds or milliseconds since the epoch, or ISO 8601."
        raise InvalidSignatureError(message, reason="malformed")
    age = now - moment
    if age > tolerance:
        message = f"The webhook was signed {age:.0f} s ago, and at most {tolerance:g} s are allowed: it may be an old one sent again."
        raise InvalidSignatureError(message, reason="too_old")
    if age < -tolerance:
        message = f"The webhook was signed {-age:.0f} s in the future. Do the clocks agree?"
        raise InvalidSignatureError(message, reason="in_the_future")
    return moment


def _moment(stamp: str) -> float | None:
    if not stamp.isascii() or len(stamp) > _LONGEST_STAMP:
        return None
    moment = moment_of(stamp)
    # A number that is too small for a time of our days is one of long ago.
    return float(stamp) if moment is None and stamp.isdecimal() else moment


def _digests(written: str, algorithm: str, size: int) -> Iterable[bytes]:
    prefix, found, rest = written.strip().partition("=")
    text = rest if found and prefix.lower() == algorithm else written.strip()
    for decode in (bytes.fromhex, _base64):
        try:
            digest = decode(text)
        except (ValueError, binascii.Error):
            continue
        if len(digest) == size:
            yield digest


def _base64(text: str) -> bytes:
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def _any_matches(given: Sequence[bytes], expected: Sequence[bytes]) -> bool:
    # All are compared, in constant time each: how long it takes tells nothing.
    matches = [hmac.compare_digest(one, other) for one in given for other in expected]
    return any(matches)


# --- by a scheme ------------------------------------------------------------------------------------------------------------------


def check_scheme(
    scheme: SignatureScheme, body: bytes, headers: Any, *, secrets: Sequence[Secret], tolerance: float | None, now: float
) -> Signed:
    """
    Check a signature as its provider makes it; see `celery_obs.areas.channels.webhooks.api.Hook.verify_as`.

    Raises:
        InvalidSignatureError: if it is not right.

        ConfigurationError: if it could never be right.
    """
    keys = [_scheme_key(scheme, secret) for secret in _keys(secrets)]
    _check_body(body)
    known = lowered(headers)
    written = _first(known, scheme.signature, "signature")
    values, stamp = _parts(scheme, written)
    if scheme.timestamp:
        stamp = _first(known, scheme.timestamp, "time")
    event_id = _first(known, scheme.id, "id") if scheme.id else ""
    size = _DIGESTS[scheme.algorithm]().digest_size
    digests = [digest for value in values[:_MOST_SIGNATURES] for digest in _decoded(value, scheme.encoding, size)]
    if not digests:
        raise _malformed()
    is_timed = "timestamp" in scheme.signed
    at = _check_age(stamp, scheme.tolerance if tolerance is None else tolerance, now) if is_timed else None
    pieces = {"id": event_id.encode(), "timestamp": stamp.encode(), "body": body}
    signed = b"".join(pieces[piece] if piece in pieces else piece.encode() for piece in scheme.signed)
    _check_match(digests, keys, signed, scheme.algorithm)
    return Signed(event_id if "id" in scheme.signed else "", at)


def _first(known: Mapping[str, str], names: Sequence[str], what: str) -> str:
    found = next((value for name in names if (value := known.get(name.lower()))), None)
    if found is None:
        raise _missing(what, f"the header {names[0]}")
    if len(found) > _LONGEST or not found.isascii():
        raise _malformed()
    return found


def _parts(scheme: SignatureScheme, written: str) -> tuple[list[str], str]:
    """
    Return the signatures in a header, and the time that stands there.
    """
    if not scheme.separator:
        return ([written.removeprefix(scheme.prefix)] if written.startswith(scheme.prefix) else []), ""
    pairs = [part.strip().partition(scheme.assign) for part in written.split(scheme.separator)]
    values = [value for name, _, value in pairs if name == scheme.key]
    return values, next((value for name, _, value in pairs if scheme.time_key and name == scheme.time_key), "")


def _decoded(value: str, encoding: str, size: int) -> Iterable[bytes]:
    try:
        digest = bytes.fromhex(value) if encoding == "hex" else base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return
    if len(digest) == size:
        yield digest


def _scheme_key(scheme: SignatureScheme, key: bytes) -> bytes:
    if not scheme.secret_prefix:
        return key
    text = key.removeprefix(scheme.secret_prefix.encode())
    try:
        decoded = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        decoded = b""
    if not decoded:
        message = f"A secret of the scheme {scheme.name} is not what the provider shows. Expected base64, with {scheme.secret_prefix} before it or without."
        raise ConfigurationError(message)
    return decoded
