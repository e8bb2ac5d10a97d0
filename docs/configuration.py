"""docs/reference/configuration.md: the settings, joined with the words of docs/_settings.toml.

Rule: only what a setting means is written by hand. A setting without words is an error here, and so are words without
a setting.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Final

from apiflux_grpc.core.model import MAX_CONNECTIONS, X_API_KEY
from apiflux_grpc.settings.reading import REPEAT_COUNT
from docs.common import DOCS, NOTICE, OutOfStep, cell
from docs.settings import Section, environment, sections

WORDS: Final = DOCS / "_settings.toml"
TABLES: Final = ("table", "list of tables", "table, or list of tables", "true, false or list of tables")
TITLES: Final = {"server": "server", "budget": "budget", "stress": "stress", "pools": "pools.NAME"}
FIGURES: Final[Mapping[str, object]] = {
    "KEY_HEADER": X_API_KEY.name,
    "MAX_CONNECTIONS": MAX_CONNECTIONS,
    "PRODUCTION_REPEAT": REPEAT_COUNT["production"],
    "TEST_REPEAT": REPEAT_COUNT["test"],
}
INTRODUCTIONS: Final = {
    "server": "Where the server listens, and how much it keeps in memory.",
    "budget": "How what was spent of keys is kept and shared.",
    "stress": "Only for `apiflux stress`.",
    "server.tls": "Whom callers talk to, and who they are. See [Transport](../operations.md#transport).",
    "auth": "Callers that others vouch for.",
    "auth.jwt": "See [Operations](../operations.md#tokens-of-an-issuer).",
    "callers": "One `[[callers]]` for each. Once there is one, who isn't known is refused. See "
    "[Operations](../operations.md#callers).",
    "pools": "One table for each pool; requests choose a pool by its name. One that names no pool uses `default`.",
    "pools.limits": "A list of tables, in a pool, a key or a group. See [Choose limits](../howto/limits.md).",
    "pools.key_in": "Set `header` or `query`. See [Present the key](../howto/keys.md).",
    "pools.keys": "One `[[pools.NAME.keys]]` for each key.",
    "pools.groups": "One `[[pools.NAME.groups]]` for each group of keys that share limits.",
    "pools.answers": "One `[[pools.NAME.answers]]` for each rule. The first rule that matches an answer says what it "
    "means. See [Say what answers mean](../howto/answers.md).",
    "pools.cost": "The sum of its parts, rounded up. See [Count cost, not calls](../howto/costs.md).",
    "pools.cost_from": "Set one of the two. See [Count cost, not calls](../howto/costs.md).",
    "pools.idempotent": "One table for each kind of call. See [Retry safely](../howto/retries.md).",
    "pools.retry": "See [Retry safely](../howto/retries.md).",
    "pools.simulator": "Only in a pool without `base_url`.",
}
CONFIGURATION: Final = """\
# Configuration

Flags override the environment, the environment overrides a file `.env` in the working directory, and that overrides
the TOML file of `--config`. An empty variable counts as unset. All faults are reported together, each with its place,
and no message shows a value, since it may be a secret:

```sh
apiflux check-config examples/apiflux.toml
```

A **duration** is a string: a number and one of `h`, `m`, `s`, `ms`, `us`, `ns`, such as `"250ms"` or `"1.5s"`. An
unknown name in the file is a fault. A relative path is relative to the file.

## An example

`examples/apiflux.toml`:

```toml
;--8<-- "examples/apiflux.toml"
```

"""
ENVIRONMENT: Final = """\
## The environment

With these variables a server needs no file. `RATE_LIMIT`, `API_KEYS` and `UPSTREAM_URL` set up the pool `default`,
unless the file has pools of its own. With `UPSTREAM_URL` they do so beside other pools, too. The same names work in
`.env`; `.env.example` has them all:

```ini
;--8<-- ".env.example"
```

"""


def configuration_page() -> str:
    """docs/reference/configuration.md. Raises OutOfStep if words and settings differ."""
    if faults := check_words():
        raise OutOfStep("\n".join(faults))
    spoken = words()
    parts = [NOTICE, CONFIGURATION.replace(";--8<--", "--8<--")]
    for section in sections():
        last = section.key.rpartition(".")[2]
        title = TITLES.get(section.key, last)
        level = "##" if section.key in TITLES else "###"
        anchor = "" if section.key in TITLES else f" {{ #{last} }}"
        parts.append(f"{level} {title}{anchor}\n\n{INTRODUCTIONS[section.key]}\n\n")
        parts.append(_settings_table(section, spoken[section.key]))
    parts.append(ENVIRONMENT.replace(";--8<--", "--8<--"))
    parts.append(_settings_table(environment(), spoken["environment"]))
    return "".join(parts).rstrip() + "\n"


def words() -> dict[str, dict[str, dict[str, str]]]:
    """What each setting means, by section and name: `text`, and perhaps `default`."""
    raw = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    return {section: {name: _entry(entry) for name, entry in entries.items()} for section, entries in raw.items()}


def _entry(entry: str | dict[str, str]) -> dict[str, str]:
    if isinstance(entry, str):
        return {"text": entry}
    return {**entry, "default": entry["default"].format_map(FIGURES)}


def check_words() -> list[str]:
    """What docs/_settings.toml lacks, and what it has too much."""
    have = {(section, name) for section, entries in words().items() for name in entries}
    want = {(one.key, setting.name) for one in [*sections(), environment()] for setting in one.settings}
    found = [f"{WORDS.name} says nothing of {name} in [{section}]" for section, name in sorted(want - have)]
    found += [f"{WORDS.name} has {name} in [{section}], which is no setting" for section, name in sorted(have - want)]
    spoken = words()
    for one in [*sections(), environment()]:
        for setting in one.settings:
            entry = spoken.get(one.key, {}).get(setting.name, {})
            if not setting.default and setting.value not in TABLES and entry and "default" not in entry:
                found.append(f"{WORDS.name}: {setting.name} in [{one.key}] needs a default in words")
    return found


def _settings_table(section: Section, entries: Mapping[str, Mapping[str, str]]) -> str:
    rows = ["| name | value | default | what it is |", "|---|---|---|---|"]
    for setting in section.settings:
        entry = entries[setting.name]
        anchor = f"{section.key or 'file'}.{setting.name}"
        name = f"[`{setting.name}`](#{anchor}){{ #{anchor} }}"
        default = entry.get("default", setting.default) or ("see there" if setting.value in TABLES else "none")
        rows.append(f"| {name} | {cell(setting.value)} | {cell(default)} | {cell(entry['text'])} |")
    return "\n".join(rows) + "\n\n"
