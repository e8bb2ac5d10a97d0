"""Beyond this machine nothing is in plaintext unless asked for; files of TLS are looked at before they are used."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from apiflux_grpc.server.tls_files import TlsFiles
from apiflux_grpc.settings import SettingsError, load
from tests.settings.writing import CANARY, GOOD, env_faults, faults, loaded, told

ISSUED = ', client_ca_file = "ca.pem"'


def with_tls(more: str = "", bind: str = "127.0.0.1:1") -> str:
    """GOOD over TLS; `more` of its table."""
    return f'[server]\nbind = "{bind}"\ntls = {{ cert_file = "cert.pem", key_file = "key.pem"{more} }}\n{GOOD}'


def write_pair(folder: Path, mode: int = 0o600) -> trustme.CA:
    """cert.pem and key.pem, of the authority that is returned and is in ca.pem."""
    ca = trustme.CA()
    cert = ca.issue_cert("localhost")
    cert.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    cert.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(mode)
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return ca


@pytest.mark.parametrize(
    ("host", "is_seen"),
    [
        *[(host, True) for host in ("0.0.0.0", "[::]", "10.0.0.1", "a.example")],
        *[(host, False) for host in ("127.9.9.9", "localhost", "[::1]")],
    ],
)
def test_in_plaintext_a_server_is_on_loopback(tmp_path: Path, host: str, is_seen: bool) -> None:
    """Another address is a fault that says both ways out, by flag as in the file; if that is allowed by name, in any
    of three places, it is a warning."""
    bind, file = f"{host}:1", f'[server]\nbind = "{host}:1"\n'
    if not is_seen:
        assert load(None, environ={}, bind=bind).warnings == loaded(tmp_path, file + GOOD).warnings == ()
        return
    with pytest.raises(SettingsError) as caught:
        load(None, environ={}, bind=bind)
    (by_flag,) = told(caught.value)
    (by_file,) = faults(tmp_path, file + GOOD)
    assert (by_flag.split(": ")[0], by_file.split(": ")[0]) == ("--bind", "server.bind")
    for text in (by_flag, by_file):
        assert host.strip("[]") in text
        assert all(way in text for way in ("`server.tls`", "`server.allow_plaintext = true`", "--allow-plaintext"))
    allowed = [
        load(None, environ={}, bind=bind, allow_plaintext=True),
        load(None, environ={"APIFLUX_ALLOW_PLAINTEXT": "true"}, bind=bind),
        loaded(tmp_path, f"{file}allow_plaintext = true\n{GOOD}"),
    ]
    for settings in allowed:
        (warning,) = settings.warnings
        assert "without TLS" in warning


def test_what_the_environment_says_of_plaintext_wins(tmp_path: Path) -> None:
    """Over the file, both ways; and it is true or false."""
    file = '[server]\nbind = "0.0.0.0:1"\nallow_plaintext = true\n' + GOOD
    (fault,) = faults(tmp_path, file, APIFLUX_ALLOW_PLAINTEXT="no")
    assert fault.startswith("server.bind: ")
    (fault,) = env_faults(APIFLUX_ALLOW_PLAINTEXT="perhaps")
    assert fault.startswith("APIFLUX_ALLOW_PLAINTEXT: must be true or false")


def test_with_tls_a_server_may_be_anywhere(tmp_path: Path) -> None:
    """Its files are found beside the configuration, and nothing is warned of."""
    write_pair(tmp_path)
    settings = loaded(tmp_path, with_tls(ISSUED, "0.0.0.0:1"))
    assert settings.tls == TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    assert settings.warnings == ()
    assert loaded(tmp_path, GOOD).tls is None


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("cert.pem", None, "server.tls.cert_file: ({}) can't be read: No such file or directory"),
        (
            "cert.pem",
            f"-----BEGIN CERTIFICATE-----\n{CANARY}\n-----END CERTIFICATE-----",
            "server.tls.cert_file: ({}) has",
        ),
        ("cert.pem", "ca.pem", "server.tls.key_file: ({}/key.pem) isn't the key of the certificate"),
        ("key.pem", "cert.pem", "server.tls.key_file: ({}) has no private key in PEM form"),
        (
            "key.pem",
            f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
            "server.tls.key_file: ({}) has",
        ),
        (
            "key.pem",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\n-----END ENCRYPTED PRIVATE KEY-----",
            "({}) has a private key that is",
        ),
        ("ca.pem", "key.pem", "server.tls.client_ca_file: ({}) has no certificate in PEM form"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, data: str | None, fault: str) -> None:
    """With what is wrong with it, and without what is in it."""
    write_pair(tmp_path)
    path = tmp_path / name
    if data is None:
        path.unlink()
    else:
        path.write_bytes((tmp_path / data).read_bytes() if data.endswith(".pem") else data.encode())
    (found,) = faults(tmp_path, with_tls(ISSUED))
    assert fault.format(path if "{}/" not in fault else tmp_path) in found


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    """Both are there, or it is a fault of the one that isn't."""
    assert faults(tmp_path, "[server]\ntls = {}\n" + GOOD) == [
        "server.tls.cert_file: is missing",
        "server.tls.key_file: is missing",
    ]
    assert faults(tmp_path, '[server]\ntls = { key_file = "key.pem" }\n' + GOOD) == ["server.tls.cert_file: is missing"]


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o440, False), (0o644, True), (0o604, True)])
def test_a_key_that_everybody_can_read_is_warned_of(tmp_path: Path, mode: int, is_warned: bool) -> None:
    """A group may: so Kubernetes hands it to a user who isn't root."""
    write_pair(tmp_path, mode)
    warnings = loaded(tmp_path, with_tls()).warnings
    assert ["server.tls.key_file: everybody on this machine can read" in one for one in warnings] == [True] * is_warned
