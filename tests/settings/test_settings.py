"""Settings: every fault at once, each with its place, and no secret in any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.model import SECOND, Limit
from apiflux_grpc.settings import SettingsError, load, parse_duration

GOOD = """
[pools.default]
base_url = "http://127.0.0.1:9000"
limits = [{ max = 10, per = "1s" }]
[[pools.default.keys]]
label = "a"
secret = "canary-secret"
"""


def faults(tmp_path: Path, text: str, **environ: str) -> list[str]:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, environ=environ)
    assert "canary" not in str(caught.value) + repr(caught.value)
    return [str(fault).removeprefix(f"{file}: ") for fault in caught.value.faults]


def test_nothing_at_all_is_the_seed_s_defaults() -> None:
    """Without any configuration: pool `default`, three keys, 1,000 calls a minute each, on the simulator."""
    settings = load(None, environ={})
    (pool,) = settings.pools
    assert [key.label for key in pool.pool.keys] == ["key-1", "key-2", "key-3"]
    assert pool.pool.keys[0].limits == (Limit(1000, 60 * SECOND),)
    assert (pool.base_url, settings.port, settings.mode, settings.repeat_count) == ("", 50051, "test", 50)


def test_the_environment_wins_over_dotenv_and_that_over_toml(tmp_path: Path) -> None:
    """Flags, environment, .env, TOML, in this order."""
    (tmp_path / ".env").write_text("PORT=2000\nRATE_LIMIT=7\n")
    file = tmp_path / "c.toml"
    file.write_text(f'[server]\nbind = "127.0.0.1:1000"\n{GOOD}')
    dotenv = tmp_path / ".env"
    assert load(file, environ={}).port == 1000
    assert load(file, environ={}, dotenv=dotenv).port == 2000
    assert load(file, environ={"PORT": "3000"}, dotenv=dotenv).port == 3000
    assert load(file, environ={"PORT": "3000"}, bind="127.0.0.1:4000").port == 4000
    assert load(None, environ={}, dotenv=dotenv).pools[0].pool.keys[0].limits[0].max == 7


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("max = 10", "max = 0", "pools.default.limits[0].max", "greater than or equal to 1"),
        ('per = "1s"', 'per = "soon"', "pools.default.limits[0].per", "is not a length of time"),
        ('per = "1s"', 'per = "1s", burst = 11', "pools.default.limits[0].burst", "above max"),
        ('per = "1s"', 'per = "1s", kind = "bucket"', "pools.default.limits[0].kind", "not supported"),
        ("limits =", "limts =", "pools.default.limts", "did you mean 'limits'?"),
        ("http://", "ftp://", "pools.default.base_url", "is not http(s)"),
        ("127.0.0.1:9000", "user:canary@h", "pools.default.base_url", "is not http(s)"),
        ('label = "a"', 'label = ""', "pools.default.keys[0].label", "1 to 64"),
        ('secret = "canary-secret"', 'secret = ""', "pools.default.keys[0].secret", "is empty"),
        ('secret = "canary-secret"', "", "pools.default.keys[0]", "exactly one of"),
        ('secret = "canary-secret"', 'secret_env = "NOPE"', "pools.default.keys[0].secret_env", "NOPE is not set"),
        ('secret = "canary-secret"', 'secret_file = "nope"', "pools.default.keys[0].secret_file", "can't be read"),
        ('secret = "canary-secret"', 'secret = "canary\\n"', "pools.default.keys[0].secret", "printable"),
        ("[pools.default]", "[budget]\n[pools.default]", "budget", "not supported by this version"),
    ],
)
def test_a_fault_has_its_place(tmp_path: Path, old: str, new: str, place: str, message: str) -> None:
    """Each fault names the field, and says what is wrong with it."""
    assert old in GOOD
    (fault,) = faults(tmp_path, GOOD.replace(old, new, 1))
    assert fault.startswith(f"{place}: ")
    assert message in fault


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Whoever mends a configuration sees everything that is wrong with it."""
    text = GOOD.replace('"a"', '"a b"').replace('"1s"', '"x"').replace("http:", "file:")
    assert len(faults(tmp_path, text, PORT="no", BATCH_SIZE="0")) == 5


def test_keys_are_there_once(tmp_path: Path) -> None:
    """The same label, or the same secret under two labels, is refused."""
    again = '\n[[pools.default.keys]]\nlabel = "{}"\nsecret = "{}"\n'
    assert "used twice" in faults(tmp_path, GOOD + again.format("a", "canary-other"))[0]
    assert "same secret" in faults(tmp_path, GOOD + again.format("b", "canary-secret"))[0]
    assert "double its limit" in faults(tmp_path, GOOD.replace("default", "x"), API_KEYS="canary1,canary1")[0]


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    """A file that is no TOML is one fault, with its line."""
    (fault,) = faults(tmp_path, "[pools\n")
    assert "line 1" in fault


@pytest.mark.parametrize(("text", "ns"), [("250ms", 250_000_000), ("1.5s", 1_500_000_000), ("2m", 120 * SECOND)])
def test_durations(text: str, ns: int) -> None:
    """Lengths of time are exact."""
    assert parse_duration(text) == ns


def test_a_secret_is_in_no_repr(tmp_path: Path) -> None:
    """Settings may be logged."""
    file = tmp_path / "c.toml"
    file.write_text(GOOD)
    assert "canary" not in repr(load(file, environ={}))
