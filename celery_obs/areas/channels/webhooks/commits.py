"""
When a transaction is over: what is told after a commit, and what is forgotten after a rollback.

The protocol is that of Django's ``transaction.on_commit``: a function that takes a callback, calls it after the commit, and drops it when the
transaction is rolled back.  `commits_of` makes one for a session of SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from celery_obs.exceptions import ConfigurationError


__all__ = ["OnCommit", "commits_of"]


OnCommit: TypeAlias = Callable[[Callable[[], None]], object]
"""
Calls what it is given after the transaction's commit, at once where none is open; and lets go of it, uncalled, when it is rolled back.

Since 0.1.
"""


def commits_of(session: Any) -> OnCommit:
    """
    Return what tells of the commits of a session of SQLAlchemy, from now on; make it before the work begins.

    A block whose work was committed inside it, or that wrote nothing, is settled when it ends; else it is the next commit or rollback that settles it.

    Args:
        session: A ``Session`` or ``AsyncSession``.

    Raises:
        ConfigurationError: if it is another thing.

    Since 0.1.
    """
    try:
        from sqlalchemy import event
        from sqlalchemy.orm import Session
    except ImportError as exc:
        message = "commits_of needs SQLAlchemy, which is not installed. Install it with: pip install sqlalchemy"
        raise ImportError(message) from exc
    found = getattr(session, "sync_session", session)
    if callable(getattr(found, "registry", None)):
        found = found()  # A scoped_session, of which this thread's is meant.
    if not isinstance(found, Session):
        message = f"commits_of was given a {type(session).__name__}. Expected a Session, an AsyncSession or a scoped_session of SQLAlchemy."
        raise ConfigurationError(message)
    watch = found.info.get(_WATCH)
    if not isinstance(watch, _Watch):
        watch = found.info[_WATCH] = _Watch()
        for name in ("after_flush", "do_orm_execute", "after_commit", "after_transaction_end"):
            event.listen(found, name, getattr(watch, name))
    return _SessionCommits(found, watch)


_WATCH: Final = "celery_obs.commits"


class _Watch:
    """
    Listens to one session for as long as that lives; its methods are called as the events are.
    """

    def __init__(self) -> None:
        self.wrote = False
        self.commits = 0
        self.waiting: list[Callable[[], None]] = []

    def after_flush(self, *_: object) -> None:
        self.wrote = True

    def do_orm_execute(self, state: Any) -> None:
        self.wrote = self.wrote or not state.is_select

    def after_commit(self, session: Any) -> None:
        if session.in_nested_transaction():
            return  # A savepoint was released; what is around it may yet be rolled back.
        self.wrote = False
        self.commits += 1
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()

    def after_transaction_end(self, _: Any, transaction: Any) -> None:
        if transaction.parent is None:
            # What still waits was rolled back, or closed without a commit: the webhook notices that it is let go.
            self.wrote = False
            self.waiting.clear()


class _SessionCommits:
    """
    The commits of one session, from a moment on.
    """

    def __init__(self, session: Any, watch: _Watch) -> None:
        self._session = session
        self._watch = watch
        self._before = watch.commits

    def __call__(self, callback: Callable[[], None]) -> None:
        if self._is_pending():
            self._watch.waiting.append(callback)
        else:
            callback()

    def _is_pending(self) -> bool:
        session, watch = self._session, self._watch
        if not session.in_transaction():
            return False
        # After a commit inside the block, a transaction that only reads has nothing to lose.
        return watch.wrote or watch.commits == self._before or bool(session.new or session.dirty or session.deleted)
