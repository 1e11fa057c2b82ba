"""
The layout: lines that everybody reads alike.
"""

from __future__ import annotations

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.tasks.metrics import FINISHED, RUNTIME
from celery_obs.exceptions import LayoutError
from celery_obs.recorder.format import folder_name, node_name
from celery_obs.recorder.layout import Layout, family_line, header_line, series_line, width
from celery_obs.vocabulary.spec import Metric
from tests.strategies import label_values, metrics, portions


def written(declared: list[tuple[Metric, list[tuple[str, ...]]]]) -> bytes:
    families = [metric for metric, _ in declared]
    lines = [header_line(7), *map(family_line, families)]
    lines += [series_line(number, values) for number, (_, series) in enumerate(declared) for values in series]
    return b"".join(lines)


def read(*pieces: bytes) -> Layout:
    layout = Layout()
    for piece in pieces:
        layout.feed(piece)
    return layout


@given(st.data())
def test_reading_in_any_portions_equals_reading_at_once(data: st.DataObject) -> None:
    """
    However a layout file is cut into pieces, what it says is the same.
    """
    families = data.draw(st.lists(metrics(), unique=True, max_size=4))
    declared = [(metric, data.draw(st.lists(st.tuples(*[label_values] * len(metric.labels)), max_size=3))) for metric in families]
    whole = written(declared)

    pieces = data.draw(portions(whole))

    assert read(whole).series == read(*pieces).series
    assert read(whole).lanes == read(*pieces).lanes


@given(metrics(), st.data())
def test_a_declared_series_reads_back_as_it_was_written(metric: Metric, data: st.DataObject) -> None:
    """
    Names, labels, buckets and resolution survive the way through the file, whatever the label values hold.
    """
    values = data.draw(st.tuples(*[label_values] * len(metric.labels)))

    (series,) = read(written([(metric, [values])])).series

    assert (metric, values, 0) == (series.family, series.values, series.at)


def test_of_two_equal_lines_the_first_counts() -> None:
    """
    Two processes that declare the same series at once agree on its place.
    """
    layout = read(written([(FINISHED, [("t", "q", "success"), ("t", "q", "success"), ("t", "q", "failure")])]))

    assert 0 == layout.place(FINISHED, ("t", "q", "success"))
    assert 1 == layout.place(FINISHED, ("t", "q", "failure"))


def test_lanes_follow_one_another_by_width() -> None:
    """
    A histogram takes a lane a bucket, one for +Inf and one for the sum; what is declared next lies behind it.
    """
    layout = read(written([(RUNTIME, [("t", "q", "success")]), (FINISHED, [("t", "q", "success")])]))

    assert len(RUNTIME.buckets) + 2 == width(RUNTIME) == layout.place(FINISHED, ("t", "q", "success"))


@pytest.mark.parametrize(
    "bad", [b"garbage\n", b"[99, 'x']\n", b'{"name": "x"}\n', b"[0, 1]\n", b"[0]\n", b"null\n", b"\xff\xfe\n", b"[-1]\n"]
)
def test_a_line_that_makes_no_sense_is_passed_over_by_everybody(bad: bytes) -> None:
    """
    A torn or damaged line moves no lane, so that all readers still agree.
    """
    whole = written([(FINISHED, [("t", "q", "success")])])

    layout = read(whole + bad + series_line(0, ("t", "q", "failure")))

    assert (1, 1) == (layout.place(FINISHED, ("t", "q", "failure")), layout.bad_lines)


@pytest.mark.parametrize("first", [b"\n", b"{}\n", b'{"celery_obs": 2, "id": 3}\n', b'{"celery_obs": 1, "id": "x"}\n', b"\0\0\0\n"])
def test_a_file_that_is_no_layout_of_ours_is_refused(first: bytes) -> None:
    """
    A file with another first line is not read as a layout, and the error says what was expected.
    """
    with pytest.raises(LayoutError, match="Expected"):
        read(first)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_node_name_makes_a_folder_and_is_read_back(name: str) -> None:
    """
    Slashes, dots and emoji in a node's name do no harm to the file system, and nothing is lost.
    """
    folder = folder_name(name)

    assert name == node_name(folder)
    assert "/" not in folder


def test_folders_of_other_versions_are_not_ours() -> None:
    """
    A folder of another version of the format is told from ours by its name.
    """
    assert [None, None, None] == [node_name("w@h.v2"), node_name("w@h"), node_name(".v1")]
