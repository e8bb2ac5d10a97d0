"""Which arrival gets a fault depends on its script, its key, its seed and its number alone."""

from collections import Counter

from apiflux_grpc.judge.chance import Faults, scripted
from apiflux_grpc.judge.faults import (
    Chance,
    Fault,
    parse_chances,
    parse_rejections,
    parse_script,
)
from tests.judge.wires import SECOND


def test_a_script_has_a_fault_for_each_arrival() -> None:
    """The nth arrival of a call gets the nth fault, and the last fault is for all that come after."""
    assert [scripted("500, hang,ok", nth).kind for nth in (1, 2, 3, 4)] == ["500", "hang", "ok", "ok"]
    assert parse_script("503;retry-after=1") == (Fault("503", retry_after=1),)


def test_chance_keeps_its_probabilities() -> None:
    """Each fault gets its own share of the arrivals."""
    faults = Faults(parse_chances(["500=0.1", "hang=0.02"]))
    drawn = Counter(fault and fault.kind for fault in (faults.drawn(f"call-{at}", 1) for at in range(20_000)))
    assert 1_900 < drawn["500"] < 2_100
    assert 340 < drawn["hang"] < 460
    assert drawn.total() == 20_000
    assert drawn[None] == 20_000 - drawn["500"] - drawn["hang"]


def test_chance_depends_on_seed_call_and_arrival_alone() -> None:
    """The same seed has the same fault for an arrival whatever came before; another seed or arrival another."""
    names = [(f"call-{at}", nth) for at in range(100) for nth in (1, 2)]

    def draw(seed: int, names: list[tuple[str, int]]) -> dict[tuple[str, int], bool]:
        faults = Faults([Chance(Fault("500"), 0.5)], seed=seed)
        return {name: faults.drawn(*name) is not None for name in names}

    assert draw(1, names) == draw(1, names[::-1])
    assert draw(1, names) != draw(2, names)
    firsts, seconds = ([hit for (_, nth), hit in draw(1, names).items() if nth == which] for which in (1, 2))
    assert firsts != seconds
    assert len({*firsts}) == 2
    assert draw(-1, names)  # any integer is a seed


def test_a_certain_fault_is_certain() -> None:
    """With probability 1 every arrival has the fault; with none, no arrival has one."""
    always, never = Faults([Chance(Fault("500"), 1.0)]), Faults()
    assert {always.drawn(str(at), 1) for at in range(1000)} == {Fault("500")}
    assert {never.drawn(str(at), 1) for at in range(10)} == {None}


def test_a_span_is_half_open() -> None:
    """A key is rejected from the first instant of a span, and no longer at its end; other keys aren't."""
    faults = Faults(rejections=parse_rejections(["a=2s..5s", "a=2"], ["a"]))
    spans = [faults.rejection("a", 3, at) for at in (2 * SECOND - 1, 2 * SECOND, 5 * SECOND - 1, 5 * SECOND)]
    assert spans == [None, Fault("401"), Fault("401"), None]
    assert [faults.rejection("a", nth, 0) for nth in (1, 2, 3)] == [Fault("401"), Fault("401"), None]
    assert faults.rejection("b", 1, 3 * SECOND) is None


def test_a_rejected_key_may_get_any_fault() -> None:
    """What follows a semicolon is what the key gets instead of a 401, in its span or for its first calls."""
    faults = Faults(rejections=parse_rejections(["a=0..6s;429;retry-after=2", "b;c=1;hang"], ["a", "b", "b;c"]))
    assert faults.rejection("a", 9, SECOND) == Fault("429", retry_after=2)
    assert faults.rejection("b;c", 1, SECOND) == Fault("hang")
    assert faults.rejection("b", 1, SECOND) is None
