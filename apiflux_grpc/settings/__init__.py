"""Settings: flags over environment over `.env` over TOML; frozen, or refused with every fault at once.

Rule: whatever is wrong is a Fault with its place, all of them are reported together, and no message shows a value,
since any value may be a secret in the wrong place.

    types           what comes out
    values          one value each: a status range, a URL, a name, a secret
    tables          the pydantic models of the TOML file's tables and of the environment
    judging         raw values against a model
    sources         reads the TOML file, `.env` and the environment
    findings        faults and warnings, each with its place
    presets         what is known of well-known APIs, completing a pool of the file
    secret_file     a key's secret in a file, which may change
    pools           a pool of the file; keys, limits, answers and tls are parts of one
    shared          keys of several pools that share a budget, or a secret
    ops             the operations port
    state           where budgets are kept
    callers         who may call
    transport       where the server listens, and its TLS
    jwt             an issuer whose tokens say who calls
    default_pool    the pool `default` of the environment, if the file has none
    reading         puts them together

A field is judged by itself first, in its model; what needs several fields, a file or a variable is judged after that
by plain functions. Nothing here knows how anything is built from the settings.

Reading needs pydantic and dotenv, which take a tenth of a second to import; so they are imported by `load` and not
with this package, which commands import that read no settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiflux_grpc.server.defaults import Mode
from apiflux_grpc.settings.types import Fault, PoolSettings, Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Fault", "Mode", "PoolSettings", "Settings", "SettingsError", "load"]


def load(
    config: Path | None,
    *,
    environ: Mapping[str, str],
    dotenv: Path | None = None,
    bind: str | None = None,
    allow_plaintext: bool = False,
) -> Settings:
    """The settings of these sources; `bind` ("HOST:PORT") and `allow_plaintext` are flags. Raises SettingsError, which
    has every fault.

    `config` must exist; a `dotenv` that doesn't is ignored. A secret that `secret_env` names is looked for in
    `environ`, then in `.env`. `os.environ` is neither read nor changed.
    """
    from apiflux_grpc.settings.reading import read

    return read(config, environ, dotenv, bind, allow_plaintext)
