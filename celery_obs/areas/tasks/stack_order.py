"""
To ask a process for its stack, with a line in the audit's log: who asked, of what, and what came of it.
"""

from __future__ import annotations

from pathlib import Path

from celery_obs.recorder.stacks import NoStackError, Stack, ask
from celery_obs.state.audit import Audit


__all__ = ["ask_audited"]


def ask_audited(metrics_dir: Path, node: str, number: int, *, actor: str, reason: str, all_threads: bool = False) -> Stack:
    """
    Ask process *number* of *node* where it is, and write down who did.

    Raises:
        NoStackError: if it cannot be asked, or does not answer.

        OSError: if the metrics directory cannot be read.
    """
    audit = Audit(None)
    try:
        stack = ask(metrics_dir, node, number, all_threads=all_threads)
    except NoStackError as error:
        audit.write("stack.show", actor=actor, reason=reason, outcome=f"refused: {error.word}", node=node, process=number)
        raise
    ids = ", ".join(attempt.id for attempt in stack.attempts)
    audit.write("stack.show", actor=actor, reason=reason, node=node, process=number, task_ids=ids)
    return stack
