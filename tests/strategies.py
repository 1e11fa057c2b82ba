"""
Hypothesis strategies for what travels through us: label values, layouts, counts.
"""

from __future__ import annotations

from hypothesis import strategies as st

from celery_obs.vocabulary.spec import Kind, Metric


__all__ = ["awkward_passwords", "counts", "label_values", "metrics", "portions"]


label_values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""
Any text that a label may hold: quotes, line breaks and emoji included.
"""

counts = st.integers(min_value=0, max_value=2**40)
"""
What a lane may hold after a long life.
"""


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    """
    A well-formed metric of any kind.
    """
    kinds: list[Kind] = ["counter", "gauge", "histogram"]
    kind = draw(st.sampled_from(kinds))
    name = draw(st.sampled_from(["alpha", "beta", "gamma"])) + ("_total" if kind == "counter" else "")
    labels = tuple(draw(st.lists(st.sampled_from(["task", "queue", "state"]), unique=True, max_size=3)))
    buckets = tuple(sorted(draw(st.sets(st.floats(0.001, 1000), min_size=1, max_size=5)))) if kind == "histogram" else ()
    return Metric(name=name, kind=kind, help="Why?", labels=labels, buckets=buckets, resolution=draw(st.sampled_from([1.0, 1e-6, 1e-9])))


@st.composite
def portions(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """
    *data*, cut into pieces anywhere.
    """
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def awkward_passwords() -> st.SearchStrategy[str]:
    """
    Passwords of what must be escaped in a URL and often is not, with words in them by which a piece is known: ``Zq`` and four letters.
    """
    words = st.text("abcdefghijk", min_size=4, max_size=4).map(lambda letters: f"Zq{letters}")
    odd = st.text(";?#%@:/& =\\'\"[]{}$!*,<>12é", max_size=4)
    return st.lists(st.one_of(words, odd, st.just("://")), min_size=1, max_size=5).flatmap(
        lambda parts: st.tuples(st.just("".join(parts)), words).map("".join)
    )
