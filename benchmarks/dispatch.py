"""
Celery's signal dispatch: what the patch in docs/explanation/faster-celery-signals.patch saves.

The stock class and the patched one are loaded side by side and send in turns.
"""

from __future__ import annotations

import importlib.util
import subprocess
import time

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from celery.utils.dispatch import signal as stock

from .harness import Report, fast_folder, in_turns
from .hooks import MICRO


PATCH: Final = Path(__file__).parents[1] / "docs" / "explanation" / "faster-celery-signals.patch"
_PLACE: Final = Path("celery/utils/dispatch/signal.py")


def patched(folder: Path) -> ModuleType:
    """
    Return the installed module with the patch, from a copy in *folder*.
    """
    copy = folder / _PLACE
    copy.parent.mkdir(parents=True)
    copy.write_bytes(Path(str(stock.__file__)).read_bytes())
    subprocess.run(
        ["git", "apply", str(PATCH)], cwd=folder, check=True, env={"GIT_CEILING_DIRECTORIES": str(folder), "PATH": "/usr/bin:/bin"}
    )
    spec = importlib.util.spec_from_file_location("celery_signal_patched", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(*, quick: bool) -> Report:
    """
    Measure a send with one and with three receivers of any sender, and with two of which one wants another sender.
    """
    batch, rounds = (500, 3) if quick else (10_000, 60)
    with fast_folder() as folder:
        classes = {"stock": stock.Signal, "patched": patched(folder).Signal}
    variants = {f"{what}, {which}": _timed(made(), senders, batch) for what, senders in _CASES.items() for which, made in classes.items()}
    taken = in_turns(variants, rounds=rounds)
    rows = []
    for what in _CASES:
        before, after = taken.median(f"{what}, stock"), taken.median(f"{what}, patched")
        rows.append((what, before, after, after / before))
    return Report(
        name="dispatch",
        title="Signal.send of Celery, stock and patched",
        columns=("receivers", "stock, median µs", "patched, median µs", "ratio"),
        rows=rows,
        limits=[],
        notes=[f"{rounds} rounds of {batch} sends a variant, in turns; the receivers do nothing."],
        samples=taken.taken,
    )


_SENDER: Final = "proj.emails.send"
_CASES: Final[dict[str, tuple[str | None, ...]]] = {
    "one, of any sender": (None,),
    "three, of any sender": (None, None, None),
    "one of any, one of another sender": (None, "proj.other"),
}


def _timed(signal: Any, senders: tuple[str | None, ...], batch: int) -> Callable[[], float]:
    for sender in senders:
        signal.connect(_empty(), sender=sender, weak=False)

    def run() -> float:
        began = time.perf_counter()
        for _ in range(batch):
            signal.send(sender=_SENDER, task_id="id", args=(), kwargs={})
        return (time.perf_counter() - began) / batch * MICRO

    return run


def _empty() -> Callable[..., None]:
    def receiver(**_: object) -> None:
        pass

    return receiver
