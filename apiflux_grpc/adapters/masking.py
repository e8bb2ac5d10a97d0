"""Takes a key's secret out of what an upstream sends back.

Rule: in a header's value and in the body, asterisks replace the secret, and its percent-encoded, JSON-escaped and
base64 forms. Secrets below four characters are left alone, since they are found everywhere by chance. What an upstream
hides on purpose (reversed, encrypted, in pieces) is not found.
"""

from __future__ import annotations

import base64
import json
from typing import Final
from urllib.parse import quote, quote_plus

STARS: Final = b"***"
SHORTEST: Final = 4
SHORTEST_IN_BASE64: Final = 8  # the part of base64 that is the same in any surroundings would be too short


class Mask:
    """The forms of one secret."""

    __slots__ = ("_forms",)

    def __init__(self, secret: str) -> None:
        found = _forms(secret) if len(secret) >= SHORTEST else set()
        self._forms = sorted(found, key=len, reverse=True)

    def finds(self, text: bytes) -> bool:
        """Whether the text holds the secret."""
        for form in self._forms:  # noqa: SIM110  # a generator costs three times as much, for every answer
            if form in text:
                return True
        return False

    def body(self, body: bytes, cut: bool = False) -> bytes:
        """The body without the secret. `cut`: the end is missing, so a beginning of the secret there goes too."""
        for form in self._forms:
            if form in body:
                body = body.replace(form, STARS)
        if cut:
            for form in self._forms:
                for length in range(len(form) - 1, 0, -1):
                    if body.endswith(form[:length]):
                        body = body[:-length]
                        break
        return body

    def text(self, text: str) -> str:
        """A header's value."""
        raw = text.encode("utf-8", "surrogateescape")
        masked = self.body(raw)
        return text if masked is raw else masked.decode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"<Mask of {len(self._forms)} forms>"


def _forms(secret: str) -> set[bytes]:
    raw = secret.encode()
    texts = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1]}
    texts.add(secret.replace("/", "\\/"))  # as PHP's JSON has it
    forms = {text.encode() for text in texts}
    forms |= {_lower_escapes(form) for form in forms}
    if len(raw) >= SHORTEST_IN_BASE64:
        for encoded in _in_base64(raw):
            forms |= {encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


def _lower_escapes(form: bytes) -> bytes:
    head, *rest = form.split(b"%")
    return b"%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


def _in_base64(raw: bytes) -> list[bytes]:
    """What base64 makes of it behind 0, 1 and 2 other bytes, without the digits that the neighbours decide."""
    forms = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        first = -(-before * 8 // 6)
        last = (before + len(raw)) * 8 // 6
        forms.append(encoded[first:last])
    return forms
