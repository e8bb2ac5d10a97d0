"""Who may call: `[[callers]]`.

Rule: of tokens only their digests are here, and a fault never repeats what may be a token itself. A digest or a name
that two callers have would make one of them the other, so each is there once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeVar

from apiflux_grpc.core.caller_checks import common_paths
from apiflux_grpc.core.callers import Access, Caller, Role, parse_digest
from apiflux_grpc.settings.sources import why

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from apiflux_grpc.core.model import Pool
    from apiflux_grpc.settings.findings import Findings, Place
    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.tables import CallerTable

T = TypeVar("T")

_CREDENTIALS: Final = ("tokens", "tokens_file", "identities")
LARGEST_FILE: Final = 1 << 20  # bytes of a tokens_file


def callers_of(sources: Sources, pools: Mapping[str, Pool]) -> tuple[Caller, ...]:
    """The callers, in the order of the file; `pools` are those there are."""
    findings = sources.findings
    found: list[Caller] = []
    seen: dict[object, int] = {}
    for index, one in enumerate(sources.file.callers):
        if one is None:
            continue
        place = sources.toml_place("callers", index)
        if one.name is None:
            findings.fault((*place, "name"), "is missing; it is how logs and quotas call this caller")
        elif (first := seen.setdefault(f"name {one.name}", index)) != index:
            findings.fault((*place, "name"), f"is the name of callers[{first}] too; choose another")
        digests = [*_given(place, "tokens", one.tokens), *_in_file(sources, place, one.tokens_file)]
        names = _given(place, "identities", one.identities)
        for at, credential in (*digests, *names):
            if (first := seen.setdefault(credential, index)) != index:
                findings.fault(at, f"is one of callers[{first}] too; each belongs to one caller")
        at_fault = any(findings.has_below((*place, field)) for field in _CREDENTIALS)
        by_name = sources.file.auth.jwt is not None and all(getattr(one, field) is None for field in _CREDENTIALS)
        if not (digests or names or at_fault or by_name):
            _fault_without(findings, place, one)
        found.append(
            Caller(
                one.name or "",
                _access(findings, place, one, pools),
                tuple(digest for _, digest in digests),
                tuple(name for _, name in names),
            )
        )
    return tuple(found)


def _given(place: Place, field: str, values: Sequence[T | None] | None) -> list[tuple[Place, T]]:
    return [((*place, field, number), one) for number, one in enumerate(values or ()) if one is not None]


def _fault_without(findings: Findings, place: Place, one: CallerTable) -> None:
    given = next((name for name in _CREDENTIALS if getattr(one, name) is not None), None)
    ways = "; `apiflux token new` makes a token"
    what = f"is missing; set `tokens`, `tokens_file` or `identities`{ways}" if given is None else f"is empty{ways}"
    findings.fault((*place, given or "tokens"), what, *((*place, name) for name in _CREDENTIALS))


def _in_file(sources: Sources, place: Place, name: str | None) -> list[tuple[Place, bytes]]:
    """A digest a line; empty lines, and what follows a `#`, are left out."""
    if name is None:
        return []
    here = (*place, "tokens_file")
    try:
        with sources.path(name).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        sources.findings.fault(here, "is not UTF-8")
        return []
    except (OSError, ValueError) as error:
        # A bare word may be a token, put here by mistake.
        shown = json.dumps(name) if "/" in name or "." in name else "that file"
        sources.findings.fault(here, f"{shown} can't be read: {why(error)}")
        return []
    if len(content) > LARGEST_FILE:
        sources.findings.fault(here, f"has more than {LARGEST_FILE} bytes")
        return []
    found: list[tuple[Place, bytes]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if word := line.partition("#")[0].strip():
            try:
                found.append((here, parse_digest(word)))
            except ValueError as error:
                sources.findings.fault(here, f"line {number} {error}")
    return found


def _access(findings: Findings, place: Place, one: CallerTable, pools: Mapping[str, Pool]) -> Access:
    for at, pool in _given(place, "pools", one.pools):
        if pool not in pools:
            findings.fault(at, f"there is no such pool; use one of {', '.join(sorted(pools))}")
    for field in ("pools", "methods", "paths"):
        if getattr(one, field) == []:
            findings.fault((*place, field), "is empty, so this caller could send nothing; leave it out to allow all")
    methods, paths = _known(one.methods), _known(one.paths)
    seen = pools if one.pools is None else [name for name in _known(one.pools) if name in pools]
    for name in seen if paths else ():
        if not common_paths(pools[name].allow_paths, paths):
            text = f"none is within the `allow_paths` of pool {name}, so this caller could send nothing there"
            findings.fault((*place, "paths"), text, (*place, "pools"))
    return Access(
        role=Role(one.role),
        pools=None if one.pools is None else frozenset(_known(one.pools)),
        methods=None if one.methods is None else frozenset(methods),
        paths=None if one.paths is None else tuple(paths),
        weight=one.weight,
        max_queued_calls=one.max_queued_calls,
        max_batches=one.max_batches,
        rate=one.rate,
    )


def _known(values: Iterable[T | None] | None) -> list[T]:
    return [one for one in values or () if one is not None]
