"""What is served is whole: a change counts when it has settled and can be used, and nothing is left of a look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import psutil
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apiflux_grpc.server import certificates, tls_files
from apiflux_grpc.server.certificates import Certificates
from apiflux_grpc.server.tls_files import BadFile, Pair, TlsFiles
from tests.server.authority import Served, chain, replace


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def test_a_change_counts_at_the_second_look_and_once(tmp_path: Path, ca: trustme.CA) -> None:
    """And a look at what is as it was reads no file."""
    served = Served(tmp_path, ca)
    found = Certificates(served.files)
    assert [found.look(), found.look()] == [None, None]
    cert = ca.issue_cert("localhost")
    served.give(cert)
    assert found.look() is None
    assert found.look() == found.pair == Pair(chain(cert), cert.private_key_pem.bytes())
    assert found.look() is None
    for path in (served.files.cert_file, served.files.key_file):
        path.unlink()
    assert [found.look(), found.look(), found.pair.chain] == [None, None, chain(cert)]


def test_files_that_change_while_they_are_read_are_read_again(
    tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was read may be half of each: it isn't used, and nothing is said of it."""
    served = Served(tmp_path, ca)
    found = Certificates(served.files)
    second, third = ca.issue_cert("localhost"), ca.issue_cert("localhost")
    really = tls_files.read

    def read(files: TlsFiles) -> Pair:
        replace(files.cert_file, chain(third))  # and the key later
        monkeypatch.setattr(certificates, "read", really)
        return really(files)

    monkeypatch.setattr(certificates, "read", read)
    served.give(second)
    assert [found.look(), found.look()] == [None, None]
    replace(served.files.key_file, third.private_key_pem.bytes())
    assert found.look() is None
    assert found.look() == Pair(chain(third), third.private_key_pem.bytes())
    assert [one.levelname for one in caplog.records if one.levelname != "INFO"] == []


def test_a_file_that_may_be_read_again_is(tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of its rights is one, though its contents are those of before."""
    served = Served(tmp_path, ca)
    found = Certificates(served.files)

    def unreadable(files: TlsFiles) -> Pair:
        raise BadFile("key_file", files.key_file, "can't be read: Permission denied")

    cert = ca.issue_cert("localhost")
    with monkeypatch.context() as patched:  # root may read everything
        patched.setattr(certificates, "read", unreadable)
        served.give(cert)
        assert [found.look(), found.look()] == [None, None]
    assert [found.look(), found.look()] == [None, None]
    served.files.key_file.chmod(0o400)
    assert found.look() is None
    assert found.look() == Pair(chain(cert), cert.private_key_pem.bytes())


class Deaf:
    """A server on a machine without IPv4."""

    def __init__(self, pool: object) -> None:
        pass

    def add_insecure_port(self, address: str) -> int:
        raise RuntimeError(address)


def test_a_key_of_a_kind_that_grpc_does_not_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL would take it; grpc would say so for each connection, and go on with the one before. Where that can't be
    found out, files aren't blamed for it."""
    key = ec.generate_private_key(ec.SECP256K1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(1))
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    files.cert_file.write_bytes(dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    no_password = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    files.key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, no_password))
    with pytest.raises(BadFile, match=r"server\.tls\.cert_file .* of a kind that gRPC doesn't take"):
        Certificates(files)
    monkeypatch.setattr(grpc, "server", Deaf)
    Certificates(files)


def test_looks_leave_nothing_open(tmp_path: Path, ca: trustme.CA) -> None:
    """A server that follows its files for years has as many descriptors as at first."""
    served = Served(tmp_path, ca)
    found = Certificates(served.files)
    before = psutil.Process().num_fds()
    looks = 20
    for _ in range(looks):
        served.give(ca.issue_cert("localhost"))
        found.look()
        assert found.look() is not None
    # Threads of gRPC that earlier tests have left behind open and close some of their own meanwhile.
    assert psutil.Process().num_fds() - before < looks // 2
