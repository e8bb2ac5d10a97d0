"""What a job knows of its earlier runs: the table of keys, the output and its state."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.jobs.job import Refused
from apiflux_grpc.jobs.known import AGAIN, DONE, DOUBT, FAILED, HANDED, UNANSWERED, Known, digest_of, key_of
from apiflux_grpc.jobs.output import Output
from apiflux_grpc.jobs.state import State
from apiflux_grpc.v1 import apiflux_pb2 as pb
from tests.e2e.commands import no_larger_files
from tests.jobs.outputs import hand_over


def line(index: int, id: str = "", status: int = 200, **error: Any) -> bytes:
    row: dict[str, Any] = {"index": index}
    if id:
        row["id"] = id
    if error:
        row |= {"failure": error["reason"], "error": error}
    else:
        row["response"] = {"statusCode": status}
        if status >= 400:
            row["failure"] = f"HTTP_{status}"
    return json.dumps(row).encode() + b"\n"


def opened(path: Path, **options: Any) -> Output:
    output = Output(path, Known(), **options)
    try:
        for _ in output.load():
            pass
    except Refused:
        output.close()
        raise
    return output


def flags(output: Output, count: int) -> list[int]:
    return [output.known[index << 1] for index in range(count)]


@given(st.dictionaries(st.one_of(st.integers(0, 5_000), st.text(min_size=1)), st.integers(1, 255), max_size=300))
def test_the_table_is_a_table(wanted: dict[int | str, int]) -> None:
    """It gives what was put in, for indexes and ids, and 0 for all others."""
    known = Known()
    for name, value in wanted.items():
        known[key_of(name, 0) if isinstance(name, str) else key_of("", name)] = value
    for name, value in wanted.items():
        assert known[key_of(name, 0) if isinstance(name, str) else key_of("", name)] == value
    assert known[key_of("never used before", 0)] == 0
    assert known[key_of("", 5_001)] == 0


@pytest.mark.parametrize("id", ["", "a"])
def test_a_mark_adds_a_flag_and_tells_what_was_there(id: str) -> None:
    """Of an id as of an index, whether it was known before or not."""
    known, key = Known(), key_of(id, 7)
    assert [known.mark(key, flag) for flag in (1, 4, 4)] == [0, 1, 5]
    assert (known[key], known[key_of("b", 0)], known[key_of("", 8)]) == (5, 0, 0)


def test_the_table_grows() -> None:
    """A hundred thousand ids, each found again."""
    known = Known()
    for number in range(100_000):
        known[key_of(f"call-{number}", 0)] = number % 250 + 1
        known.put_digest(key_of(f"call-{number}", 0), number)
    assert all(known.digest(key_of(f"call-{number}", 0)) == number for number in range(100_000))
    assert all(known[key_of(f"call-{number}", 0)] == number % 250 + 1 for number in range(100_000))
    assert not any(known[key_of(f"other-{number}", 0)] for number in range(10_000))


def test_the_state_says_what_was_handed_over(tmp_path: Path) -> None:
    """A call noted and without a result; taken back it is as if it never was."""
    path = tmp_path / "out"
    with opened(path) as output:
        assert output.is_fresh
        hand_over(output, [(0 << 1, 7), (1 << 1, 8), (2 << 1, 9)])
        output.write(line(1))
        output.take_back([2 << 1])
    with opened(path) as output:
        assert flags(output, 4) == [HANDED, HANDED | DONE, 0, 0]
        assert [output.known.digest(index << 1) for index in range(4)] == [7, 8, 0, 0]
        assert (output.results, output.is_fresh) == (1, False)
        hand_over(output, [(2 << 1, 10)])
    with opened(path) as output:
        assert flags(output, 3) == [HANDED, HANDED | DONE, HANDED]
        assert output.known.digest(2 << 1) == 10


def test_what_an_earlier_run_handed_over_is_not_taken_back(tmp_path: Path) -> None:
    """That the server hasn't sent it this time doesn't say that it never ran."""
    path = tmp_path / "out"
    with opened(path) as output:
        hand_over(output, [(0 << 1, 7)])
    with opened(path) as output:
        hand_over(output, [(0 << 1, 7), (1 << 1, 8)])
        output.take_back([0 << 1, 1 << 1])
    with opened(path) as output:
        assert flags(output, 2) == [HANDED, 0]


def test_a_call_is_known_by_what_it_asks_for() -> None:
    """Not by its id, how long it may take, or whether it may be sent again; an absent method is GET."""
    query = [pb.QueryParameter(name="a", value="1"), pb.QueryParameter(name="b", value="2")]
    headers = [pb.Header(name="X-A", value="1")]
    call = pb.Call(id="a", path="/1", query=query, headers=headers, body=b"x")
    same = pb.Call(method="GET", path="/1", query=query, headers=headers, body=b"x", cost=3)
    same.timeout.FromSeconds(4)
    same.idempotent = False
    assert digest_of(call) == digest_of(same)
    others = [pb.Call.FromString(call.SerializeToString()) for _ in range(6)]
    others[0].method = "DELETE"
    others[1].path = "/2"
    others[2].query[0].value = "2"
    others[3].headers[0].value = "2"
    others[4].body = b"y"
    others[5].query.reverse()
    assert len({digest_of(other) for other in [call, *others]}) == 7


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_note_that_was_cut_is_none(tmp_path: Path, cut: int) -> None:
    """The call was not handed over yet; the notes after it are whole again."""
    path = tmp_path / "out"
    with opened(path) as output:
        hand_over(output, [(0, 1), (2, 1)])
    state = tmp_path / "out.state"
    os.truncate(state, state.stat().st_size - cut)
    with opened(path) as output:
        assert flags(output, 2) == [HANDED, 0]
        hand_over(output, [(4, 1)])
    with opened(path) as output:
        assert flags(output, 3) == [HANDED, 0, HANDED]


def test_notes_that_do_not_fit_leave_nothing(tmp_path: Path) -> None:
    """On a full disk those before them stay, and no call is in doubt that was not handed over."""
    path = tmp_path / "out"
    with opened(path) as output:
        hand_over(output, [(0, 1)])
        size = (tmp_path / "out.state").stat().st_size
        with no_larger_files(size + 40), pytest.raises(OSError, match="File too large"):
            hand_over(output, [(2, 1), (4, 1), (6, 1)])
        assert (tmp_path / "out.state").stat().st_size == size
        hand_over(output, [(8, 1)])
    with opened(path) as output:
        assert flags(output, 5) == [HANDED, 0, 0, 0, HANDED]


async def test_notes_that_are_being_written_are_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hands calls over may be cancelled in the midst of it; what is noted next comes after it all the same."""
    began, goes_on = threading.Event(), threading.Event()
    hand_over = State.hand_over

    def slowly(state: State, calls: Iterable[tuple[int, int]]) -> None:
        began.set()
        assert goes_on.wait(50)
        hand_over(state, calls)

    monkeypatch.setattr(State, "hand_over", slowly)
    with opened(tmp_path / "out") as output:
        noting = asyncio.create_task(output.note([(1 << 1, 7), (2 << 1, 7)]))
        await asyncio.to_thread(began.wait, 50)
        noting.cancel()
        for _ in range(10):  # turns of the loop
            await asyncio.sleep(0)
        assert not noting.done()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await noting
        output.take_back([1 << 1, 2 << 1])  # they were not sent
    with opened(tmp_path / "out") as output:
        assert not any(found & HANDED for found in flags(output, 3))


