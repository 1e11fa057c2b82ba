"""
Signatures of webhooks: whether a body comes from who says so, and is not an old one sent again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

from celery_obs.exceptions import CeleryObsError, ConfigurationError


__all__ = ["Algorithm", "InvalidSignatureError", "Reason", "Secret", "check_signature"]


Algorithm: TypeAlias = Literal["sha256", "sha384", "sha512", "sha1"]

Secret: TypeAlias = str | bytes
"""
What the channel and we share; a text is taken as UTF-8.
"""

Reason: TypeAlias = Literal["missing", "malformed", "wrong", "too_old", "in_the_future"]

_DIGESTS: Final = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512, "sha1": hashlib.sha1}
_LONGEST: Final = 4096
_MOST_SIGNATURES: Final = 10
_LATEST_STAMP: Final = 12
"""
Digits.
"""


class InvalidSignatureError(CeleryObsError):
    """
    A webhook does not come from who it says, or is an old one.  Answer 401, and do nothing else with it.

    Attributes:
        reason: missing, malformed, wrong, too_old or in_the_future.
    """

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


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
    Check a signature; see `celery_obs.sync.webhooks.Hook.verify`.

    Raises:
        InvalidSignatureError: if it is not right.

        ConfigurationError: if it could never be right, because the program asks for nonsense.
    """
    keys = _keys(secrets)
    if algorithm not in _DIGESTS:
        message = f"The algorithm of the webhook's signature is {algorithm!r}. Expected one of {', '.join(_DIGESTS)}."
        raise ConfigurationError(message)
    if not isinstance(body, bytes):
        message = (
            f"A signature is over the bytes of the body as they came in, and this body is a {type(body).__name__}. "
            "Pass request.body (Django), request.get_data() (Flask) or await request.body() (FastAPI), and parse it afterwards."
        )
        raise ConfigurationError(message)
    if not signature:
        message = "The webhook has no signature. Expected one in the header that the channel documents."
        raise InvalidSignatureError(message, reason="missing")
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
    if not _any_matches(digests, [hmac.new(key, signed, _DIGESTS[algorithm]).digest() for key in keys]):
        message = "The webhook's signature is wrong: it was not made over this body with a secret that we know."
        raise InvalidSignatureError(message, reason="wrong")


def _keys(secrets: Sequence[Secret]) -> list[bytes]:
    keys = [secret.encode() if isinstance(secret, str) else secret for secret in secrets]
    if not keys or not all(keys):
        message = "The secret of the webhook's signature is empty: everybody could sign. Expected a text or bytes, or several of them."
        raise ConfigurationError(message)
    return keys


def _malformed() -> InvalidSignatureError:
    message = "The webhook's signature is none: expected hexadecimal or base64 digits, or t=…,v1=… where a time is signed, too."
    return InvalidSignatureError(message, reason="malformed")


def _timed(signature: str, timestamp: str | None) -> tuple[str, list[str]]:
    # As in t=1700000000,v1=…,v1=…; or the time has a header of its own.
    pairs = [each.strip().partition("=") for each in signature.split(",")]
    stamps = [value for name, _, value in pairs if name == "t"]
    if timestamp is None and stamps:
        return stamps[0], [value for name, _, value in pairs if name.startswith("v")]
    return timestamp or "", [signature]


def _check_age(stamp: str, tolerance: float, now: float) -> None:
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= _LATEST_STAMP):
        message = "The webhook's signature has no time, or one that is not in whole seconds since the epoch."
        raise InvalidSignatureError(message, reason="malformed")
    age = now - int(stamp)
    if age > tolerance:
        message = f"The webhook was signed {age:.0f} s ago, and at most {tolerance:g} s are allowed: it may be an old one sent again."
        raise InvalidSignatureError(message, reason="too_old")
    if age < -tolerance:
        message = f"The webhook was signed {-age:.0f} s in the future. Do the clocks agree?"
        raise InvalidSignatureError(message, reason="in_the_future")


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
