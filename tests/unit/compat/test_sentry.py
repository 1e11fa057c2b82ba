"""
What we assume of sentry-sdk holds on the version that is installed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import HttpTransport

from celery_obs.compat import sentry as compat


def test_a_delivery_goes_through_the_method_that_is_replaced() -> None:
    """
    An envelope that the transport takes is sent by what was put in its place.
    """
    transport: Any = HttpTransport(
        {"dsn": "http://key@127.0.0.1:9/1", "transport_queue_size": 10, "send_client_reports": False, "debug": False, **_OPTIONS}
    )
    sent: list[Envelope] = []
    assert compat.send_of(transport) is not None
    compat.replace_send(transport, sent.append)
    transport._worker = SimpleNamespace(submit=lambda call: call() or True, flush=lambda *_, **__: None, kill=lambda: None)
    envelope = Envelope()

    transport.capture_envelope(envelope)

    assert sent == [envelope]


def test_another_kind_of_transport_has_no_such_method() -> None:
    """
    None is found where there is none.
    """
    assert compat.send_of(SimpleNamespace()) is None


def _options() -> dict[str, Any]:
    from sentry_sdk.consts import DEFAULT_OPTIONS

    return {
        key: value for key, value in DEFAULT_OPTIONS.items() if key not in {"dsn", "transport_queue_size", "send_client_reports", "debug"}
    }


_OPTIONS = _options()