def test_a_last_line_that_was_cut_is_healed(tmp_path: Path) -> None:
    """Wherever it was cut; one that only lacks its end counts."""
    path, whole = tmp_path / "out", line(1, "b")
    for cut in range(1, len(whole) + 1):
        path.write_bytes(line(0, "a") + whole[: len(whole) - cut])
        with opened(path) as output:
            output.write(line(2))
        kept = whole if cut == 1 else b""
        assert path.read_bytes() == line(0, "a") + kept + line(2)


def test_what_is_no_result_is_left_alone(tmp_path: Path) -> None:
    """A line in the middle, an index that can't be, a state of something else."""
    path = tmp_path / "out"
    for bad in (
        b"\n",
        b"[]\n",
        b'{"index":0}\n',
        line(-1),
        line(1 << 40),
        b'{"index":"0","response":{"statusCode":1}}\n',
    ):
        path.write_bytes(line(0) + bad + line(1))
        with pytest.raises(Refused, match=":2: is not a result"):
            opened(path)
        assert path.read_bytes() == line(0) + bad + line(1)
    (tmp_path / "out.state").write_bytes(b"something else, and long enough to be one")
    with pytest.raises(Refused, match="is not the state"):
        opened(path)
    (tmp_path / "out.state").write_bytes(b"APIFLUX\x02" + bytes(16))
    with pytest.raises(Refused, match="was written by an older version; name another --output, or start over"):
        opened(path)
    with opened(path, overwrite=True) as output:
        assert output.is_fresh
    assert path.read_bytes() == b""


