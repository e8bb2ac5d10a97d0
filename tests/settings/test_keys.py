"""Keys and groups: where a secret comes from, each key only once, and groups that name existing keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.model import Group, Limit
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.settings import load
from tests.settings.writing import CANARY, GOOD, KEY, SHARED, faults, loaded, written


def test_a_secret_of_a_variable_may_stand_in_dotenv(tmp_path: Path) -> None:
    """secret_env looks in the environment, then in `.env`."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("KEY=second\n")
    file = written(tmp_path, GOOD.replace(f'secret = "{CANARY}"', 'secret_env = "KEY"'))
    assert load(file, environ={}, dotenv=dotenv).pools[0].pool.keys[0].secret == "second"
    assert load(file, environ={"KEY": "first"}, dotenv=dotenv).pools[0].pool.keys[0].secret == "first"


def test_a_key_is_there_once(tmp_path: Path) -> None:
    """The same label, the same secret, or a label that is another key's secret, is refused."""
    assert faults(tmp_path, GOOD + KEY.format("a", "other")) == [
        "pools.default.keys[1].label: is the label of keys[0] too; choose another"
    ]
    assert faults(tmp_path, GOOD + KEY.format("b", CANARY)) == [
        "pools.default.keys[1]: has the secret of keys[0]; remove one, or its limit would count twice"
    ]
    assert faults(tmp_path, GOOD + KEY.format(CANARY, "other")) == [
        "pools.default.keys[1].label: is the secret of a key; choose another, labels are shown"
    ]


def test_keys_without_a_label_are_numbered(tmp_path: Path) -> None:
    """A label that isn't given comes from the place, never from the secret."""
    (pool,) = loaded(tmp_path, GOOD.replace('label = "a"', "")).pools
    assert [key.label for key in pool.pool.keys] == ["key-1"]


def test_groups_name_keys_by_their_labels(tmp_path: Path) -> None:
    """Keys of several groups, one without a label of its own, and one in no group."""
    text = GOOD + KEY.format("b", "two") + '\n[[pools.default.keys]]\nsecret = "three"\n' + KEY.format("d", "four")
    for keys in ('"b", "key-3"', '"a"'):
        text += f"\n[[pools.default.groups]]\nkeys = [{keys}]\n{SHARED}\n"
    (pool,) = loaded(tmp_path, text).pools
    limits = (Limit(5, SECOND),)
    assert pool.pool.groups == (Group(("b", "key-3"), limits), Group(("a",), limits))


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ('keys = [{ label = 7, secret = "s" }]', "keys[0].label"),
        ("keys = [7]", "keys[0]"),
        ("keys = 7", "keys"),
        ("kys = []", "kys"),
        ("", "keys"),
    ],
)
def test_a_label_at_fault_makes_no_second_fault(tmp_path: Path, keys: str, place: str) -> None:
    """If a key's label can't be read, a group that names a label isn't a second fault."""
    (fault,) = faults(tmp_path, f'[pools.default]\nlimits = []\n{keys}\ngroups = [{{ keys = ["a"], {SHARED} }}]\n')
    assert fault.startswith(f"pools.default.{place}: ")
