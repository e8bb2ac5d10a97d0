"""Presets: how one completes a pool, and what every one of them keeps to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from apiflux_grpc.core.fields import HeaderField, JsonField
from apiflux_grpc.core.model import HeaderKey
from apiflux_grpc.core.rules import Means
from apiflux_grpc.settings.presets import preset_names, preset_text
from tests.settings.writing import GOOD, faults, loaded

KEYS = 'limits = []\nkeys = [{ secret = "s" }]\n'


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_alone_and_without_a_warning(tmp_path: Path, name: str) -> None:
    """With keys and limits it is a whole pool, over https, and needs nothing else."""
    settings = loaded(tmp_path, f'[pools.default]\npreset = "{name}"\n{KEYS}')
    (pool,) = settings.pools
    assert settings.warnings == ()
    assert pool.base_url.startswith("https://")
    assert (pool.preset, pool.preset_rules) == (name, len(pool.pool.answers))


@pytest.mark.parametrize("name", preset_names())
def test_all_that_a_preset_says_is_from_a_public_page(name: str) -> None:
    """Each setting follows comments that name the page that says so, and each rule has its own."""
    blocks = re.split(r"\n\s*\n", preset_text(name))
    said = [block for block in blocks if re.search(r"(?m)^[^#\n]", block)]
    assert said
    assert [block for block in said if not re.search(r"(?m)^# https://\S+$", block)] == []
    assert [block for block in said if block.count("[[answers]]") > 1] == []


@pytest.mark.parametrize("name", preset_names())
def test_what_a_preset_only_mentions_can_be_set(tmp_path: Path, name: str) -> None:
    """The limits in its comments are those of a pool, and so is whatever else stands there to be copied."""
    mentioned = re.findall(r"(?m)^# ((?:[a-z_]+ = |  |\]).*)$", preset_text(name))
    assert any(line.startswith("limits = ") for line in mentioned)
    text = "\n".join([f'[pools.default]\npreset = "{name}"\nkeys = [{{ secret = "s" }}]', *mentioned])
    (one,) = loaded(tmp_path, text).pools
    assert one.pool.keys[0].limits


def test_the_pool_s_own_words_replace_the_preset_s(tmp_path: Path) -> None:
    """Each name whole: a table of the pool isn't mixed with the preset's."""
    text = f"""
    [pools.default]
    preset = "openai"
    base_url = "http://127.0.0.1:9000"
    key_in = {{ header = "X-Own" }}
    cost_from = {{ header = "X-Cost" }}
    {KEYS}
    """
    (one,) = loaded(tmp_path, text).pools
    assert (one.base_url, one.pool.key_in) == ("http://127.0.0.1:9000", HeaderKey("X-Own"))
    assert one.pool.cost_from == HeaderField("x-cost")


def test_the_pool_s_own_rules_come_before_the_preset_s(tmp_path: Path) -> None:
    """Both hold, and an own rule may leave nothing for the preset's."""
    text = f'[pools.default]\npreset = "openai"\n{KEYS}answers = [{{ status = ["429"], means = "failed" }}]\n'
    (one,) = loaded(tmp_path, text).pools
    assert [rule.means for rule in one.pool.answers][:2] == [Means.FAILED, Means.LIMITED]
    assert one.preset_rules == len(one.pool.answers) - 1
    assert one.pool.cost_from == JsonField(("usage", "total_tokens"))


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ('"opnai"', "unknown preset; did you mean 'openai'?"),
        ('"google_maps"', "unknown preset; did you mean 'google-maps'?"),
        ('"qqq"', f"unknown preset; use one of {', '.join(preset_names())}"),
        ('""', "unknown preset; use one of"),
        ("7", "must be a string"),
    ],
)
def test_an_unknown_preset(tmp_path: Path, preset: str, message: str) -> None:
    """It is told with the closest name, or all of them."""
    (fault,) = faults(tmp_path, GOOD.replace("base_url =", f"preset = {preset}\nbase_url =", 1))
    assert fault.startswith("pools.default.preset: ")
    assert message in fault


def test_faults_of_a_pool_with_a_preset_keep_their_places(tmp_path: Path) -> None:
    """The pool's own rules are counted as its author wrote them; what isn't even a list of rules is told as ever."""
    text = f'[pools.default]\npreset = "openai"\n{KEYS}answers = [{{ means = "limited" }}, {{}}]\n'
    assert [fault.partition(":")[0] for fault in faults(tmp_path, text)] == ["pools.default.answers[1].means"]
    text = f'[pools.default]\npreset = "openai"\nsimulator = {{}}\n{KEYS}'
    assert faults(tmp_path, text) == [
        "pools.default.simulator: conflicts with `preset`, which has a base_url; set one of them"
    ]
    text = f'[pools.default]\npreset = "openai"\n{KEYS}answers = 7\n'
    assert faults(tmp_path, text) == ["pools.default.answers: must be a list"]