def test_what_a_result_says_is_known(tmp_path: Path) -> None:
    """Whether it is a failure, whether its call may have run, and whether that is for want of an answer."""
    path = tmp_path / "out"
    lines = [
        line(0),
        line(1, status=500),
        line(2, reason="NOT_SENT", mayHaveRun=False),
        *(line(3 + at, reason=reason, mayHaveRun=True) for at, reason in enumerate(("UNKNOWN", "TIMEOUT", "BODY_CUT"))),
        line(6, reason="INTERNAL", mayHaveRun=True, idempotent=True),
    ]
    path.write_bytes(b"".join(lines))
    with opened(path) as output:
        assert (output.results, output.failed) == (7, 6)
        assert flags(output, 7) == [
            DONE,
            *[DONE | FAILED] * 2,
            *[DONE | FAILED | DOUBT | UNANSWERED] * 3,
            DONE | FAILED | DOUBT,
        ]


def test_results_are_taken_out(tmp_path: Path) -> None:
    """Those that are asked for, and no others. A call is as good as never handed over, unless it may have run."""
    path = tmp_path / "out"
    lines = [
        line(0),
        line(1, status=500),
        line(2, reason="UNKNOWN", mayHaveRun=True),
        line(3, reason="TIMEOUT", mayHaveRun=True),
        line(4, "four", status=429),
    ]
    path.write_bytes(b"".join(lines))
    path.chmod(0o640)
    keys = [1 << 1, 3 << 1, key_of("four", 0)]
    with opened(path) as output:
        hand_over(output, [(3 << 1, 1)])  # an earlier run may have noted it
        for key in keys:
            output.known[key] |= AGAIN
        list(output.take_out(lambda flags: bool(flags & AGAIN)))
        assert output.taken_out == 3
        hand_over(output, [(keys[0], 1), (keys[1], 1)])
        assert (output.results, output.failed, output.taken_out) == (3, 2, 1)
        assert [output.known[key] & (DONE | HANDED) for key in keys] == [0, HANDED, 0]
        output.write(line(1))
    assert path.read_bytes() == lines[0] + lines[2] + line(1) + lines[4]
    assert path.stat().st_mode & 0o777 == 0o640
    with opened(path) as output:  # had it been killed now
        assert [found & (DONE | HANDED) for found in flags(output, 4)] == [DONE, DONE | HANDED, DONE, HANDED]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "out.state"]


def test_a_result_that_waits_for_its_line_is_not_lost(tmp_path: Path) -> None:
    """It is put back unless its call is handed over; and if the run is killed meanwhile, the call is in doubt."""
    path = tmp_path / "out"
    lines = [line(index, reason="TIMEOUT", mayHaveRun=True, message="x" * index) for index in range(4)]
    path.write_bytes(b"".join(lines))
    with opened(path) as output:
        list(output.take_out(lambda flags: bool(flags & FAILED), lambda flags: bool(flags & DOUBT)))
        assert path.read_bytes() == b""
        killed = tmp_path / "killed"
        shutil.copy(tmp_path / "out.state", tmp_path / "killed.state")
        with opened(killed) as other:
            assert flags(other, 4) == [HANDED] * 4
        assert output.failed == 4
        assert [found & (DONE | HANDED) for found in flags(output, 4)] == [HANDED] * 4
        assert all(output.is_taken_out(index << 1) for index in range(4))
        hand_over(output, [(1 << 1, 7), (2 << 1, 7)])
        assert not output.is_taken_out(1 << 1)
        output.take_back([2 << 1])  # it wasn't sent after all
        assert (output.results, output.failed, output.taken_out) == (3, 3, 3)
    assert path.read_bytes() == lines[0] + lines[2] + lines[3]


def test_a_retry_that_is_killed_loses_no_result(tmp_path: Path) -> None:
    """The old output stays until the new one takes its place."""
    path = tmp_path / "out"
    path.write_bytes(b"".join(line(index, status=500) for index in range(2_000)))
    before = path.read_bytes()
    with opened(path) as output:
        work = output.take_out(lambda flags: bool(flags & FAILED))
        next(work)
        next(work)
        work.close()  # type: ignore[attr-defined]
    assert path.read_bytes() == before
    with opened(path) as output:
        assert (output.results, output.failed) == (2_000, 2_000)


def test_only_one_has_it_at_a_time(tmp_path: Path) -> None:
    """The lock goes with the one who has it."""
    path = tmp_path / "out"
    with opened(path):
        with pytest.raises(Refused, match="another run"):
            opened(path)
        link = tmp_path / "link"
        link.symlink_to(path)
        with pytest.raises(Refused, match="another run"):
            opened(link)
    opened(path).close()
