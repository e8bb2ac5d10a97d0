"""`make load` without its processes: which profiles run, what is read of ghz, and what counts as fine.

The rule: a run is fine only where ghz, our own streams, the samples and the judge all say so; each thing that can be
wrong makes it not fine by itself. Not proved here: that a server passes, which is what `make load` is for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from apiflux_grpc.charts import SAMPLES
from apiflux_grpc.judge.report import KeyReport, LimitReport, Report
from bench.load.__main__ import main
from bench.load.outcome import Ghz, Outcome, Own, Sample, percentiles, rates, read_ghz
from bench.load.profiles import PROFILES, chosen
from bench.load.running import SECRETS, GhzFailed, ghz_command, masked, run_ghz
from bench.load.showing import charts, show, to_html, write_json

MB = 1_000_000
REPORT = {
    "count": 3,
    "total": 2_000_000_000,
    "errorDistribution": {"rpc error: code = ResourceExhausted desc = full": 1},
    "statusCodeDistribution": {"OK": 2, "ResourceExhausted": 1},
    "latencyDistribution": [{"percentage": 50, "latency": 40_000_000}, {"percentage": 0, "latency": 0}],
}


def judged(accepted: int, *, most: int = 10, **more: Any) -> Report:
    """What a judge with one key says, whose limit is 10 a second."""
    return Report((KeyReport("key-1", accepted, 0, (LimitReport(10, 1_000_000_000, most),)),), **more)


def good(name: str) -> Outcome:
    """An outcome of this profile as it should be."""
    profile = PROFILES[name]
    statuses, own = {"OK": profile.requests}, Own(3, 60, first=[0.1, 0.2], gaps=[0.01])
    if profile.max_batches is not None:
        statuses = {"OK": profile.requests - 7, "ResourceExhausted": 7}
        own.refusals, own.again = [1.5], True
    ghz = Ghz(profile.requests, 30.0, statuses, {}, {50: 0.1, 95: 0.2, 99: 0.3})
    samples = tuple(Sample(at / 4, at / 10, 70 * MB, at * 5) for at in range(121))
    return Outcome(profile, ghz, own, samples, judged(statuses["OK"] * profile.calls + 60))


def having(outcome: Outcome, **own: Any) -> Outcome:
    """The same, but for something that our own streams saw."""
    return replace(outcome, own=replace(outcome.own, **own))


def ended(outcome: Outcome, **statuses: int) -> Outcome:
    """The same, but for how ghz's streams ended; the judge saw what was accepted then."""
    ghz = replace(outcome.ghz, statuses=statuses)
    changed = replace(outcome, ghz=ghz)
    return replace(changed, report=judged(changed.accepted))


# -- profiles ------------------------------------------------------------------------------------


def test_all_profiles_run_unless_one_is_named() -> None:
    """Without a name all profiles run; `seconds` then lengthens the soak and nothing else."""
    assert [profile.name for profile in chosen(None, None)] == ["smoke", "100x50", "ramp", "soak", "100x2000"]
    assert chosen("ramp", None) == [PROFILES["ramp"]]
    longer = {profile.name: profile for profile in chosen(None, 3600)}
    assert longer["soak"].requests == 3600 * PROFILES["soak"].rate
    assert {**longer, "soak": PROFILES["soak"]} == PROFILES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sh", "sok"], [*PROFILES]),
        (["sh", "smoke", "--seconds", "60"], ["smoke", "soak"]),
        (["sh", "soak", "--seconds", "0"], ["0 seconds"]),
        (["no-such-ghz", "smoke"], ["no-such-ghz", "make build/bin/ghz"]),
    ],
)
def test_wrong_arguments(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that doesn't fit ends with code 2 before anything is started, and says what would fit."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words)


def test_ghz_gets_the_load_of_the_profile() -> None:
    """A ramp doesn't wait for streams that are open, a soak has its rate, the others none; all use connections."""
    command = {name: ghz_command("ghz", PROFILES[name], Path("d"), Path("o"), "t:1") for name in PROFILES}
    assert "--async" in command["ramp"]
    assert command["ramp"][command["ramp"].index("--load-step") + 1] == str(PROFILES["ramp"].growth)
    assert command["soak"][command["soak"].index("--rps") + 1] == str(PROFILES["soak"].rate)
    assert not {"--rps", "--async"} & {*command["100x50"]}
    assert all(int(each[each.index("--connections") + 1]) > 1 for each in command.values())


# -- ghz -----------------------------------------------------------------------------------------


def test_ghz_is_read() -> None:
    """Of ghz's JSON the statuses, errors and percentiles are taken, in seconds; its empty percentiles are left out."""
    ghz = read_ghz(json.dumps(REPORT))
    assert ghz.statuses == {"OK": 2, "ResourceExhausted": 1}
    assert ghz.percentiles == {50: 0.04}
    assert (ghz.count, ghz.elapsed) == (3, 2.0)
    assert read_ghz(json.dumps(REPORT | {"latencyDistribution": None})).percentiles == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps(REPORT | {"total": None})])
