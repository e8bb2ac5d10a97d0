"""Whether a certificate comes from one of these authorities.

Rule: names don't count, signatures do: who has the key of an authority that was removed can sign under any name. All
certificates were checked when their connection was made; what is asked here is only whether a way from one of the
authorities of now still leads to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST: Final = 10  # certificates between an authority and a peer; OpenSSL's own bound is larger


class Issuers:
    """These authorities, each in PEM. Raises ValueError if one can't be read."""

    def __init__(self, authorities: Sequence[bytes]) -> None:
        self._authorities = [x509.load_pem_x509_certificate(one) for one in authorities]

    def issued(self, certificate: bytes, chain: bytes = b"") -> bool:
        """Whether they have issued this one, or one of `chain` that leads to it. All in PEM."""
        try:
            peer = x509.load_pem_x509_certificate(certificate)
            between = x509.load_pem_x509_certificates(chain) if chain else []
        except ValueError:
            return False
        reached = [peer]
        for _ in range(_LONGEST):
            for one in reached:
                if any(one == authority or _signed(one, authority) for authority in self._authorities):
                    return True
            reached = [other for other in between for one in reached if _signed(one, other)]
            between = [other for other in between if other not in reached]
        return False


def _signed(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True
