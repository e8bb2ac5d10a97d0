"""Where a value stands in a JSON document."""

from __future__ import annotations

import pytest

from apiflux_grpc.core.fields import values_at


@pytest.mark.parametrize(
    ("document", "path", "expected"),
    [
        ({"a": {"b": 1}}, "a.b", [1]),
        ({"a": {"b": None}}, "a.b", [None]),
        ({"a": [{"b": 1}, {"c": 2}, 3, {"b": [4]}]}, "a.b", [1, [4]]),
        ([{"a": 1}, {"a": 2}], "a", [1, 2]),
        ({"a": [[{"b": 1}]]}, "a.b", []),
        ({"a": "b"}, "a.b", []),
        ({"a": 1}, "b", []),
        ("a", "a", []),
        (None, "a", []),
    ],
)
def test_a_list_on_the_way_stands_for_its_elements(document: object, path: str, expected: list[object]) -> None:
    """Every value at the path is found, through objects and the elements of lists, and nothing else."""
    assert values_at(document, path.split(".")) == expected
