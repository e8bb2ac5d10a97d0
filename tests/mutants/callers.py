"""Broken variants of who may call; as in variants.py."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

DOOR: Final = "apiflux_grpc/server/door.py"
JWT: Final = "apiflux_grpc/adapters/jwt.py"

CALLERS: Final = (
    Variant(
        "a method that nobody thought of is open",
        DOOR,
        '        raise Forbidden("no caller may use this method")\n',
        "        return\n",
        ("tests/server/test_door.py::test_a_method_that_the_table_lacks_is_denied_to_all",),
    ),
    Variant(
        "any token that is found by its digest's table is one",
        "apiflux_grpc/core/callers.py",
        "        if not hmac.compare_digest(stored, digest):",
        "        if False:",
        ("tests/core/test_callers.py",),
    ),
    Variant(
        "several tokens at once are the first",
        "apiflux_grpc/core/callers.py",
        "    if len(authorization) != 1 or len(authorization[0])",
        "    if len(authorization[0])",
        ("tests/core/test_callers.py",),
    ),
    Variant(
        "a quota isn't given back by a batch that ends early",
        "apiflux_grpc/core/quotas.py",
        "        self.batches -= 1\n        self.calls -= rest\n",
        "        self.batches -= 1\n",
        ("tests/core/test_quotas.py::test_calls_are_counted_until_they_have_results",),
    ),
    Variant(
        "a token's algorithm is what it says",
        JWT,
        "        if not isinstance(alg, str) or alg not in self._algorithms:",
        "        if not isinstance(alg, str):",
        ("tests/adapters/test_jwt.py",),
    ),
    Variant(
        "a token of another audience is good",
        "apiflux_grpc/core/claims.py",
        '        if claims.get("iss") != rules.issuer or rules.audience not in texts_in(claims.get("aud")):',
        '        if claims.get("iss") != rules.issuer:',
        ("tests/core/test_claims.py",),
    ),
    Variant(
        "a token goes over plaintext to any host",
        "apiflux_grpc/client/token.py",
        "            if not is_loopback(parse_address(host)[0]):",
        "            if False:",
        ("tests/client/test_token.py",),
    ),
)
