"""What the tests of settings share: a good configuration, and the faults of a bad one."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from apiflux_grpc.settings import PoolSettings, Settings, SettingsError, load

CANARY = "canary-7f3a"


GOOD = f"""
[pools.default]
base_url = "http://127.0.0.1:9000"
limits = [{{ max = 10, per = "1s" }}]
[[pools.default.keys]]
label = "a"
secret = "{CANARY}"
"""


KEY = '\n[[pools.default.keys]]\nlabel = "{}"\nsecret = "{}"\n'


SHARED = 'limits = [{ max = 5, per = "1s" }]'


def written(folder: Path, text: str) -> Path:
    file = folder / "c.toml"
    file.write_text(text)
    return file


def told(caught: SettingsError, file: Path | None = None) -> list[str]:
    """The faults as text; the canary is in nothing that could be printed of them."""
    everything = [str(caught), repr(caught), repr(caught.faults), *traceback.format_exception(caught)]
    assert CANARY not in "".join(everything)
    assert str(caught).splitlines() == [str(fault) for fault in caught.faults]
    return [str(fault).removeprefix(f"{file}: ") for fault in caught.faults]


def faults(folder: Path, text: str, **environ: str) -> list[str]:
    file = written(folder, text)
    with pytest.raises(SettingsError) as caught:
        load(file, environ=environ)
    return told(caught.value, file)


def env_faults(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(None, environ=environ)
    return told(caught.value)


def loaded(folder: Path, text: str, **environ: str) -> Settings:
    return load(written(folder, text), environ=environ)


def pool_with(folder: Path, line: str) -> PoolSettings:
    """GOOD's pool with one more line."""
    (pool,) = loaded(folder, GOOD.replace("limits =", f"{line}\nlimits =", 1)).pools
    return pool
