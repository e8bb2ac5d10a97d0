"""Whatever the sources hold, they load or raise a SettingsError that says why."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apiflux_grpc.settings import SettingsError, load


def _names() -> st.SearchStrategy[str]:
    known = ["server", "pools", "default", "bind", "limits", "keys", "max", "per", "burst", "header", "label", "secret"]
    return st.sampled_from(known) | st.text(max_size=5)


def _toml(value: object) -> str:
    """A value as TOML: JSON's strings, lists and numbers are TOML's, its objects are inline tables with `=`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(name))} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return value.isoformat() if isinstance(value, datetime.date) else json.dumps(value)


SCALARS = (
    st.booleans()
    | st.integers()
    | st.dates()
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: round(number, 3))
    | st.sampled_from(["1s", "h:1", "2xx", "http://h", "window"])
    | st.text(max_size=8)
)


VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names(), inner, max_size=3), max_leaves=12
)


CONDITIONS = st.fixed_dictionaries({}, optional=dict.fromkeys(("at", "name", "is"), VALUES)) | VALUES
SOME_CALLS = st.fixed_dictionaries({}, optional={"methods": VALUES, "paths": VALUES}) | VALUES
RULE = {
    "status": VALUES,
    "json": CONDITIONS | st.lists(CONDITIONS, max_size=2),
    "header": CONDITIONS | st.lists(CONDITIONS, max_size=2),
    "means": st.sampled_from(["limited", "again"]) | VALUES,
    "wait": VALUES,
}
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "server": st.dictionaries(_names(), VALUES, max_size=3),
        "pools": st.dictionaries(
            _names(),
            st.fixed_dictionaries(
                {},
                optional={
                    "limits": VALUES | st.lists(st.dictionaries(_names(), VALUES, max_size=3), max_size=2),
                    "keys": VALUES | st.lists(st.dictionaries(_names(), VALUES, max_size=3), max_size=2),
                    "key_in": VALUES,
                    "retry": VALUES,
                    "simulator": VALUES,
                    "cost_from": VALUES,
                    "preset": st.just("openai") | VALUES,
                    "answers": VALUES | st.lists(st.fixed_dictionaries({}, optional=RULE) | VALUES, max_size=2),
                    "idempotent": VALUES | st.lists(SOME_CALLS, max_size=2),
                    "groups": VALUES | st.lists(st.fixed_dictionaries({"keys": VALUES, "limits": VALUES}), max_size=2),
                },
            )
            | VALUES,
            max_size=2,
        ),
    },
)


def only_settings_errors(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        load(file, environ={})
    except SettingsError as error:
        assert error.faults  # noqa: PT017  # both ends are fine, but an error must have a fault


@pytest.fixture(scope="module")
def junk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("junk") / "junk"


@hypothesis_settings(max_examples=150)
@given(text=st.text(max_size=60))
def test_any_text_as_toml(junk: Path, text: str) -> None:
    """Whatever a file holds, it loads or raises a SettingsError."""
    only_settings_errors(junk, text)


@hypothesis_settings(max_examples=300)
@given(tables=TABLES)
def test_any_tables(junk: Path, tables: dict[str, object]) -> None:
    """Whatever well-formed TOML says, it loads or raises a SettingsError."""
    only_settings_errors(junk, "\n".join(f"{name} = {_toml(table)}" for name, table in tables.items()))


ENVIRONMENTS = st.dictionaries(
    st.sampled_from(
        ["PORT", "TEST_MODE", "RATE_LIMIT", "API_KEYS", "UPSTREAM_URL", "TEST_MAX_LATENCY", "REQUEST_TIMEOUT", "OTHER"]
    ),
    st.text(max_size=12) | st.sampled_from(["0", "1", "http://[", "http://h:x", "a,a", "-0", "٣"]),
)


@hypothesis_settings(max_examples=200)
@given(environ=ENVIRONMENTS, bind=st.none() | st.text(max_size=8), dotenv=st.text(max_size=40))
def test_any_environment(junk: Path, environ: dict[str, str], bind: str | None, dotenv: str) -> None:
    """Whatever the variables, the flag and `.env` hold, they load or raise a SettingsError."""
    junk.write_bytes(dotenv.encode("utf-8", "surrogatepass"))
    try:
        load(None, environ=environ, dotenv=junk, bind=bind)
    except SettingsError as error:
        assert error.faults  # noqa: PT017  # both ends are fine, but an error must have a fault