def test_what_is_no_report_of_ghz_is_an_error(text: str) -> None:
    """Half a report is none: it raises ValueError, and nothing is guessed."""
    with pytest.raises(ValueError, match="no report of ghz's"):
        read_ghz(text)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no connection >&2; exit 3", "ended with 3: no connection"),
        ("exit 0", "ended with 0"),
        ('echo "$2" > "$1"; exit 4', "ended with 4"),
        ('echo "{}" > "$1"', "no report of ghz's"),
        ("exec sleep 30", "wasn't over"),
    ],
)
def test_a_ghz_that_fails_is_an_error(script: str, said: str, tmp_path: Path) -> None:
    """A ghz that fails, hangs or writes no report raises GhzFailed with what it said; an old report isn't read."""
    out = tmp_path / "out.json"
    out.write_text(json.dumps(REPORT), encoding="utf-8")
    with pytest.raises(GhzFailed, match=said):
        run_ghz(["sh", "-c", script, "ghz", str(out), json.dumps(REPORT)], out, 0.2 if "sleep" in script else 30.0)


def test_a_ghz_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The same for one that isn't there."""
    with pytest.raises(GhzFailed, match="can't be run"):
        run_ghz([str(tmp_path / "ghz")], tmp_path / "out.json", 30.0)


def test_no_secret_is_kept(tmp_path: Path) -> None:
    """A secret that a server tells its callers is neither in ghz's report as kept nor in what was read of it."""
    secret = next(iter(SECRETS.values()))
    out, source = tmp_path / "out.json", tmp_path / "source.json"
    source.write_text(json.dumps(REPORT | {"errorDistribution": {f"bad key {secret}": 1}}), encoding="utf-8")
    ghz = run_ghz(["cp", str(source), str(out)], out, 30.0)
    assert [*ghz.errors] == ["bad key <key-1>"]
    assert secret not in out.read_text(encoding="utf-8")
    assert masked(f"{secret}, {secret}") == "<key-1>, <key-1>"


# -- what is fine --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_a_good_run_is_fine(name: str) -> None:
    """What is as it should be has no fault."""
    assert good(name).faults == []
    assert good(name).fine


BAD: dict[str, tuple[str, Callable[[Outcome], Outcome], str]] = {
    "a window exceeded": (
        "smoke",
        lambda run: replace(run, report=judged(run.accepted, most=11)),
        "its limit is 10",
    ),
    "a call twice": ("smoke", lambda run: replace(run, report=judged(run.accepted, seen_twice=1)), "1 calls twice"),
    "a call sent again": ("smoke", lambda run: replace(run, report=judged(run.accepted, resent=1)), "more than once"),
    "an unknown key": (
        "smoke",
        lambda run: replace(run, report=judged(run.accepted - 1, unknown_arrivals=1, unknown_keys=1)),
        "unknown key",
    ),
    "a call that never arrived": ("smoke", lambda run: replace(run, report=judged(run.accepted - 1)), "arrived"),
    "a call of nobody's": ("smoke", lambda run: replace(run, report=judged(run.accepted + 1)), "arrived"),
    "a call rejected upstream": (
        "smoke",
        lambda run: replace(run, report=Report((KeyReport("key-1", run.accepted - 1, 1, ()),))),
        "rejected 1 calls",
    ),
    "a stream cut": ("smoke", lambda run: ended(run, OK=19, Unavailable=1), "1 of ghz's streams ended as Unavailable"),
    "a stream refused": ("smoke", lambda run: ended(run, OK=19, ResourceExhausted=1), "ended as ResourceExhausted"),
    "a stream missing": ("smoke", lambda run: ended(run, OK=19), "should have opened 20"),
    "fewer streams than asked for": (
        "smoke",
        lambda run: replace(ended(run, OK=19), ghz=replace(run.ghz, count=19, statuses={"OK": 19})),
        "should have opened 20",
    ),
    "nothing of our own": ("smoke", lambda run: having(run, first=[]), "None of our own streams had a result"),
    "a result missing": ("smoke", lambda run: having(run, wrong=["Something was wrong."]), "Something was wrong"),
    "a refusal of our own": ("smoke", lambda run: having(run, refusals=[1.0]), "1 of our own streams were refused"),
    "a warning": ("smoke", lambda run: replace(run, said="ERROR it broke"), "it broke"),
    "a ramp without refusals": ("ramp", lambda run: ended(run, OK=400), "None of ghz's streams ended as Resource"),
    "a ramp that is only refused": ("ramp", lambda run: ended(run, ResourceExhausted=400), "ended as OK"),
    "a ramp that cuts": ("ramp", lambda run: ended(run, OK=1, ResourceExhausted=1, Internal=398), "ended as Internal"),
    "no refusal of our own": ("ramp", lambda run: having(run, refusals=[]), "None of our own streams was refused"),
    "a refusal without RetryInfo": ("ramp", lambda run: having(run, refusals=[1.0, None]), "1 refusals had no Retry"),
    "a refusal that says at once": ("ramp", lambda run: having(run, refusals=[0.0]), "1 refusals had no Retry"),
    "refused for ever": ("ramp", lambda run: having(run, again=False), "didn't accept a stream again"),
    "memory that grows": (
        "soak",
        lambda run: replace(run, samples=(*run.samples, Sample(31.0, 12.1, 140 * MB, 700))),
        "the server grew by",
    ),
}


