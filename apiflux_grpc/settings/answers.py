"""The rules of a pool: what an answer means.

Rule: a rule that can never hold is a fault, and so is a word in one that has no effect: whoever wrote it expects
something that won't happen. A preset's rules follow the pool's own, which may well leave nothing for one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.core.fields import Field, HeaderField, JsonField
from apiflux_grpc.core.rules import AnswerRule, Condition, Means
from apiflux_grpc.settings.tables import AnswerTable, FieldTable, HeaderConditionTable, JsonConditionTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apiflux_grpc.settings.findings import Findings, Place


def rules_of(
    findings: Findings, here: Place, tables: Sequence[AnswerTable | None], of_preset: int
) -> tuple[AnswerRule, ...]:
    """The rules of the pool at `here`; the last `of_preset` of them are its preset's."""
    rules: dict[int, AnswerRule] = {}
    own: dict[int, AnswerRule] = {}
    for index, table in enumerate(tables):
        place = (*here, "answers", index)
        rule = None if table is None else _rule(findings, place, table)
        if rule is None or findings.has_below(place):
            continue
        rules[index] = rule
        if index >= len(tables) - of_preset:
            continue
        first = next((number for number, earlier in own.items() if _covers(earlier, rule)), None)
        if first is not None:
            findings.fault(place, f"never holds, because answers[{first}] matches all of these answers; put it first")
        own[index] = rule
    return tuple(rules.values())


def field_of(findings: Findings, place: Place, table: FieldTable) -> Field | None:
    """The place in an answer that this names; None: it is at fault."""
    sources = {"header": table.header, "json": table.json_path}
    findings.exclusive(place, [name for name, value in sources.items() if value is not None], [*sources])
    if table.header is not None:
        return HeaderField(table.header.lower())
    return None if table.json_path is None else JsonField(tuple(table.json_path.split(".")))


def _rule(findings: Findings, place: Place, table: AnswerTable) -> AnswerRule | None:
    if table.means is None:
        findings.fault((*place, "means"), 'is missing; say what such an answer means, such as "limited"')
    if table.status is not None and not table.status:
        findings.fault((*place, "status"), "is empty, so no answer could match; leave it out for any status")
    conditions = [
        *_conditions(findings, (*place, "json"), table.json_conditions),
        *_conditions(findings, (*place, "header"), table.header),
    ]
    wait = None if table.wait is None else field_of(findings, (*place, "wait"), table.wait)
    if table.wait is not None and table.means not in (None, "limited", "again"):
        text = (
            'has no effect, because nobody waits after such an answer; remove it, or set means to "limited" or "again"'
        )
        findings.fault((*place, "wait"), text, (*place, "means"))
    if table.not_executed and table.means not in (None, "again"):
        text = 'has no effect unless means is "again"; remove it'
        findings.fault((*place, "not_executed"), text, (*place, "means"))
    if table.means is None:
        return None
    status = tuple(one for one in table.status or () if one is not None)
    return AnswerRule(Means(table.means), status, tuple(conditions), wait, table.not_executed)


def _conditions(
    findings: Findings, place: Place, tables: Sequence[JsonConditionTable | HeaderConditionTable | None]
) -> Iterator[Condition]:
    first_at: dict[Field, int] = {}
    for index, table in enumerate(tables):
        if table is None:
            continue
        written = (*place, index)
        here = place if len(tables) == 1 else written  # one alone may be written without a list
        where, path = ("name", table.name) if isinstance(table, HeaderConditionTable) else ("at", table.at)
        if path is None:
            findings.fault((*here, where), "is missing; say where the value stands", (*written, where))
        if not table.values:
            findings.fault((*here, "is"), "is missing; list the values that it may have", (*written, "is"))
        if path is None or not table.values:
            continue
        field: Field = HeaderField(path.lower()) if where == "name" else JsonField(tuple(path.split(".")))
        if (first := first_at.setdefault(field, index)) != index:
            text = f"is the field of {place[-1]}[{first}] too; put the values of both into one `is`"
            findings.fault((*here, where), text)
        yield Condition(field, tuple(value for value in table.values if value is not None))


def _covers(first: AnswerRule, second: AnswerRule) -> bool:
    """Whether every answer that the second matches is matched by the first."""
    if first.status and not (second.status and all(_within(one, first.status) for one in second.status)):
        return False
    asked = {condition.field: set(condition.values) for condition in second.conditions}
    return all(asked.get(one.field, {None}) <= set(one.values) for one in first.conditions)


def _within(statuses: tuple[int, int], ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether each status of this range is in one of those."""
    low, high = statuses
    return all(any(first <= status <= last for first, last in ranges) for status in range(low, high + 1))
