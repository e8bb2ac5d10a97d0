"""What the pages claim is so: the tests that they name exist, and their figures are those of the code."""

from __future__ import annotations

import ast
import asyncio
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest
from aiolimiter import AsyncLimiter

from apiflux_grpc.adapters.masking import SHORTEST
from apiflux_grpc.client import Call
from apiflux_grpc.core.batch import Ending
from apiflux_grpc.core.call import IDEMPOTENT_METHODS
from apiflux_grpc.core.fields import LARGEST_JSON
from apiflux_grpc.core.keys import KEY_BREAKER
from apiflux_grpc.core.model import RETRY_REASONS
from apiflux_grpc.core.retry import NOT_EXECUTED
from apiflux_grpc.core.scheduler import POOL_BREAKER
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.core.window import CUT, DRIFT, GROUPS, STEP
from apiflux_grpc.engine.outbox import BYTES, PLACES
from apiflux_grpc.judge.faults import DEFAULTS
from apiflux_grpc.plan.work import MOST_CALLS
from apiflux_grpc.server.defaults import Defaults
from apiflux_grpc.server.lifecycle import MAX_STREAMS
from apiflux_grpc.server.status import MOST_VIOLATIONS
from apiflux_grpc.settings import Settings
from docs.common import ROOT
from tests.docs.pages import page, pages

if TYPE_CHECKING:
    from pathlib import Path

NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_that_is_named_exists() -> None:
    """A promise is worth as much as its tests."""
    missing = []
    for name, text in pages().items():
        for file, test in NAMED.findall(text):
            path = ROOT / file
            if not path.is_file() or (test and test not in _tests_of(path)):
                missing.append(f"{name}: {file}::{test}")
    assert missing == []


def test_every_promise_names_a_test() -> None:
    """Each numbered section of the page."""
    sections = re.split(r"^## ", page("promises.md"), flags=re.MULTILINE)[1:]
    numbered = [section for section in sections if section[0].isdigit()]
    assert len(numbered) >= 10
    assert [section.splitlines()[0] for section in numbered if not NAMED.search(section)] == []


def test_every_file_of_the_map_exists() -> None:
    """A path that the architecture or a decision names is in the checkout, in the package or in tests; else in the part
    that its passage is about, which begins with "In `core/`", and otherwise in the core."""
    named, wrong = 0, []
    for title, text in pages().items():
        if title.startswith(("development/", "decisions/")):
            parts = re.split(r"^In `(\w+)/`", text, flags=re.MULTILINE)
            for part, passage in zip(["core", *parts[1::2]], parts[::2], strict=True):
                places = [ROOT, ROOT / "apiflux_grpc", ROOT / "apiflux_grpc" / part, ROOT / "tests"]
                names = set(re.findall(r"`([\w/]+(?:\.py|\.md|/))`", passage))
                named += len(names)
                wrong += [f"{part}: {name}" for name in sorted(names) if not any((at / name).exists() for at in places)]
    assert named > 100
    assert wrong == []


@cache
def _tests_of(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if name.lower().startswith("test")}


WORDS = {3: "three"}
KEY_AFTER, KEY_FIRST, KEY_LONGEST = KEY_BREAKER
POOL_AFTER, POOL_FIRST, POOL_LONGEST = POOL_BREAKER


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("explanation/limits.md", f"more than\na {GROUPS}th of the window"),
        ("explanation/limits.md", f"at most {GROUPS + 2} groups"),
        ("explanation/limits.md", f"costs at most {100 / GROUPS:.1f} % of the steady rate"),
        ("explanation/limits.md", f"1/{DRIFT:,} longer"),
        ("howto/clients.md", f"`process` takes up to {Settings(()).max_batch_calls:,} calls"),
        ("howto/clients.md", f"fewer than\n{Defaults().window:,} calls have no result"),
        ("howto/costs.md", f"costs {Call().cost or 1}."),
        ("howto/keys.md", f"After {WORDS[KEY_AFTER]} in a row"),
        (
            "howto/keys.md",
            f"after {KEY_FIRST // SECOND} seconds at first and at most {KEY_LONGEST // 60 // SECOND} minutes",
        ),
        ("howto/keys.md", f"shorter than {SHORTEST} characters"),
        ("howto/limits.md", f"to {CUT} of itself"),
        ("howto/limits.md", f"by {100 // STEP} % of itself"),
        ("howto/load.md", f"at most {MAX_STREAMS} streams"),
        ("howto/plan.md", f"up to {MOST_CALLS:,} calls"),
        ("howto/results.md", f"up to {PLACES:,} calls or about {BYTES >> 20} MiB per batch"),
        ("howto/results.md", f"no message for {Defaults().write_timeout:g} seconds"),
        ("howto/retries.md", f"After {POOL_AFTER} failures in a row"),
        ("howto/retries.md", f"after a second at first, and at most {POOL_LONGEST // SECOND} seconds"),
        ("howto/systemd.md", f"the drain's grace ({Settings(()).grace // SECOND} s by default)"),
        ("reference/configuration.md", f"Bodies of up to {LARGEST_JSON >> 20} MiB are read"),
        ("reference/errors.md", f"the first {MOST_VIOLATIONS} at most"),
    ],
)
def test_a_figure_is_that_of_the_code(name: str, text: str) -> None:
    """Where a constant changes, its page does too."""
    assert " ".join(text.split()) in " ".join(page(name).split())


