"""The keys and the groups of a pool.

Rule: a key is in a pool once, for its limit would count twice otherwise; and a label never comes from a secret, for
labels are shown. A secret in the wrong place isn't shown either: a name that may be one is left out of the message.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from apiflux_grpc.core.model import Group, Key
from apiflux_grpc.settings.limits import limits_of
from apiflux_grpc.settings.secret_file import content_of
from apiflux_grpc.settings.sources import why
from apiflux_grpc.settings.values import secret_fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from apiflux_grpc.settings.findings import Findings, Place
    from apiflux_grpc.settings.sources import Sources
    from apiflux_grpc.settings.tables import KeyTable, PoolTable

_QUOTES = ("'", '"')
_SECRETS = ("secret", "secret_env", "secret_file")


def keys_of(sources: Sources, here: Place, pool: PoolTable) -> tuple[Key, ...]:
    """The keys of a pool, each with its limits."""
    findings, jitter = sources.findings, pool.arrival_jitter
    if not pool.keys:
        findings.fault((*here, "keys"), "is missing; a pool needs at least one key")
    pool_limits = limits_of(findings, (*here, "limits"), pool.limits, jitter)
    _check_limits_given(findings, here, pool)
    keys: dict[int, Key] = {}
    for index, one in enumerate(pool.keys):
        if one is None:
            continue
        place = (*here, "keys", index)
        limits = pool_limits if one.limits is None else limits_of(findings, (*place, "limits"), one.limits, jitter)
        secret = _secret(sources, place, one)
        most = one.max_in_flight or pool.max_in_flight
        keys[index] = Key(_label(index, one), secret, limits, most, one.budget or "")
    _check_unique(findings, here, keys)
    return tuple(keys.values())


def groups_of(findings: Findings, here: Place, pool: PoolTable) -> tuple[Group, ...]:
    """The groups of a pool, whose keys exist and are in one group each."""
    labels = {_label(index, one) for index, one in enumerate(pool.keys) if one is not None}
    label_places = [(*here, "keys"), *((*here, "keys", index, "label") for index in range(len(pool.keys)))]
    first_in: dict[str, int] = {}
    groups = []
    for index, one in enumerate(pool.groups):
        if one is None:
            continue
        place = (*here, "groups", index)
        if not one.keys:
            findings.fault((*place, "keys"), "is missing; list the labels of the keys that share the limits")
        if not one.limits:
            findings.fault((*place, "limits"), "is missing; a group shares at least one limit")
        known = [(number, label) for number, label in enumerate(one.keys or ()) if label is not None]
        for number, label in known:
            key_place = (*place, "keys", number)
            if label not in labels:
                findings.fault(key_place, "must be the label of a key of this pool", *label_places)
            elif (first := first_in.setdefault(label, index)) != index:
                findings.fault(key_place, f"is in groups[{first}] too; a key can be in one group only")
            elif label in (earlier for at, earlier in known if at < number):
                findings.fault(key_place, "is in this group twice")
        limits = limits_of(findings, (*place, "limits"), one.limits, pool.arrival_jitter)
        groups.append(Group(tuple(label for _, label in known), limits))
    return tuple(groups)


def _label(index: int, key: KeyTable) -> str:
    return key.label or f"key-{index + 1}"


def _check_limits_given(findings: Findings, here: Place, pool: PoolTable) -> None:
    lacking = [index for index, key in enumerate(pool.keys) if key is not None and key.limits is None]
    if pool.limits is None and lacking:
        text = "is missing; set it here or for each key (`limits = []` means none)"
        findings.fault((*here, "limits"), text, *((*here, "keys", index, "limits") for index in lacking))


def _check_unique(findings: Findings, here: Place, keys: Mapping[int, Key]) -> None:
    labels: dict[str, int] = {}
    secrets: dict[str, int] = {}
    budgets: dict[str, int] = {}
    for index, key in keys.items():
        place = (*here, "keys", index)
        if (first := labels.setdefault(key.label, index)) != index:
            findings.fault((*place, "label"), f"is the label of keys[{first}] too; choose another")
        if key.secret and (first := secrets.setdefault(key.secret, index)) != index:
            findings.fault(place, f"has the secret of keys[{first}]; remove one, or its limit would count twice")
        if key.budget and (first := budgets.setdefault(key.budget, index)) != index:
            text = (
                f"is the budget of keys[{first}] too; it is shared with other pools, use a group for keys of this one"
            )
            findings.fault((*place, "budget"), text)
    for index, key in keys.items():
        if key.label in secrets:
            findings.fault((*here, "keys", index, "label"), "is the secret of a key; choose another, labels are shown")


def _secret(sources: Sources, place: Place, key: KeyTable) -> str:
    """The key's secret; "" if that is at fault."""
    given = [name for name in _SECRETS if getattr(key, name) is not None]
    sources.findings.exclusive(place, given, _SECRETS)
    if len(given) != 1:
        return ""
    field_place = (*place, given[0])
    if key.secret is not None:
        secret: str | None = key.secret.get_secret_value()
    elif key.secret_env is not None:
        secret = _secret_of_variable(sources, field_place, key.secret_env)
    else:
        secret = _secret_of_file(sources, field_place, key.secret_file or "")
    if secret is not None and (fault := secret_fault(secret)):
        sources.findings.fault(field_place, fault if key.secret is not None else f"names a secret that {fault}")
        return ""
    if secret and secret[0] in _QUOTES:
        what = "begins" if key.secret is not None else "names a secret that begins"
        sources.findings.warn(field_place, f"{what} with a quote, which is sent as a part of the key; remove it there")
    return secret or ""


def _secret_of_variable(sources: Sources, place: Place, name: str) -> str | None:
    secret = sources.variable(name)
    if secret is None:
        # Anything else may be the secret itself, put here by mistake.
        shown = f"variable {name}" if name == name.upper() and len(name) <= 64 else "variable of that name"
        sources.findings.fault(place, f"there is no environment {shown}; set it")
    return secret


def _secret_of_file(sources: Sources, place: Place, name: str) -> str | None:
    try:
        return content_of(sources.path(name))
    except (OSError, ValueError) as error:
        # A bare word may be the secret itself, put here by mistake.
        shown = json.dumps(name) if "/" in name or "." in name else "that file"
        sources.findings.fault(place, f"{shown} can't be read: {why(error)}")
        return None


def secret_files_of(sources: Sources, pool: PoolTable) -> dict[str, Path]:
    """The file of each key whose secret is in one, by label."""
    return {
        _label(index, one): sources.path(one.secret_file)
        for index, one in enumerate(pool.keys)
        if one is not None and one.secret_file
    }
