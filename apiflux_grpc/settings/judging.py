"""Raw values against a model: every fault with its place, and what is left of the rest.

Rule: one fault hides no other. A faulty field is reported and cut out, and the rest is judged again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from apiflux_grpc.settings.tables import TABLES, File, PoolTable, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from apiflux_grpc.settings.findings import Findings, Place

_Model = TypeVar("_Model", bound=BaseModel)

_WORDS: Final[Mapping[str, str]] = {  # by pydantic's type of error
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a table",
    "string_type": "must be a string",
    "value_error": "{error}",
}


def judged(
    model: type[_Model], raw: dict[str, Any], source_of: Callable[[str | int], str], findings: Findings
) -> _Model:
    """`raw` as a model, without its faulty fields, which are reported. Changes `raw`.

    `source_of` names the source of a field at the top.
    """
    if not raw:
        return model.model_construct()  # all defaults; a schema is expensive to build
    while True:  # ends, since each turn makes `raw` smaller
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        for one in found:
            way, context = _written_way(raw, one["loc"]), one.get("ctx", {})
            here: Place = (source_of(way[0]), *way)
            if one["type"] != "extra_forbidden":
                findings.fault(here, _WORDS.get(one["type"], one["msg"]).format(**context))
            elif meant := _meant(way):
                findings.fault(here, f"unknown name; did you mean '{meant}'?")
                findings.excuse((*here[:-1], meant))  # or it would be reported as missing too
            else:
                findings.fault(here, "unknown name")
            _cut_out(raw, way)


def _written_way(raw: object, loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """`loc` in `raw` as it was written: a table that stands for a list of one has no index."""
    way: list[str | int] = []
    node: Any = raw
    for part in loc:
        if isinstance(node, dict):
            if isinstance(part, int):
                continue
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part]
        way.append(part)
    return tuple(way)


def _meant(way: Sequence[str | int]) -> str | None:
    """The known name that is closest to the last one, if one is close."""
    import difflib  # slow to import, and only mistakes need it

    *table, name = way
    names = [part for part in table if isinstance(part, str)]
    model: type[Table] = File
    if len(names) == 2:
        model = PoolTable
    elif names:
        model = TABLES[names[-1]]
    known = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(name)[:64], known, 1)
    return close[0] if close else None


def _cut_out(raw: dict[str, Any], way: Sequence[str | int]) -> None:
    node: Any = raw
    for part in way[:-1]:
        node = node[part]
    if isinstance(node, dict):
        node.pop(way[-1], None)
    else:
        node[way[-1]] = None