@pytest.mark.parametrize(("name", "change", "words"), BAD.values(), ids=[*BAD])
def test_what_is_wrong_is_not_fine(name: str, change: Callable[[Outcome], Outcome], words: str) -> None:
    """Each single thing that is wrong is a fault, and the table and one sentence say so."""
    outcome = change(good(name))
    assert not outcome.fine
    assert len(outcome.faults) == 1
    said = io.StringIO()
    show([outcome], Console(file=said, width=200))
    assert "NOT fine" in said.getvalue()
    assert words in said.getvalue()


def test_memory_is_compared_with_the_warm_up() -> None:
    """What the server took before the warm-up was over is no growth."""
    run = good("soak")
    early = replace(run.samples[0], rss=1)
    assert replace(run, samples=(early, *run.samples[1:])).rss_growth == 0


# -- figures and files ---------------------------------------------------------------------------


def test_percentiles() -> None:
    """Of 0 to 99 the p-th percentile is p; of one value each is it; of none there are none."""
    assert all(part == value for part, value in percentiles(range(100)).items())
    assert {*percentiles([7.0]).values()} == {7.0}
    assert percentiles([]) == {}


def test_rates_are_means_between_samples() -> None:
    """0.1 s of CPU and 5 arrivals in 0.25 s are 40 % of a core and 20 a second."""
    rate = rates(good("smoke").samples)[0]
    assert (round(rate.cpu, 6), rate.arrivals) == (0.4, 20.0)


def test_everything_is_kept(tmp_path: Path) -> None:
    """The JSON has profile, ghz, our streams, samples, judge and verdict, and no secret."""
    outcome = good("ramp")
    write_json(outcome, tmp_path)
    text = (tmp_path / "ramp.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    assert kept["fine"] is True
    assert kept["faults"] == []
    assert kept["ghz"]["statuses"]["ResourceExhausted"] == 7
    assert kept["own"]["first_percentiles"]["50"] == 0.2
    assert len(kept["samples"]) == len(outcome.samples)
    assert kept["judge"]["ok"] is True
    assert not [secret for secret in SECRETS.values() if secret in text]


@pytest.mark.slow
def test_the_page() -> None:
    """The page has the table, the notes and the charts of each profile, and no secret."""
    page = to_html([good("ramp"), good("soak")])
    assert "ramp: server memory" in page
    assert "soak: server CPU" in page
    assert "After the warm-up RSS grew by 0.0 MB" in page
    assert "1 of our own 3 streams were refused, each told to come back after 1.5 to 1.5 s." in page
    assert not [secret for secret in SECRETS.values() if secret in page]


def test_a_long_run_is_charted_by_a_few_hundred_points() -> None:
    """An hour's samples are thinned; the last is kept, and the mean over all of it stays what it was."""
    samples = tuple(Sample(at / 4, at / 10, 70 * MB, at * 5) for at in range(4 * 3600))
    calls, *_ = charts(replace(good("soak"), samples=samples))
    points = calls.series[0].points
    assert len(points) <= SAMPLES + 1
    assert points[-1][0] == samples[-1].at / 60
    assert all(round(arrivals, 6) == 20.0 for _, arrivals in points)
