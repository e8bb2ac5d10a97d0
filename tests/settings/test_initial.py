"""The configuration that `apiflux init` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.settings import load
from apiflux_grpc.settings.initial import found_presets, initial_config, variables_of
from apiflux_grpc.settings.presets import preset_names

KEYS = {
    "OPENAI_API_KEY": "canary-1",
    "OPENAI_API_KEY_2": "canary-2",
    "OPENAI_ORG": "no key",
    "GITHUB_TOKEN": "canary-3",
}


@pytest.mark.parametrize("preset", [*preset_names(), None])
@pytest.mark.parametrize("several", [False, True])
def test_it_loads_as_it_is(tmp_path: Path, preset: str | None, several: bool) -> None:
    """With the keys that it names: one pool, the default, with limits, and nothing to warn of."""
    first = "GITHUB_TOKEN" if preset == "github" else f"{(preset or '').upper().replace('-', '_')}_API_KEY".lstrip("_")
    variables = [first, f"{first}_2"] if several and preset else [first]
    text = initial_config(preset, variables if several else [], "apiflux.toml")
    assert "canary" not in text
    file = tmp_path / "apiflux.toml"
    file.write_text(text)
    settings = load(file, environ={name: f"canary-{name}" for name in variables})
    (one,) = settings.pools
    assert settings.warnings == ()
    assert one.pool.name == (preset or "default")
    assert one.base_url.startswith("https://")
    assert len(one.pool.keys) == len(variables)
    assert all(key.limits for key in one.pool.keys)


def test_limits_that_keys_share_can_be_put_into_a_group(tmp_path: Path) -> None:
    """What the comment about an organization's limits says holds once it is no comment any more."""
    text = initial_config("anthropic", ["ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_2"], "x")
    head, _, group = text.partition("# [[pools.anthropic.groups]]")
    file = tmp_path / "x"
    file.write_text(
        head + "\n".join(line.removeprefix("# ") for line in f"# [[pools.anthropic.groups]]{group}".splitlines())
    )
    (one,) = load(file, environ={"ANTHROPIC_API_KEY": "canary-1", "ANTHROPIC_API_KEY_2": "canary-2"}).pools
    assert one.pool.groups[0].keys == ("anthropic-api-key", "anthropic-api-key-2")
    assert len(one.pool.groups[0].limits) == 2


def test_keys_are_known_by_the_names_of_their_variables() -> None:
    """Those of the API alone, in order; so the preset need not be asked for."""
    assert variables_of("openai", KEYS) == ["OPENAI_API_KEY", "OPENAI_API_KEY_2"]
    assert variables_of(
        "openai", ["MY_OPENAI_API_KEY", "OPENAI_API_KEYS", "OPENAI_API_KEY_lower", "OPENAI_API_KEY"]
    ) == ["OPENAI_API_KEY"]
    assert variables_of("openai", ["OPENAI_API_KEY2", "OPENAI_API_KEY1"]) == ["OPENAI_API_KEY1", "OPENAI_API_KEY2"]
    assert found_presets(KEYS) == ["github", "openai"]
    assert found_presets(["GOOGLE_MAPS_API_KEY", "PATH"]) == ["google-maps"]
    assert found_presets(["PATH"]) == []
