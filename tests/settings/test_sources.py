"""The sources: which one wins, how `.env` and TOML are read, and what is said of a file that can't be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apiflux_grpc.settings import SettingsError, load
from tests.settings.writing import CANARY, GOOD, told, written


def test_flags_win_over_the_environment_over_dotenv_over_toml(tmp_path: Path) -> None:
    """Flags, environment, .env, TOML, in this order."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=2000\nRATE_LIMIT=7\n")
    file = written(tmp_path, f'[server]\nbind = "127.0.0.1:1000"\nmode = "production"\nbatch_size = 3\n{GOOD}')
    assert load(file, environ={}).port == 1000
    assert load(file, environ={}, dotenv=dotenv).port == 2000
    assert load(file, environ={"PORT": "3000"}, dotenv=dotenv).port == 3000
    assert load(file, environ={"PORT": ""}, dotenv=dotenv).port == 2000
    assert load(file, environ={"PORT": "3000"}, dotenv=dotenv, bind="[::1]:4000").port == 4000
    assert load(file, environ={"PORT": "3000"}, bind="[::1]:4000").host == "::1"
    assert (load(file, environ={}).mode, load(file, environ={"TEST_MODE": "1"}).mode) == ("production", "test")
    assert load(file, environ={"BATCH_SIZE": "4"}).batch_size == 4
    assert load(None, environ={}, dotenv=dotenv).pools[0].pool.keys[0].limits[0].max == 7


def test_a_fault_of_dotenv_names_the_file(tmp_path: Path) -> None:
    """A bad value, and a line that is no assignment, are faults of `.env`; a value that is overridden isn't judged."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"RATE_LIMIT={CANARY}\n\nthis is {CANARY}\nPORT=x\n")
    with pytest.raises(SettingsError) as caught:
        load(None, environ={"PORT": "1"}, dotenv=dotenv)
    lines = told(caught.value)
    assert lines == [".env: line 3: is not NAME=value", ".env: RATE_LIMIT: must be a whole number"]


def test_dotenv_is_read_without_substitution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A "$" in a secret stays one, no variable of this process gets in, and none is set."""
    monkeypatch.setenv("HERE", "substituted")
    monkeypatch.setenv("PORT", "1")
    dotenv = tmp_path / ".env"
    dotenv.write_text("API_KEYS=a${HERE}b\nNEW_NAME_OF_OURS=x\n")
    settings = load(None, environ={}, dotenv=dotenv)
    assert (settings.pools[0].pool.keys[0].secret, settings.port) == ("a${HERE}b", 50051)
    assert "NEW_NAME_OF_OURS" not in os.environ


def test_a_dotenv_that_is_not_there_is_as_none(tmp_path: Path) -> None:
    """`.env` is optional; one that can't be read is a fault."""
    assert load(None, environ={}, dotenv=tmp_path / "none").port == 50051
    with pytest.raises(SettingsError, match="can't be read"):
        load(None, environ={}, dotenv=tmp_path)


def test_the_flag_s_fault_is_named() -> None:
    """A bad --bind is a fault of --bind."""
    with pytest.raises(SettingsError) as caught:
        load(None, environ={}, bind=CANARY)
    assert told(caught.value) == ["--bind: has no port; write HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"]


@pytest.mark.parametrize(
    "bind", ["", ":1", "h:", "h:65536", "::1:1", "[h]:1", "[]:1", "h:²", "h:-1", "h h:1", "[::1:1"]
)
def test_what_is_no_address(bind: str) -> None:
    """HOST:PORT, and nothing that merely looks like it."""
    with pytest.raises(SettingsError, match=r"--bind: (must be|has no port; write) HOST:PORT"):
        load(None, environ={}, bind=bind)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[server]\n\n[pools\n", "c.toml: line 3, column 7", "Expected"),
        (f'a = "{CANARY}', "c.toml: line 1", "Unterminated string"),
        ("a = " + "[" * 5000, "c.toml", "nested too deeply"),
        ("a = " + "9" * 5000, "c.toml", "Exceeds the limit"),
    ],
)
def test_broken_toml_names_the_line(tmp_path: Path, text: str, place: str, message: str) -> None:
    """A file that isn't TOML is one fault, with its line if the parser knows it."""
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text), environ={})
    (fault,) = caught.value.faults
    told(caught.value)
    assert Path(fault.place).name.startswith(place)
    assert message in fault.message


def test_a_config_that_can_t_be_read_is_a_fault(tmp_path: Path) -> None:
    """A file that isn't there, is a folder or isn't UTF-8 is named."""
    (tmp_path / "c.toml").write_bytes(b"\xff")
    for name, message in (("none", "No such file"), ("", "directory"), ("c.toml", "is not UTF-8")):
        with pytest.raises(SettingsError, match=message) as caught:
            load(tmp_path / name, environ={})
        assert caught.value.faults[0].place == str(tmp_path / name)


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    """Neither before the TOML nor in `.env`: Notepad writes one."""
    config, dotenv = tmp_path / "c.toml", tmp_path / ".env"
    config.write_text("[server]\nmax_batches = 7\n", encoding="utf-8-sig")
    dotenv.write_text("PORT=5\n", encoding="utf-8-sig")
    settings = load(config, environ={}, dotenv=dotenv)
    assert (settings.max_batches, settings.port) == (7, 5)
