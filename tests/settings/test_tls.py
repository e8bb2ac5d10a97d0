"""The certificate files of a pool are looked at before anything relies on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.settings.writing import GOOD, faults


@pytest.mark.parametrize(
    ("ca", "message"),
    [("nothing here", "has no certificate in PEM form"), (None, '"ca.pem" can\'t be read: No such file')],
)
def test_a_ca_file_is_read(tmp_path: Path, ca: str | None, message: str) -> None:
    """A file of certificates is looked at before anything relies on it."""
    if ca is not None:
        (tmp_path / "ca.pem").write_text(ca)
    text = GOOD.replace("http:", "https:").replace("limits =", 'ca_file = "ca.pem"\nlimits =', 1)
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("pools.default.ca_file: ")
    assert message in fault


def test_a_client_certificate_is_read(tmp_path: Path) -> None:
    """cert_file with its key must be a pair; a key_file alone is a fault."""
    good = GOOD.replace("http:", "https:")
    text = good.replace("limits =", 'cert_file = "client.pem"\nlimits =', 1)
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("pools.default.cert_file: or key_file can't be read")
    (tmp_path / "client.pem").write_text("nonsense")
    assert faults(tmp_path, text) == [
        "pools.default.cert_file: and its key must be a pair in PEM form without a password"
    ]
    text = good.replace("limits =", 'key_file = "client.key"\nlimits =', 1)
    assert faults(tmp_path, text) == ["pools.default.key_file: needs cert_file; set it too"]
