"""The report names what the client did wrong, and nothing else."""

import io
import json

import pytest

from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.ledger import Ledger
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.report import Report
from apiflux_grpc.judge.showing import print_report
from tests.judge.wires import MINUTE, SECRET


def ledger_of(*limits: Limit) -> Ledger:
    return Ledger({"alpha": SECRET}, limits)


def test_a_call_seen_twice_is_a_violation() -> None:
    """A call counts as seen twice if it was accepted twice; arrivals answered 429 or 401 don't count."""
    ledger = ledger_of(Limit(3, MINUTE))
    for call_id, key, attempt, now in [
        ("once", SECRET, 1, 0),
        ("retried", "wrong", 1, 1),
        ("retried", SECRET, 2, 2),
        ("twice", SECRET, 1, 3),
        ("twice", SECRET, 2, 4),
        ("twice", SECRET, 3, 3 + MINUTE),
    ]:
        ledger.arrive(call_id, key, attempt, now)
    report = ledger.report()
    assert report.seen_twice == 1
    assert report.repeats == (("twice", (1, 3)),)
    assert "1 call arrived more than once: 'twice' (attempts 1, 3)." in report.violations


def test_a_broken_limit_and_unknown_keys_are_violations() -> None:
    """The report says in plain words which limit was broken and that unknown keys arrived."""
    ledger = ledger_of(Limit(1, MINUTE), Limit(5, MINUTE))
    for now in range(3):
        ledger.arrive(f"call-{now}", SECRET, 1, now)
    for key in ("x", "y", "x"):
        ledger.arrive("call", key, 1, 0)
    report = ledger.report(max_lag_ns=7)
    assert not report.ok
    assert report.worst == 3.0
    assert (report.arrivals, report.accepted, report.rejected) == (6, 1, 2)
    assert (report.unknown_arrivals, report.unknown_keys, report.max_lag_ns) == (3, 2, 7)
    assert report.violations == [
        "alpha: 3 arrivals within 60s, its limit is 1.",
        "3 arrivals with 2 unknown keys.",
    ]


def test_a_kept_limit_is_no_violation() -> None:
    """As many arrivals as the limit allows are fine, and so is no arrival at all."""
    ledger = ledger_of(Limit(2, MINUTE))
    assert ledger.report().ok
    ledger.arrive("a", SECRET, 1, 0)
    ledger.arrive("b", SECRET, 1, 0)
    assert ledger.report().ok
    assert ledger.report().worst == 1.0


@pytest.mark.parametrize(
    ("arrivals", "resent"),
    [
        ([("500", 0), ("", 0)], 0),
        ([("500", 1), ("hang", 2), ("", 3)], 0),
        ([("", 1), ("", 2)], 1),
        ([("500", 1), ("", 1)], 1),
        ([("500", 0), ("", 0), ("", 0)], 1),
        ([("500", 1), ("", 2), ("500", 3), ("", 4)], 1),
    ],
)
def test_a_retry_is_no_resend(arrivals: list[tuple[str, int]], resent: int) -> None:
    """A call that comes again after a fault, as a new attempt, was retried; any other that comes again was resent."""
    ledger = Ledger({"alpha": SECRET}, [])
    for now, (kind, attempt) in enumerate(arrivals):
        ledger.arrive("call", SECRET, attempt, now)
        if kind:
            ledger.fault("call", SECRET, kind)
    report = ledger.report()
    assert (report.seen_twice, report.resent) == (1, resent)
    assert report.ok == (not resent)


def test_examples_are_of_resent_calls() -> None:
    """A violation names calls that were resent, not those that were retried; without any, examples are retries."""
    ledger = Ledger({"alpha": SECRET}, [])
    for call_id in ("retried", "resent"):
        ledger.arrive(call_id, SECRET, 0, 0)
    ledger.fault("retried", SECRET, "500")
    ledger.arrive("retried", SECRET, 2, 0)
    assert ledger.report().repeats == (("retried", (1, 2)),)
    ledger.arrive("resent", SECRET, 0, 0)
    assert ledger.report().violations == ["1 call arrived more than once: 'resent' (attempts 1, 1)."]
    assert ledger.report().seen_twice == 2


def test_a_report_survives_json() -> None:
    """What `to_json` tells, `from_json` understands, derived figures included."""
    ledger = ledger_of(Limit(1, MINUTE))
    for key, now in [(SECRET, 0), (SECRET, 1), ("wrong", 1), (SECRET, MINUTE)]:
        ledger.arrive("a", key, 1, now)
    report = ledger.report(max_lag_ns=3)
    data = json.loads(json.dumps(report.to_json()))
    assert Report.from_json(data) == report
    assert (data["ok"], data["worst"], data["violations"]) == (False, 2.0, report.violations)


def test_a_report_with_faults_survives_json() -> None:
    """Faults are told by key and kind, summed up, and printed."""
    ledger = Ledger({"alpha": SECRET, "beta": "b"}, [])
    for key, kind in [(SECRET, "500"), (SECRET, "hang"), ("b", "500")]:
        ledger.arrive("call", key, 0, 0)
        ledger.fault("call", key, kind)
    ledger.arrive("call", "b", 0, 0)
    ledger.arrive("call", "b", 0, 0)
    report = ledger.report()
    assert [key.faults for key in report.keys] == [{"500": 1, "hang": 1}, {"500": 1}]
    assert report.faults == {"500": 2, "hang": 1}
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert (report.resent, report.to_json()["faults"]) == (1, {"500": 2, "hang": 1})
    file = io.StringIO()
    print_report(report, file)
    assert "2 500, 1 hang" in file.getvalue()


def test_no_secret_is_shown() -> None:
    """Neither a report nor a repr shows a secret, not even one that a client put into a call's name."""
    options = JudgeOptions(keys={"alpha": SECRET, "beta": f"{SECRET}-2"}, limits=(Limit(9, MINUTE),))
    judge = Judge(options)
    for key in (SECRET, SECRET, "unknown-canary"):
        judge.ledger.arrive(f"GET /?key={SECRET}-2", key, 1, 0)
    told = f"{options!r} {judge.ledger!r} {judge.report()!r} {judge.report().to_json()} {judge.report().violations}"
    assert "canary" not in told
    assert "GET /?key=<beta>" in told
