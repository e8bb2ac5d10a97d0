"""What a PEM file has to hold: certificates, or a private key that needs no password.

Rule: a fault is said in words that fit after the file's name, and show nothing of what is in it. OpenSSL would say only
that a handshake failed, and for an encrypted key it would ask for the password on the terminal.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from typing import Final

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(.*?)-----END \1-----", re.DOTALL)


def certificates_in(data: bytes) -> list[bytes]:
    """Each certificate, as it is written. Raises ValueError if there is none, or one that can't be read."""
    blocks = [match[0] for match in _BLOCK.finditer(data) if match[1] == b"CERTIFICATE"]
    if not blocks:
        raise ValueError("has no certificate in PEM form")
    text = "\n".join(block.decode("ascii", "replace") for block in blocks)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError("has a certificate that can't be read") from None
    return blocks


def check_key(data: bytes) -> None:
    """Raises ValueError if there is no private key, or one that can't be used."""
    found = next((match for match in _BLOCK.finditer(data) if match[1].endswith(b"PRIVATE KEY")), None)
    if found is None:
        raise ValueError("has no private key in PEM form")
    if found[1].startswith(b"ENCRYPTED") or b"ENCRYPTED" in found[2]:
        raise ValueError("has a private key that is encrypted, and nobody is asked for its password")
    try:
        base64.b64decode(b"".join(found[2].split()), validate=True)
    except binascii.Error:
        raise ValueError("has a private key that can't be read") from None


def check_pair(cert_file: str, key_file: str) -> None:
    """Raises ValueError if this isn't the key of that certificate, and OSError. Each was checked by itself."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("isn't the key of the certificate") from None
        raise ValueError(f"can't be used with the certificate: {error.reason or 'OpenSSL refuses it'}") from None
