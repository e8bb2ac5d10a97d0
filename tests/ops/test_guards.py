"""No page of another site can use the port through somebody's browser, be it by a name that was pointed here."""

from __future__ import annotations

import pytest

from apiflux_grpc.ops.guards import check_host, check_site, plain
from apiflux_grpc.ops.problems import HttpRefused
from tests.ops.ports import ops_served, problem_in

NAMES = {"ops.example"}


def host_status(*hosts: str, local: str = "10.1.2.3") -> int:
    """0: it may pass."""
    try:
        check_host(hosts, NAMES, local)
    except HttpRefused as refusal:
        return refusal.problem.status
    return 0


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:50052", "[::1]:7", "[::1]"),
        *("ops.example", "Ops.Example:443", "10.1.2.3", "10.1.2.3:50052", "[::ffff:10.1.2.3]:1"),
    ],
)
def test_a_name_of_ours_passes(host: str) -> None:
    """The loopback's names, those that are configured, and the address that was connected to, with any port."""
    assert host_status(host) == 0


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "ops.example.evil", "10.1.2.4"),
        *("127.0.0.2", "[::2]", "0.0.0.0", "0x7f.1"),
    ],
)
def test_another_name_is_refused(host: str) -> None:
    """What a page's own name is when it was pointed here (DNS rebinding)."""
    assert host_status(host) == 421


@pytest.mark.parametrize(
    "hosts", [(), ("",), ("localhost", "localhost"), ("a@localhost",), ("localhost/",), ("localhost:x",), ("::1",)]
)
def test_what_is_no_host_is_refused(hosts: tuple[str, ...]) -> None:
    """None, two, or what a reader of another kind might understand differently."""
    assert host_status(*hosts) == 400


def test_an_address_is_compared_as_one() -> None:
    """However it is written; an IPv6 address with its zone, as sockets tell it."""
    assert [plain(one) for one in ("::FFFF:10.0.0.1", "0:0::1", "fe80::1%eth0")] == ["10.0.0.1", "::1", "fe80::1"]
    assert host_status("[fe80::1]", local="fe80::1%eth0") == 0


@pytest.mark.parametrize(
    ("origins", "sites", "passes"),
    [
        ((), (), True),
        (("http://localhost:1",), ("same-origin",), True),
        (("HTTP://LocalHost:1",), (), True),
        ((), ("none",), True),
        (("http://localhost:2",), (), False),
        (("https://localhost:1",), (), False),
        (("null",), (), False),
        (("",), (), False),
        (("http://localhost:1", "http://evil.example"), (), False),
        ((), ("cross-site",), False),
        ((), ("same-site",), False),
        ((), ("none", "cross-site"), False),
    ],
)
def test_a_request_comes_from_no_other_site(origins: tuple[str, ...], sites: tuple[str, ...], passes: bool) -> None:
    """Another port is another site; so is a file, whose origin is null."""
    if passes:
        check_site(origins, sites, "http://localhost:1")
        return
    with pytest.raises(HttpRefused) as caught:
        check_site(origins, sites, "http://localhost:1")
    assert caught.value.problem.status == 403


async def test_nothing_is_run_for_another_site() -> None:
    """A rebound name, a foreign page, a form, a preflight: none reaches the engine or gets a CORS header."""
    async with ops_served(names=["ops.example"]) as served:
        batch: object = {"calls": [{}]}
        for status, headers in (
            (421, {"Host": "evil.example"}),
            (403, {"Origin": "http://evil.example"}),
            (403, {"Sec-Fetch-Site": "cross-site"}),
            (415, {"Content-Type": "text/plain"}),
            (415, {"Content-Type": "application/x-www-form-urlencoded"}),
        ):
            answer = await served.post(batch, **headers)
            assert answer.status == status, headers
            await problem_in(answer)
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        assert (await served.get("/process", "OPTIONS", **preflight)).status == 403
        assert (await served.get("/health", Host="evil.example")).status == 421
        async with served.raw(b"GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n") as (reader, _):
            assert (await reader.readline()).split()[1] == b"400"
        assert served.server.engine.admission.batches == 0
        assert (await served.post(batch, Host="Ops.Example", Origin="http://Ops.Example")).status == 200
