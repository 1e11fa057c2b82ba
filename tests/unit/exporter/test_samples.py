"""
Samples that are read back from a page: prometheus_client's parser is the oracle.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.exporter.exposition import family, render
from celery_obs.exporter.samples import Samples


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.floats(allow_nan=False, width=32)


@given(
    st.dictionaries(st.tuples(names, names), st.integers(0, 1 << 40).map(float), max_size=5),
    st.dictionaries(st.tuples(names), values, max_size=5),
)
def test_what_is_written_is_read_back(started: dict[tuple[str, str], float], depths: dict[tuple[str], float]) -> None:
    """
    Whatever labels and values are, in both formats, and whatever stands around the family.
    """
    families = [family(tasks.RECEIVED, [(("a", "b"), 1.0)]), family(tasks.STARTED, started.items()), family(queues.DEPTH, depths.items())]
    page = render(families)

    for text in (page.text, page.openmetrics):
        samples = Samples([text])

        assert started == samples.of(tasks.STARTED)
        assert depths == samples.of(queues.DEPTH)
        assert {} == samples.of(queues.UNACKED)


def test_the_first_of_two_pages_counts() -> None:
    """
    A series that two collectors show is the first one's, as in a scrape.
    """
    pages = [render([family(queues.DEPTH, [((name,), value)])]).text for name, value in (("q", 1.0), ("q", 2.0), ("r", 3.0))]

    assert {("q",): 1.0, ("r",): 3.0} == Samples(pages).of(queues.DEPTH)
