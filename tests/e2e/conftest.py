"""A server for all tests that run commands: starting one costs more than what most of them prove."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import house as houses


@pytest.fixture(scope="session")
def _one_house() -> Iterator[houses.House]:
    with houses.house() as one:
        yield one


@pytest.fixture(scope="session")
def _one_double_house() -> Iterator[houses.House]:
    with houses.house(2) as one:
        yield one


@pytest.fixture
def double_house(_one_double_house: houses.House) -> Iterator[houses.House]:
    """Two servers with the same pools, and their upstream as new."""
    _one_double_house.upstream.begin()
    yield _one_double_house
    _one_double_house.rest()


@pytest.fixture
def house(_one_house: houses.House) -> Iterator[houses.House]:
    """The server, and its upstream as new."""
    _one_house.upstream.begin()
    yield _one_house
    _one_house.rest()
