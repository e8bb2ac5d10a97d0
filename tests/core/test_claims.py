"""Who a token is, by what it claims: each claim must be there and right, and grants nothing that it doesn't say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from apiflux_grpc.core.callers import Access, Caller, Callers, Identity, Role, digest_of
from apiflux_grpc.core.claims import LEEWAY, Issued, Rules
from apiflux_grpc.core.errors import CredentialsExpired, CredentialsInvalid, FluxError, Forbidden
from apiflux_grpc.core.units import SECOND

NOW = 1_800_000_000
GOOD: dict[str, Any] = {"iss": "https://i/", "aud": "apiflux", "exp": NOW + 60, "nbf": NOW - 60, "sub": "ann"}
RULES = Rules("https://i/", "apiflux", ("RS256",))
OURS = Caller("robot", Access(), (digest_of("token"),))
NAMED = Caller("bob", Access(Role.READER, max_batches=3))


class Says:
    """Whatever the token is, it says this."""

    def __init__(self, claims: Mapping[str, object]) -> None:
        self._claims = claims

    def claims(self, token: str) -> Mapping[str, object]:
        return self._claims

    async def renew(self) -> None:
        pass


def identity(claims: Mapping[str, object], rules: Rules = RULES, now: int = NOW * SECOND) -> Identity:
    callers = [OURS, NAMED]
    return Callers(callers, Issued(rules, Says(claims), callers, lambda: now)).of_token("a.b.c")


def changed(**claims: Any) -> dict[str, Any]:
    """GOOD with these; None: without."""
    return {name: value for name, value in (GOOD | claims).items() if value is not None}


def test_a_good_token_is_its_subject() -> None:
    """Until it expires; a list of audiences may have ours."""
    assert identity(GOOD) == Identity("ann", Access(), (NOW + 60) * SECOND)
    assert identity(changed(aud=["other", "apiflux"], exp=NOW + 0.5)).until == NOW * SECOND + SECOND // 2


@pytest.mark.parametrize(
    "claims",
    [
        *({name: None} for name in ("iss", "aud", "exp", "nbf", "sub")),
        {"iss": "https://i"},
        {"iss": ["https://i/"]},
        {"aud": "apiflux2"},
        {"aud": []},
        {"aud": {"apiflux": 1}},
        {"exp": str(NOW + 60)},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": 1e300},
        {"exp": 10**400},
        {"nbf": -(10**400)},
        {"nbf": NOW + 11},
        {"nbf": "0"},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a" * 257},
        {"sub": "a\nb"},
        {"sub": "robot"},  # it has a token of ours
    ],
    ids=lambda claims: str(claims)[:40],
)
def test_a_claim_that_is_missing_or_wrong_refuses_the_token(claims: dict[str, Any]) -> None:
    """Each of them is essential, and nothing is converted."""
    with pytest.raises(CredentialsInvalid):
        identity(changed(**claims))


def test_a_token_is_good_from_nbf_until_exp() -> None:
    """The issuer's clock may be a little ahead, and an expired token is told so."""
    assert identity(changed(nbf=NOW + 10), now=NOW * SECOND + 10 * SECOND - LEEWAY).name == "ann"
    assert identity(GOOD, now=(NOW + 60) * SECOND - 1).name == "ann"
    with pytest.raises(CredentialsExpired):
        identity(GOOD, now=(NOW + 60) * SECOND)


def test_a_caller_without_credentials_is_who_has_its_name() -> None:
    """It has what is configured, and nothing of what it claims."""
    rules = Rules("https://i/", "apiflux", ("RS256",), role_claim="role")
    assert identity(changed(sub="bob", role="admin"), rules).access == NAMED.access


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"r": {"roles": ["x", "ops"]}}, Role.ADMIN),
        ({"r": {"roles": "staff"}}, Role.CALLER),
        ({"r": {"roles": ["staff", "ops", 1]}}, Role.ADMIN),
        ({"r.roles": ["staff"], "r": {"roles": ["ops"]}}, Role.CALLER),
        ({"r": {"roles": ["admin"]}}, None),
        ({"r": {"roles": {"ops": 1}}}, None),
        ({"r": "ops"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_role_is_what_the_claim_is_mapped_to(claims: dict[str, Any], role: Role | None) -> None:
    """The highest of several; without one nothing is allowed."""
    roles = {"staff": Role.CALLER, "ops": Role.ADMIN}
    rules = Rules("https://i/", "apiflux", ("RS256",), role_claim="r.roles", roles=roles)
    if role is None:
        with pytest.raises(Forbidden):
            identity(changed(**claims), rules)
    else:
        assert identity(changed(**claims), rules).access.role is role


@pytest.mark.parametrize(
    ("claim", "pools"), [("a", {"a"}), (["a", "b", 1], {"a", "b"}), (None, set()), ({"a": 1}, set())]
)
def test_pools_are_those_of_the_claim(claim: Any, pools: set[str]) -> None:
    """None, if it isn't there."""
    rules = Rules("https://i/", "apiflux", ("RS256",), pools_claim="p", caller_claim="azp")
    found = identity(changed(p=claim, azp="tool"), rules)
    assert found == Identity("tool", Access(pools=frozenset(pools)), found.until)


def test_tokens_of_both_kinds_work_side_by_side() -> None:
    """A token of ours has no dot, so nobody else is asked about it."""

    class Never:
        def identity(self, token: str) -> Identity:
            raise AssertionError

        async def renew(self) -> None:
            raise AssertionError

    callers = Callers([OURS], Never())
    assert callers
    assert callers.of_token("token").name == "robot"
    assert Callers([], Never())
    with pytest.raises(FluxError):
        callers.of_token("apiflux_x")
