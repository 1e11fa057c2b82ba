"""
YAML of our own writing is YAML.
"""

from __future__ import annotations

import yaml

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.rules.yaml_text import Tree, to_yaml


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "yes",
        "No",
        "1",
        "1e3",
        "5m",
        "~",
        "null",
        "a: b",
        "- a",
        "# a",
        "0x10",
        "",
        " x",
        "a\n b\n",
        "a\u2028b",
        "a\nb\u2029c",
        "\ufeff",
        "\x7f",
    ]
)
scalars = texts | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
trees = st.dictionaries(
    texts,
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=6),
    max_size=4,
)


@given(trees)
@settings(max_examples=40)
def test_what_is_written_is_read_as_it_was(tree: dict[str, Tree]) -> None:
    """
    Whatever the texts hold, a parser reads the same tree again.
    """
    # YAML 1.1 wants a dot in a number with an exponent, and takes 1e+16 for a text; Prometheus's parser does not.
    assert _plain(tree) == _plain(yaml.safe_load(to_yaml(tree)) or {})


def test_a_rule_reads_well() -> None:
    """
    Durations and names stand as they are, queries of several lines are blocks, other texts are quoted.
    """
    tree: dict[str, Tree] = {
        "groups": [{"name": "a", "interval": "30s", "rules": [{"expr": "a\nor\n  b", "for": "5m", "text": "a: b", "count": 1}]}]
    }

    assert to_yaml(tree) == (
        'groups:\n  - name: a\n    interval: 30s\n    rules:\n      - expr: |-\n          a\n          or\n            b\n        for: 5m\n        text: "a: b"\n        count: 1\n'
    )


def _plain(tree: object) -> object:
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    if isinstance(tree, float):
        return repr(tree) if "e" in repr(tree) else tree
    return tree
