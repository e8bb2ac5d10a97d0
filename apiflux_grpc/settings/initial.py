"""The configuration that a new user begins with: commented, and complete but for what only they know.

Rule: it names where a secret is, and never holds one. What can be found out isn't asked for: the preset and the keys
come from the names of the variables that are set, limits from what the preset says of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from apiflux_grpc.settings.presets import about, preset_names, preset_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD: Final = """\
# A configuration of APIFlux. This finds every mistake in it, and with --probe makes one call with each key:
#   apiflux check-config {name}
# And this uses it:
#   apiflux serve --config {name}

[server]
bind = "127.0.0.1:50051"
"""
_OWN_API: Final = """
# The pool of requests that name none, for it is the only one.
[pools.default]
base_url = "https://api.example.com" # where the API is; the paths of calls follow it
key_in = { header = "Authorization", prefix = "Bearer " } # or { header = "X-API-Key" }, or { query = "api_key" }
# What one key may do; look it up in the API's documentation. "At most 1000 calls in any 60 seconds" is:
limits = [{ max = 1000, per = "60s" }]
# A limit of something else, for instance tokens, and what a call costs of it:
# limits = [{ max = 1000, per = "60s" }, { max = 90000, per = "60s", counts = "cost" }]
# cost = { json = "max_tokens", per_byte = 0.25 }
# cost_from = { json = "usage.total_tokens" }
# Calls that may run twice, beside GETs and others that always may:
# idempotent = [{ methods = ["POST"], paths = ["/v1/search"] }]
"""
_PRESET: Final = """
# {about}
# The pool of requests that name none, for it is the only one.
[pools.{pool}]
preset = "{preset}" # address, place of the key, costs, meaning of answers: `apiflux presets show {preset}`
# An example. Set these to what your plan allows: with less you wait longer, with more the API refuses calls.
{limits}
"""
_ORGANIZATION: Final = """
# If keys are of one organization or project, they share its limits: put them here, and `limits = []` above.
# [[pools.{pool}.groups]]
# keys = [{labels}]
# {limits}
"""
_KEY: Final = """
[[pools.{pool}.keys]]
label = "{label}" # what logs and results call it
secret_env = "{variable}" # the variable that holds the key; or secret_file = "a path"
"""

_USUAL: Final = {"github": "GITHUB_TOKEN"}  # the variable that people have, if it isn't NAME_API_KEY
_LIMITS: Final = re.compile(r"(?ms)^# limits = \[.*?\]$").search


def variables_of(preset: str, names: Iterable[str]) -> list[str]:
    """Those of these variables that hold keys of this API by their names: OPENAI_API_KEY, OPENAI_API_KEY_2 or _KEY2."""
    is_key = re.compile(rf"{_start(preset)}(_API)?_(KEY|TOKEN)([0-9]+|_[A-Z0-9_]+)?").fullmatch
    return sorted(filter(is_key, names))


def found_presets(names: Iterable[str]) -> list[str]:
    """The presets of the APIs for which one of these variables holds a key."""
    given = list(names)
    return [preset for preset in preset_names() if variables_of(preset, given)]


def initial_config(preset: str | None, variables: Iterable[str], name: str) -> str:
    """The text of a file of that name; `preset` None: for an API that has none. `variables`: those that are set."""
    head = _HEAD.format(name=name)
    if preset is None:
        return head + _OWN_API + _key("default", "API_KEY")
    keys = variables_of(preset, variables) or [_USUAL.get(preset, f"{_start(preset)}_API_KEY")]
    limits = limits_of(preset)
    text = _PRESET.format(about=about(preset), pool=preset, preset=preset, limits="\n".join(limits))
    text += "".join(_key(preset, key) for key in keys)
    if len(keys) > 1:
        labels = ", ".join(f'"{_label(key)}"' for key in keys)
        text += _ORGANIZATION.format(pool=preset, labels=labels, limits="\n# ".join(limits))
    return head + text


def limits_of(preset: str) -> list[str]:
    """The lines of the limits that a preset gives as an example in a comment."""
    example = _LIMITS(preset_text(preset))
    assert example is not None  # every preset has one
    return [line.removeprefix("# ") for line in example[0].splitlines()]


def _start(preset: str) -> str:
    """What the names of its variables begin with."""
    return preset.upper().replace("-", "_")


def _label(name: str) -> str:
    return name.lower().replace("_", "-")


def _key(pool: str, name: str) -> str:
    return _KEY.format(pool=pool, label=_label(name), variable=name)
