"""What operators read of a pool: one line for what begins, with its reason."""

from __future__ import annotations

import logging

import pytest

from apiflux_grpc.adapters.observe_logs import LogObserver, configure
from apiflux_grpc.core.model import Key, Limit, Pool
from apiflux_grpc.core.units import SECOND
from tests.core.desk import Desk, batch_of


def test_a_block_is_one_line_however_long_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    """Further refusals are for whoever debugs; after a success the next one is news again."""
    caplog.set_level(logging.DEBUG, "apiflux.engine")
    desk = Desk(Pool("pool", (Key("key-0", "secret", (Limit(1, SECOND),)),)))
    desk.submit(batch_of(2))
    for answers in (3 * (429,) + (200,), (429,)):
        for status in answers:
            desk.now += 60 * SECOND  # longer than any guess
            (permit,) = desk.assign()
            desk.answer(permit, status)
            for event in desk.dispatcher.take_events():
                LogObserver().tell("pool", event)
    lines = [record for record in caplog.records if record.getMessage() == "key blocked"]
    assert [line.levelno for line in lines] == [logging.WARNING, logging.DEBUG, logging.DEBUG, logging.WARNING]
    fields = {"pool": "pool", "key": "key-0", "seconds": 1.0, "status": 429, "why": "429 with no usable wait"}
    assert fields.items() <= vars(lines[0]).items()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a b", "a b"),
        ("a=b", "a=b"),
        ("a caller=root code=OK", "'a caller=root code=OK'"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[2Ja", r"'\x1b[2Ja'"),
        ("\u202ea", r"'\u202ea'"),
    ],
)
def test_a_value_on_the_console_is_one_value(capsys: pytest.CaptureFixture[str], value: str, shown: str) -> None:
    """Whoever chooses the name of a pool, or an id, can't write another field, nor a line, nor to the terminal."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    try:
        configure("info", "console")
        logging.getLogger("apiflux.rpc").info("rpc", extra={"pool": value, "code": "OK"})
    finally:
        root.level, root.handlers[:] = before
    assert capsys.readouterr().err.endswith(f" pool={shown} code=OK\n")
