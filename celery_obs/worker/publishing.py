"""
Publishing: see each message through, so that what its publish began is ended however it goes.

Celery tells before a publish and after one that went well, and says nothing of one that failed; so the one method that sends every task message is wrapped.
"""

from __future__ import annotations

from typing import Any, Final

from celery_obs.hub import Hub
from celery_obs.vocabulary.tasks import PublishEnded


__all__ = ["Publishing"]


_METHOD: Final = "send_task_message"


class Publishing:
    """
    Wrap the apps of a process.

    Args:
        hub: Hears of the end of each publish.

    Threads: safe under the GIL.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._followed: set[int] = set()
        self._wrapped: list[tuple[Any, Any]] = []

    def follows(self, headers: object) -> bool:
        """
        Tell whether the end of the publish of these *headers* will be told.
        """
        return id(headers) in self._followed

    def install(self, app: Any) -> None:
        """
        Follow what *app* publishes from now on.
        """
        amqp = app.amqp
        send = getattr(amqp, _METHOD)
        if any(known is amqp for known, _ in self._wrapped):
            return

        def send_task_message(producer: Any, name: str, message: Any, *args: Any, **kwargs: Any) -> Any:
            headers = message[0]
            self._followed.add(id(headers))
            try:
                result = send(producer, name, message, *args, **kwargs)
            except BaseException as exc:
                self._end(headers, exc)
                raise
            self._end(headers, None)
            return result

        setattr(amqp, _METHOD, send_task_message)
        self._wrapped.append((amqp, send))

    def _end(self, headers: Any, error: BaseException | None) -> None:
        self._followed.discard(id(headers))
        self._hub.emit(PublishEnded(headers, error))

    def uninstall(self) -> None:
        """
        Leave the apps as they were.
        """
        for amqp, send in self._wrapped:
            setattr(amqp, _METHOD, send)
        self._wrapped.clear()
