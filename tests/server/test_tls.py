"""TLS, from its files to the handshake: who gets in, and what a connection is made with once the files change."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from apiflux_grpc.client import Client, TlsOptions, Unauthenticated, Unavailable
from apiflux_grpc.core.callers import Access, Caller
from apiflux_grpc.server import transport
from apiflux_grpc.server.certificates import Certificates
from apiflux_grpc.server.lifecycle import Server
from apiflux_grpc.server.tls_files import Pair, TlsFiles
from tests.server.authority import Served, chain, expired, options, replace
from tests.server.serving import serving, until


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks at its files when a test says so: on a busy machine it would in between, too."""
    monkeypatch.setattr(transport, "LOOK_EVERY", 3600.0)


async def looks(server: Server) -> None:
    """A change counts at the second look."""
    await server.transport.look()
    await server.transport.look()


async def gets_in(server: Server, tls: TlsOptions | None) -> bool:
    """Over a connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with Client(server.address, tls=tls, options=own) as client:
        try:
            await client.info()
        except Unavailable:
            return False
    return True


async def test_over_tls_a_client_knows_its_server(tmp_path: Path, ca: trustme.CA) -> None:
    """One that trusts its authority gets in; not in plaintext, nor by another authority, nor if it has expired."""
    served = Served(tmp_path, ca)
    async with serving(tls=served.files) as server:
        assert await gets_in(server, options(tmp_path, ca))
        assert not await gets_in(server, options(tmp_path, trustme.CA(), name="other"))
        assert not await gets_in(server, None)
        served.give(expired(ca))
        await looks(server)
        assert not await gets_in(server, options(tmp_path, ca))


async def test_a_server_knows_its_clients(tmp_path: Path, ca: trustme.CA) -> None:
    """With client_ca_file a client needs a certificate of that authority, which isn't over."""
    served = Served(tmp_path, ca, mutual=True)
    strange = trustme.CA().issue_cert("client")
    async with serving(tls=served.files) as server:
        own = [ca.issue_cert("client"), ca.create_child_ca().issue_cert("client"), None, strange, expired(ca)]
        assert [await gets_in(server, options(tmp_path, ca, one)) for one in own] == [True, True, False, False, False]


async def test_a_client_is_the_caller_that_its_certificate_names(tmp_path: Path, ca: trustme.CA) -> None:
    """By its whole subject, as RFC 2253 writes it; another one of the same authority is nobody."""
    served = Served(tmp_path, ca, mutual=True)
    mine, other = (ca.issue_cert("client", common_name=name) for name in ("team, a", "team-b"))
    subject = x509.load_pem_x509_certificate(mine.cert_chain_pems[0].bytes()).subject.rfc4514_string()
    assert "CN=team\\, a" in subject
    async with serving(tls=served.files, callers=[Caller("a", Access(), (), (subject,))]) as server:
        async with Client(server.address, tls=options(tmp_path, ca, mine)) as client:
            assert (await anext(client.repeat(1))).ok
        async with Client(server.address, tls=options(tmp_path, ca, other)) as client:
            with pytest.raises(Unauthenticated):
                await client.info()


async def test_files_change_under_load_and_no_call_fails(tmp_path: Path, ca: trustme.CA) -> None:
    """Streams go on, and each new connection gets a certificate that is whole."""
    served = Served(tmp_path, ca, mutual=True)
    tls = options(tmp_path, ca, ca.issue_cert("client"))
    async with serving(tls=served.files) as server, Client(server.address, tls=tls) as client:
        stream = client.repeat(2_000)
        first = await anext(stream)
        over = asyncio.Event()

        async def load() -> int:
            count = 0
            while not over.is_set():
                assert await gets_in(server, tls)
                count += 1
            return count

        loads = [asyncio.create_task(load()) for _ in range(3)]
        try:
            for _ in range(5):
                served.give(ca.issue_cert("localhost", "127.0.0.1"))
                await looks(server)
                assert await gets_in(server, tls)
        finally:
            over.set()
        assert all(await asyncio.gather(*loads))
        results = [first, *[one async for one in stream]]
    assert len(results) == 2_000
    assert all(one.ok for one in results)


