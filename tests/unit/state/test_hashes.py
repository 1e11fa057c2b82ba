"""
Fields read many at once are what they would be one by one.
"""

from __future__ import annotations

import json

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.state.hashes import Decoder, fields, objects, one_object


values = st.one_of(
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2).map(json.dumps),
    st.sampled_from(["", "null", "[", "]", "{", "1,2", "}{", "NaN", '"', "\n", "[" * 5000]),
)


@given(st.lists(values.filter(lambda value: value not in {"[", "]", "1,2"}), max_size=6))
def test_many_at_once_are_what_each_is_alone(texts: list[str]) -> None:
    """
    One that is none becomes None, and those beside it are read.
    """
    assert list(map(repr, map(one_object, texts))) == list(map(repr, objects(texts)))


def made(data: Any) -> int:
    """
    Make something of a dict, and refuse everything else in several ways.
    """
    return int(sum(data.values()))


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), values, max_size=4), min_size=1, max_size=5))
def test_a_decoder_that_remembers_says_what_a_new_one_says(looks: list[Mapping[str, str]]) -> None:
    """
    Whatever changed, came or went since the last look, nothing old is shown.
    """
    remembering = Decoder(made)

    for look in looks:
        assert Decoder(made)(look) == remembering(look)


def test_an_empty_hash_has_no_fields() -> None:
    """
    Lua cannot tell an empty list from an empty table.
    """
    assert {} == fields(b"{}")
    assert {"a": "1", "�": "2"} == fields(b'["a","1","\xff","2"]')
