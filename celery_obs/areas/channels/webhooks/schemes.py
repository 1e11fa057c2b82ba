"""
How providers sign their webhooks, as data: which headers, over what, and how it is written.

Each names the document of the provider that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from celery_obs.exceptions import ConfigurationError

from .signatures import Algorithm


__all__ = ["SCHEMES", "SignatureScheme", "scheme_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureScheme:
    """
    How one provider signs.

    Attributes:
        name: What it is called.

        document: Where the provider says so.

        signature: Names of the header that has the signature; the first that is there counts.

        signed: What is signed, piece by piece: ``id``, ``timestamp`` and ``body`` stand for these, everything else for itself.

        id: Names of the header that has the event's id.

        timestamp: Names of the header that has the time.

        separator: What stands between several parts of the signature's header; empty where it has one part.

        assign: What stands between the name of a part and its value.

        key: Name of the parts that are signatures; others are passed over.

        time_key: Name of the part that is the time.

        prefix: What stands before a signature that is the header's one part.

        encoding: How the signature is written.

        algorithm: The hash.

        secret_prefix: Where not empty, the secret is base64, and this may stand before it.

        tolerance: Seconds that a webhook may be old, or its time ahead of ours.

    Since 0.1.
    """

    name: str
    document: str = ""
    signature: tuple[str, ...]
    signed: tuple[str, ...] = ("body",)
    id: tuple[str, ...] = ()
    timestamp: tuple[str, ...] = ()
    separator: str = ""
    assign: str = "="
    key: str = ""
    time_key: str = ""
    prefix: str = ""
    encoding: Literal["hex", "base64"] = "hex"
    algorithm: Algorithm = "sha256"
    secret_prefix: str = ""
    tolerance: float = 300.0


_STANDARD: Final = SignatureScheme(
    name="standard-webhooks",
    document="https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
    signature=("webhook-signature",),
    id=("webhook-id",),
    timestamp=("webhook-timestamp",),
    signed=("id", ".", "timestamp", ".", "body"),
    separator=" ",
    assign=",",
    key="v1",
    encoding="base64",
    secret_prefix="whsec_",  # noqa: S106 -- what each secret begins with, and none itself.
)

SCHEMES: Final[Mapping[str, SignatureScheme]] = {
    scheme.name: scheme
    for scheme in (
        _STANDARD,
        # The same, under headers of its own as well.
        replace(
            _STANDARD,
            name="svix",
            document="https://docs.svix.com/receiving/verifying-payloads/how-manual",
            signature=("svix-signature", "webhook-signature"),
            id=("svix-id", "webhook-id"),
            timestamp=("svix-timestamp", "webhook-timestamp"),
        ),
        SignatureScheme(
            name="stripe",
            document="https://docs.stripe.com/webhooks#verify-manually",
            signature=("stripe-signature",),
            signed=("timestamp", ".", "body"),
            separator=",",
            key="v1",
            time_key="t",
        ),
        SignatureScheme(
            name="shopify",
            document="https://shopify.dev/docs/apps/build/webhooks/subscribe/https",
            signature=("x-shopify-hmac-sha256",),
            encoding="base64",
        ),
        SignatureScheme(
            name="github",
            document="https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
            signature=("x-hub-signature-256",),
            prefix="sha256=",
        ),
        SignatureScheme(
            name="slack",
            document="https://docs.slack.dev/authentication/verifying-requests-from-slack",
            signature=("x-slack-signature",),
            timestamp=("x-slack-request-timestamp",),
            signed=("v0:", "timestamp", ":", "body"),
            prefix="v0=",
        ),
        SignatureScheme(
            name="zendesk",
            document="https://developer.zendesk.com/documentation/webhooks/verifying/",
            signature=("x-zendesk-webhook-signature",),
            timestamp=("x-zendesk-webhook-signature-timestamp",),
            signed=("timestamp", "body"),
            encoding="base64",
        ),
        SignatureScheme(
            name="paddle",
            document="https://developer.paddle.com/webhooks/signature-verification",
            signature=("paddle-signature",),
            signed=("timestamp", ":", "body"),
            separator=";",
            key="h1",
            time_key="ts",
        ),
        SignatureScheme(
            name="typeform",
            document="https://www.typeform.com/developers/webhooks/secure-your-webhooks/",
            signature=("typeform-signature",),
            prefix="sha256=",
            encoding="base64",
        ),
    )
}
"""
The schemes that have a name.

Since 0.1.
"""


def scheme_of(scheme: str | SignatureScheme) -> SignatureScheme:
    """
    Return a scheme by its name, or as it is.

    Raises:
        ConfigurationError: if none has that name.
    """
    found = SCHEMES.get(scheme) if isinstance(scheme, str) else scheme
    if isinstance(found, SignatureScheme):
        return found
    message = f"The webhook's signature scheme is {scheme!r:.100}. Expected one of {', '.join(SCHEMES)}, or a SignatureScheme of your own."
    raise ConfigurationError(message)
