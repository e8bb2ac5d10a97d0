"""What works but may not be meant is said once, in words that show no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.settings import load
from tests.settings.writing import CANARY, GOOD, loaded


def test_other_warnings(tmp_path: Path) -> None:
    """Unencrypted keys, ignored names, example keys sent out."""
    (clear,) = loaded(tmp_path, GOOD.replace("127.0.0.1", "api.example")).warnings
    assert "not https" in clear
    (ignored,) = loaded(tmp_path, GOOD, API_KEYS="x").warnings
    assert ignored.startswith("API_KEYS: not used")
    (beside,) = loaded(tmp_path, GOOD.replace("pools.default", "pools.other"), RATE_LIMIT="5").warnings
    assert beside.startswith("RATE_LIMIT: not used")
    (sent,) = load(None, environ={"UPSTREAM_URL": "http://127.0.0.1:1"}).warnings
    assert sent.startswith("API_KEYS: not set")
    assert CANARY not in clear + ignored + sent


@pytest.mark.parametrize(
    ("base", "rule", "warned"),
    [
        ("/v1", 'idempotent = [{ paths = ["/v1/chat"] }]', "idempotent"),
        ("/openai/v1/", 'allow_paths = ["/v1"]', "allow_paths"),
        ("/v1", 'allow_paths = ["/v1beta/", "/chat"]', ""),
        ("", 'allow_paths = ["/v1/"]', ""),
    ],
)
def test_a_base_url_that_rules_repeat_is_warned_of(tmp_path: Path, base: str, rule: str, warned: str) -> None:
    """Rules see what follows it, so those would match nothing."""
    text = GOOD.replace("http://127.0.0.1:9000", f"http://127.0.0.1:9000{base}").replace("limits", f"{rule}\nlimits", 1)
    found = loaded(tmp_path, text).warnings
    assert [f"paths in {warned} begin so" in one for one in found] == [True] * bool(warned)


@pytest.mark.parametrize(("prefix", "warned"), [("Bearer", True), ("Bearer ", False), ("key=", False), ("", False)])
def test_a_prefix_without_its_space_is_warned_of(tmp_path: Path, prefix: str, warned: bool) -> None:
    """A word alone would stick to the key; whatever else stands there is meant so."""
    key_in = f'key_in = {{ header = "Authorization", prefix = "{prefix}" }}\nlimits'
    found = loaded(tmp_path, GOOD.replace("limits", key_in, 1)).warnings
    assert [text.endswith('most APIs want "Bearer "') for text in found] == [True] * warned


@pytest.mark.parametrize(("before", "is_warned"), [("Bearer ", True), ("bearer ", True), ("", False)])
def test_a_secret_with_the_prefix_is_warned_of(tmp_path: Path, before: str, is_warned: bool) -> None:
    """Copied out of a header; "Bearer Bearer sk-..." is a key that no API knows. The secret isn't shown."""
    key_in = 'key_in = { header = "Authorization", prefix = "Bearer " }\nlimits'
    text = GOOD.replace("limits", key_in, 1).replace(CANARY, f"{before}{CANARY}")
    warnings = loaded(tmp_path, text).warnings
    assert [one.split(": ")[1] for one in warnings] == ["pools.default.keys[0]"] * is_warned
    assert CANARY not in "".join(warnings)


@pytest.mark.parametrize("quote", ["'", '\\"'])
def test_a_secret_that_begins_with_a_quote_is_warned_of(tmp_path: Path, quote: str) -> None:
    """A shell's quotes that came along, in the file or in a variable; the secret isn't shown."""
    (inside,) = loaded(tmp_path, GOOD.replace(CANARY, f"{quote}{CANARY}{quote}")).warnings
    assert "keys[0].secret: begins with a quote" in inside
    by_name = GOOD.replace(f'secret = "{CANARY}"', 'secret_env = "KEY"')
    (named,) = loaded(tmp_path, by_name, KEY=f'"{CANARY}"').warnings
    assert "keys[0].secret_env: names a secret that begins with a quote" in named
    assert CANARY not in inside + named
