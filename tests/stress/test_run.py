"""A run asks the judge for the verdict, and leaves its page even if it was cut short."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import trustme

from apiflux_grpc.client import TlsOptions
from apiflux_grpc.core.units import SECOND
from apiflux_grpc.judge.limits import Limit as JudgeLimit
from apiflux_grpc.stress import run as stress
from apiflux_grpc.stress.figures import Measured
from apiflux_grpc.stress.options import Profile
from tests.server.authority import Served, options
from tests.server.serving import serving
from tests.stress.results import took

# More than the run has calls: a call that a busy machine delays must not be a violation.
LIMITS = (JudgeLimit(200, SECOND // 2), JudgeLimit(20_000, SECOND // 2, "cost"))
SMALL = Profile(4, 30, LIMITS, (1_000_000, 2_000_000))


def test_a_run_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A judge, a server, four requests: the page has all charts and the judge's verdict, and its path is told."""
    file = tmp_path / "stress.html"
    assert asyncio.run(stress.run_stress(SMALL, None, 4, None, file)) == 0
    page = file.read_text(encoding="utf-8")
    out, err = capsys.readouterr()
    assert "the judge: no violation; 120 calls" in page
    assert "the judge: no violation; 120 calls" in out
    assert f"report: {file}" in err
    assert re.findall("<figcaption>(.*)</figcaption>", page) == [
        "Calls a second, over the last 500ms",
        "Use of the longest window of each key",
        "Time to first result",
        "Latency of the calls",
        "Fairness: how far the batches are",
        "When the requests ended",
    ]
    assert "limits allow 1,200.0" in page
    for text in ("http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "src=", "href="):
        assert text not in page


async def test_a_cancelled_run_leaves_a_page_of_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the middle: the table and the page are of the results until then."""
    under_way = asyncio.Event()

    async def drive(measured: Measured, *_: object, **__: object) -> None:
        took(measured, 0, "a", 0, SECOND, 1.0)
        under_way.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(stress, "_drive", drive)
    file = tmp_path / "stress.html"
    run = asyncio.create_task(stress.run_stress(SMALL, "127.0.0.1:1", 4, None, file))
    await under_way.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert "119 of 120 calls have no result" in file.read_text(encoding="utf-8")
    assert "1 of 120" in capsys.readouterr().out


async def test_a_server_is_put_under_load_over_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a certificate of its own if the server asks for one; a file that can't be used is named."""
    authority = trustme.CA()
    served = Served(tmp_path, authority, mutual=True)
    tls = options(tmp_path, authority, authority.issue_cert("client"))
    async with serving(tls=served.files) as server:
        assert await stress.run_stress(SMALL, server.address, 4, None, tls=tls, token="t") == 0
        assert await stress.run_stress(SMALL, server.address, 4, None) == 4
    (tmp_path / "client-key.pem").write_text("words")
    assert await stress.run_stress(SMALL, "127.0.0.1:1", 4, None, tls=tls) == 2
    assert "client-key.pem has no private key in PEM form" in capsys.readouterr().err
    assert await stress.run_stress(SMALL, "127.0.0.1:1", 4, None, tls=TlsOptions(tmp_path / "none")) == 2
    assert f"can't read {tmp_path}/none: No such file" in capsys.readouterr().err
