"""
``python -m celery_obs.demo.provider``: the fake channel as a process of its own; it prints its URL and serves until it is ended.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading

from typing import Any

import click

from .events import Sender
from .server import Provider


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port on loopback; 0 for any free one.")
@click.option("--channel", "channels", multiple=True, help="A channel to play below a path of its name; repeatable.")
@click.option("--client-id", default="demo-client", show_default=True, help="What clients of the token endpoint are called.")
@click.option("--client-secret", envvar="CELERY_OBS_DEMO_CLIENT_SECRET", default="demo-secret", help="What they know.")
@click.option("--token-lifetime", type=float, default=3600.0, show_default=True, help="Seconds that an access token is good for.")
@click.option("--reuse-grace", is_flag=True, help="Accept the last refresh token again until the new one was used.")
@click.option(
    "--rate-limit", type=click.IntRange(min=1), help="Calls of the inventory that a channel takes in a window.  [default: any number]"
)
@click.option("--rate-window", type=float, default=10.0, show_default=True, help="Seconds of that window.")
@click.option(
    "--retry-after", type=click.Choice(["seconds", "date"]), default="seconds", show_default=True, help="How Retry-After is written."
)
@click.option("--webhook-url", help="Where each channel's webhooks go, below this: URL/CHANNEL.  [default: nowhere]")
@click.option("--webhook-secret", envvar="CELERY_OBS_DEMO_WEBHOOK_SECRET", default="demo-secret", help="What they are signed with.")
@click.option("--webhook-every", type=click.FloatRange(min=0.01), default=0.5, show_default=True, help="Seconds between two of them.")
def main(webhook_url: str | None, webhook_secret: str, webhook_every: float, channels: tuple[str, ...], **options: Any) -> None:
    """
    Serve a fake channel on loopback: OAuth2 tokens that rotate, calendars, rate limits, webhooks, and faults at /admin/faults.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(Provider(channels=channels, **options))
        if webhook_url:
            sender = Sender(webhook_url, secret=webhook_secret, channels=channels, every=webhook_every)
            stack.callback(sender.stop)
            sender.start()
        sys.stdout.write(f"{provider.url}\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
