"""The rules of a pool: every name that they can say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.core.fields import Field, HeaderField, JsonField
from apiflux_grpc.core.rules import AnswerRule, CallRule, Condition, CostOfCall, Means
from tests.settings.writing import GOOD, faults, pool_with


def _json(path: str, *values: str) -> Condition:
    return Condition(JsonField(tuple(path.split("."))), values)


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ('means = "failed"', AnswerRule(Means.FAILED)),
        ('status = ["5xx", "408"], means = "again"', AnswerRule(Means.AGAIN, ((500, 599), (408, 408)))),
        (
            'json = { at = "status", is = ["A", "B"] }, means = "success"',
            AnswerRule(Means.SUCCESS, (), (_json("status", "A", "B"),)),
        ),
        (
            'json = [{ at = "a.b", is = ["1"] }, { at = "a", is = ["2"] }], means = "key_rejected"',
            AnswerRule(Means.KEY_REJECTED, (), (_json("a.b", "1"), _json("a", "2"))),
        ),
        (
            'header = { name = "X-Left", is = ["0"] }, json = { at = "X-Left", is = ["0"] }, means = "limited"',
            AnswerRule(Means.LIMITED, (), (_json("X-Left", "0"), Condition(HeaderField("x-left"), ("0",)))),
        ),
        (
            'wait = { json = "error.retryDelay" }, means = "again", not_executed = true',
            AnswerRule(Means.AGAIN, wait=JsonField(("error", "retryDelay")), not_executed=True),
        ),
        (
            'wait = { header = "X-Wait" }, means = "limited"',
            AnswerRule(Means.LIMITED, wait=HeaderField("x-wait")),
        ),
    ],
)
def test_what_a_rule_says(tmp_path: Path, written: str, rule: AnswerRule) -> None:
    """Each name of a rule ends up where the verdicts look for it."""
    assert pool_with(tmp_path, f"answers = [{{ {written} }}]").pool.answers == (rule,)


LIMITED = 'means = "limited"'
AGAIN = 'means = "again"'


@pytest.mark.parametrize(
    ("rules", "place", "message"),
    [
        ("{}", "[0].means", "is missing; say what such an answer means"),
        ('{ means = "retry" }', "[0].means", "'success', 'limited', 'key_rejected', 'again' or 'failed'"),
        (f"{{ {LIMITED}, status = [] }}", "[0].status", "is empty, so no answer could match"),
        (f'{{ {LIMITED}, status = ["6xx"] }}', "[0].status[0]", "must be a string such as"),
        (f"{{ {LIMITED}, stats = [] }}", "[0].stats", "did you mean 'status'?"),
        (f"{{ {LIMITED}, json = 7 }}", "[0].json", "must be a table, or a list of tables"),
        (f"{{ {LIMITED}, json = [7] }}", "[0].json[0]", "must be a table"),
        (f'{{ {LIMITED}, json = {{ is = ["a"] }} }}', "[0].json.at", "is missing; say where the value stands"),
        (f'{{ {LIMITED}, json = {{ at = "a" }} }}', "[0].json.is", "is missing; list the values"),
        (f'{{ {LIMITED}, json = {{ at = "a", is = [] }} }}', "[0].json.is", "is missing; list the values"),
        (f'{{ {LIMITED}, json = {{ at = "a", is = [7] }} }}', "[0].json.is[0]", "must be a string"),
        (f'{{ {LIMITED}, json = {{ at = "a..b", is = ["c"] }} }}', "[0].json.at", "must be names joined by dots"),
        (f'{{ {LIMITED}, json = [{{ at = "a..b", is = ["c"] }}] }}', "[0].json[0].at", "must be names joined by dots"),
        (f'{{ {LIMITED}, json = {{ att = "a", is = ["c"] }} }}', "[0].json.att", "did you mean 'at'?"),
        (f'{{ {LIMITED}, header = {{ nam = "a", is = ["c"] }} }}', "[0].header.nam", "did you mean 'name'?"),
        (f'{{ {LIMITED}, header = {{ is = ["c"] }} }}', "[0].header.name", "is missing"),
        (
            f'{{ {LIMITED}, header = {{ name = "a b", is = ["c"] }} }}',
            "[0].header.name",
            "must be the name of a header",
        ),
        (
            f'{{ {LIMITED}, json = [{{ at = "a", is = ["b"] }}, {{ at = "a", is = ["c"] }}] }}',
            "[0].json[1].at",
            "is the field of json[0] too; put the values of both into one `is`",
        ),
        (
            f'{{ {LIMITED}, header = [{{ name = "A", is = ["b"] }}, {{ name = "a", is = ["b"] }}] }}',
            "[0].header[1].name",
            "is the field of header[0] too",
        ),
        (f"{{ {LIMITED}, wait = {{}} }}", "[0].wait.header", "is missing; set `header` or `json`"),
        (f'{{ {LIMITED}, wait = {{ jsn = "a" }} }}', "[0].wait.jsn", "did you mean 'json'?"),
        ('{ means = "failed", wait = { json = "a" } }', "[0].wait", "nobody waits after such an answer"),
        (f"{{ {LIMITED}, not_executed = true }}", "[0].not_executed", 'has no effect unless means is "again"'),
        # what an earlier rule leaves nothing of
        (f'{{ {LIMITED} }}, {{ {AGAIN}, status = ["503"] }}', "[1]", "never holds, because answers[0] matches all"),
        (f'{{ {LIMITED}, status = ["5xx"] }}, {{ {AGAIN}, status = ["500-502", "503"] }}', "[1]", "put it first"),
        (
            f'{{ {LIMITED}, json = {{ at = "a", is = ["b", "c"] }} }}, '
            f'{{ {AGAIN}, status = ["503"], json = {{ at = "a", is = ["c"] }} }}',
            "[1]",
            "never holds",
        ),
    ],
)
def test_a_rule_that_is_refused(tmp_path: Path, rules: str, place: str, message: str) -> None:
    """Each fault has its place, once, as it was written."""
    (fault,) = faults(tmp_path, GOOD.replace("limits =", f"answers = [{rules}]\nlimits =", 1))
    assert fault.startswith(f"pools.default.answers{place}: ")
    assert message in fault


@pytest.mark.parametrize(
    "rules",
    [
        f'{{ {LIMITED}, status = ["503"] }}, {{ {AGAIN}, status = ["5xx"] }}',
        f'{{ {LIMITED}, status = ["503"] }}, {{ {AGAIN} }}',
        f'{{ {LIMITED}, json = {{ at = "a", is = ["b"] }} }}, {{ {AGAIN}, json = {{ at = "a", is = ["b", "c"] }} }}',
        f'{{ {LIMITED}, json = {{ at = "a", is = ["b"] }} }}, {{ {AGAIN}, status = ["503"] }}',
        f'{{ {LIMITED}, json = {{ at = "a", is = ["b"] }} }}, {{ {AGAIN}, header = {{ name = "a", is = ["b"] }} }}',
    ],
)
def test_a_rule_that_holds_for_some_answers_is_no_fault(tmp_path: Path, rules: str) -> None:
    """A rule is refused only if nothing at all is left for it."""
    assert len(pool_with(tmp_path, f"answers = [{rules}]").pool.answers) == 2


def test_rules_in_words() -> None:
    """They are shown as people would say them."""
    places: list[Field] = [JsonField(("error", "code")), HeaderField("x-left")]
    conditions = (Condition(places[0], ("a", "b", "c")), Condition(places[1], ("0",)))
    rule = AnswerRule(Means.LIMITED, ((200, 299), (429, 429)), conditions)
    assert str(rule) == "200-299, 429 if error.code is a, b or c and header x-left is 0"
    assert str(AnswerRule(Means.FAILED)) == "any"
    assert str(CallRule(("POST", "PATCH"), ("/a", "/b"))) == "POST, PATCH: /a, /b"
    assert str(CallRule()) == "any method: any path"
    assert str(CostOfCall(("a", "b"), 0.25, ("c", "d"), 7)) == "a.b + 0.25 per byte of c.d, at least 7"
    assert str(CostOfCall(per_byte=2)) == "2 per byte of the body"