@pytest.mark.parametrize("bad", ["no-such-file", "other-key", "words", "key-for-cert", "no-authority"])
async def test_a_bad_change_leaves_what_was_good(
    tmp_path: Path, ca: trustme.CA, bad: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said once which file is at fault and why, without what is in it; and a good one counts again."""
    served = Served(tmp_path, ca, mutual=True)
    files, cert = served.files, ca.issue_cert("localhost", "127.0.0.1")
    assert files.client_ca_file is not None
    path, data, text = {
        "no-such-file": (files.key_file, None, "server.tls.key_file .* can't be read: No such file"),
        "other-key": (files.key_file, cert.private_key_pem.bytes(), "key_file .* isn't the key of the certificate"),
        "words": (files.cert_file, b"words", "cert_file .* has no certificate in PEM form"),
        "key-for-cert": (files.cert_file, files.key_file.read_bytes(), "cert_file .* has no certificate"),
        "no-authority": (files.client_ca_file, b"", "client_ca_file .* has no certificate"),
    }[bad]
    tls = options(tmp_path, ca, ca.issue_cert("client"))
    async with serving(tls=files) as server:
        with caplog.at_level(logging.WARNING):
            if data is None:
                path.unlink()
            else:
                replace(path, data)
            for _ in range(3):
                await looks(server)
                assert await gets_in(server, tls)
        (line,) = [vars(record)["why"] for record in caplog.records if record.name == "apiflux.server"]
        assert re.search(text, line), line
        new = trustme.CA()
        served.give(new.issue_cert("localhost", "127.0.0.1"))
        served.trust(ca)
        await looks(server)
        assert not await gets_in(server, tls)
        assert await gets_in(server, options(tmp_path, new, ca.issue_cert("client"), "new"))
    out = "".join(capfd.readouterr())
    for secret in (cert.private_key_pem.bytes(), files.key_file.read_bytes()):
        body = secret.splitlines()[1].decode()
        assert body not in out + caplog.text
    assert "ssl_security_connector" not in out  # grpc never sees a pair that it doesn't take


async def test_a_certificate_and_its_key_may_change_one_after_the_other(
    tmp_path: Path, ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the two nothing is said, and connections get the old ones."""
    served = Served(tmp_path, ca)
    new = trustme.CA()
    cert = new.issue_cert("localhost", "127.0.0.1")
    old, now = options(tmp_path, ca), options(tmp_path, new, name="new")
    async with serving(tls=served.files) as server:
        with caplog.at_level(logging.WARNING):
            replace(served.files.cert_file, chain(cert))
            await server.transport.look()
            assert await gets_in(server, old)
            replace(served.files.key_file, cert.private_key_pem.bytes())
            await looks(server)
        assert await gets_in(server, now)
        assert not await gets_in(server, old)
    assert caplog.records == []


async def test_a_change_behind_a_link_is_seen(tmp_path: Path, ca: trustme.CA) -> None:
    """As Kubernetes does it: the files are links into a folder that a link leads to, and only that one changes."""
    new = trustme.CA()
    for name, authority in (("one", ca), ("two", new)):
        (tmp_path / name).mkdir()
        Served(tmp_path / name, authority)
    current = tmp_path / "current"
    current.symlink_to("one")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).symlink_to(f"current/{name}")
    async with serving(tls=TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")) as server:
        assert await gets_in(server, options(tmp_path, ca))
        beside = tmp_path / "beside"
        beside.symlink_to("two")
        beside.rename(current)
        await looks(server)
        assert await gets_in(server, options(tmp_path, new, name="new"))


async def test_a_certificate_and_its_key_may_be_in_one_file(tmp_path: Path, ca: trustme.CA) -> None:
    """As some tools write them; what is made of it shows neither."""
    cert = ca.issue_cert("localhost", "127.0.0.1")
    both = tmp_path / "both.pem"
    both.write_bytes(cert.private_key_and_cert_chain_pem.bytes())
    files = TlsFiles(both, both)
    async with serving(tls=files) as server:
        assert await gets_in(server, options(tmp_path, ca))
        shown = repr(server.transport.pair)
    assert shown.startswith("Pair(")
    assert "BEGIN" not in shown


async def test_a_server_looks_by_itself_whatever_happens(
    tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that fails is told of, and others follow."""
    monkeypatch.setattr(transport, "LOOK_EVERY", 0.001)
    really = Certificates.look

    def fails(self: Certificates) -> Pair | None:
        monkeypatch.setattr(Certificates, "look", really)
        raise OSError("the disk is gone")

    monkeypatch.setattr(Certificates, "look", fails)
    served = Served(tmp_path, ca)
    async with serving(tls=served.files) as server:
        before = server.transport.pair
        served.give(ca.issue_cert("localhost"))
        await until(lambda: server.transport.pair is not before)
    assert [one.message for one in caplog.records if one.levelno == logging.ERROR] == ["can't look at the TLS files"]
