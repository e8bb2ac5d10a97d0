"""A budget has one name, whoever derives it."""

from __future__ import annotations

from apiflux_grpc.core.budget_names import names_of
from apiflux_grpc.core.classes import Classes
from apiflux_grpc.core.leased import LeasedKeyring, Leasing
from apiflux_grpc.core.model import Group, Key, Limit, Pool
from apiflux_grpc.core.units import SECOND


def test_all_budgets_of_a_key_are_named_as_those_that_its_calls_borrow_from() -> None:
    """Its own, its group's, and those of limits with paths; also where a name needs quoting."""
    day, search = Limit(10, 86_400 * SECOND), Limit(3, SECOND, paths=("/search/", "/ä+"))
    keys = (Key("a/b", "x", (day, search, search)), Key("c", "y", (search,), budget="n?"), Key("none", "z", ()))
    pool = Pool(name="p q", keys=keys, groups=(Group(("c", "a/b"), (day, search)),))
    keyring = LeasedKeyring(pool, Classes([day, search]), None, 0, Leasing("me"))
    borrowed = {borrower.ledger.budget for borrower in keyring.borrowing.borrowers}
    assert borrowed == {*names_of(pool, "a/b"), *names_of(pool, "c")}
    assert names_of(pool, "none") == {}
    assert list(names_of(pool, "a/b").values()) == [
        "key a/b",
        "key a/b for /search/, /ä+",
        "group c + a/b",
        "group c + a/b for /search/, /ä+",
    ]