def test_the_breaker_of_a_pool_begins_with_a_second() -> None:
    """As the page has it in words."""
    assert POOL_FIRST == SECOND


@pytest.mark.looptime
async def test_the_figure_of_the_picture() -> None:
    """One leaky bucket of 1,000 per 60 s lets 1,999 through in one window: the page and its picture say so."""
    limiter, loop, times = AsyncLimiter(1000, 60), asyncio.get_running_loop(), list[int]()
    start = loop.time()
    for _ in range(2100):
        await limiter.acquire()
        times.append(round((loop.time() - start) * 1e9))
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - 60 * SECOND:
            first += 1
        most = max(most, last - first + 1)
    assert page("explanation/limits.md").count(f"{most:,}") >= 3


def test_the_table_of_retries_is_that_of_the_rules() -> None:
    """What is tried again, and what even if the call isn't idempotent; and which methods are."""
    rows = re.findall(r"^\| .* \| `(\w+)`.* \| (\w+).* \| (\w+).* \|$", page("howto/retries.md"), re.MULTILINE)
    again = {reason: (safe == "again", unsafe == "again") for reason, safe, unsafe in rows}
    assert {reason for reason, (safe, _) in again.items() if safe} == {reason.value for reason in RETRY_REASONS}
    assert {reason for reason, (_, unsafe) in again.items() if unsafe} == {reason.value for reason in NOT_EXECUTED}
    sentence = re.search(r"^((?:[A-Z]+(?:, | and )?)+) count as idempotent", page("howto/retries.md"), re.MULTILINE)
    assert sentence is not None
    assert set(re.findall(r"[A-Z]+", sentence[1])) == IDEMPOTENT_METHODS


def test_every_event_of_the_log_is_documented() -> None:
    """With its level; and every ending of a batch, and every field of a request's line."""
    text = page("howto/log.md")
    sources = [ROOT / "apiflux_grpc" / name for name in ("adapters/observe_logs.py", "server/interceptors.py")]
    calls = [found for path in sources for found in _logged(path.read_text(encoding="utf-8"))]
    assert len(calls) > 8
    assert [event for level, event in calls if f"| `{event}` | {level} |" not in text] == []
    assert [ending.value for ending in Ending if f"`{ending.value}`" not in text] == []
    server = [path.read_text(encoding="utf-8") for path in (ROOT / "apiflux_grpc" / "server").glob("*.py")]
    fields = set(re.findall(r"[(, ](\w+)=", " ".join(re.findall(r"\bnote\((.*)\)", "\n".join(server)))))
    assert {"calls", "ending"} < fields
    assert [field for field in fields if f"`{field}`" not in text] == []


def _logged(source: str) -> list[tuple[str, str]]:
    return re.findall(r'_log\.(warning|error|critical)\(\s*"([^"]+)"', source)


def test_every_fault_of_the_judge_is_documented() -> None:
    """`ok` is none, and the statuses stand together."""
    text = page("howto/judge.md")
    assert [kind for kind in DEFAULTS if kind != "ok" and f"`{kind}`" not in text] == []
