"""The first of a pool's rules that matches an answer.

Rule: a value is compared as it is written: `429` and "429" are the same, `1.0` and `1` are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiflux_grpc.core.fields import AnswerFields
    from apiflux_grpc.core.rules import AnswerRule


def first_match(rules: Sequence[AnswerRule], fields: AnswerFields, status: int) -> AnswerRule | None:
    """The first rule that matches the answer of this status with these fields; None: none does."""
    for rule in rules:
        if rule.status and not any(low <= status <= high for low, high in rule.status):
            continue
        if all(any(text in one.values for text in fields.texts(one.field)) for one in rule.conditions):
            return rule
    return None
