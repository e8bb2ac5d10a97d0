"""The mask: the secret's forms are found, and nothing else."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiflux_grpc.adapters.masking import SHORTEST_IN_BASE64, Mask

SECRET = 'sk-ab/c+d=e?f 12%345é"x'

secrets = st.text(st.characters(codec="utf-8", min_codepoint=33), min_size=4, max_size=40)
control = st.text("\x00\x01\x02", max_size=20).map(str.encode)
around = st.binary(max_size=20)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        re.sub("%..", lambda escape: escape[0].lower(), quote(SECRET, safe="")),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        SECRET.replace("/", "\\/"),
    ],
)
def test_forms(form: str) -> None:
    """The secret is masked as it is, percent-encoded and escaped for JSON."""
    masked = Mask(SECRET).body(b"<" + form.encode() + b">").decode()
    assert "***" in masked
    assert not any(piece in masked for piece in ("sk-ab", "12", "345"))


@given(secrets, control, control)
def test_raw(secret: str, before: bytes, behind: bytes) -> None:
    """Any secret is masked, and the text around it stays."""
    assert Mask(secret).body(before + secret.encode() + behind) == before + b"***" + behind


@given(st.text(min_size=SHORTEST_IN_BASE64, max_size=40), around, around)
def test_base64(secret: str, before: bytes, behind: bytes) -> None:
    """Base64 of a text that holds the secret is masked, whatever comes before it, in both alphabets."""
    mask = Mask(secret)
    text = before + secret.encode() + behind
    assert b"***" in mask.body(base64.b64encode(text))
    assert b"***" in mask.body(base64.urlsafe_b64encode(text))


@given(st.binary(max_size=300))
def test_the_rest_stays(body: bytes) -> None:
    """What doesn't hold the secret isn't touched."""
    assert Mask("a-secret-that-isn't-there").body(body) is body


def test_short_secrets_are_left_alone() -> None:
    """A secret of less than four characters would be found everywhere."""
    mask = Mask("abc")
    assert not mask.finds(b"abc")
    assert mask.body(b"abc") == b"abc"


def test_text() -> None:
    """A header's value is masked, one with bytes that aren't UTF-8 too."""
    mask = Mask("sk-secret")
    assert mask.text("Bearer sk-secret") == "Bearer ***"
    assert mask.text("\udcff sk-secret") == "\udcff ***"
    assert mask.text("\udcff") == "\udcff"


def test_repr() -> None:
    """A mask doesn't show what it hides."""
    assert "sk-secret" not in repr(Mask("sk-secret"))
