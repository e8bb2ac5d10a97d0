"""The pool of a request that names none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from apiflux_grpc.client import Call, Client, PoolNotFound
from apiflux_grpc.core.model import default_of
from tests.server.serving import serving


@pytest.mark.parametrize(
    ("names", "default"),
    [(["default"], "default"), (["maps"], "maps"), (["maps", "default"], "default"), (["maps", "mail"], ""), ([], "")],
)
def test_which_pool_is_the_default(names: Sequence[str], default: str) -> None:
    """The one called so, else the only one."""
    assert default_of(dict.fromkeys(names)) == default


async def test_a_request_that_names_no_pool_goes_to_the_only_one() -> None:
    """Process, ProcessStream and Estimate; and GetInfo tells which it is."""
    async with serving(pools=["maps"]) as server, Client(server.address) as client:
        assert (await client.info()).default_pool == "maps"
        assert (await anext(client.process([Call("/1")]))).response is not None
        assert (await anext(client.process_stream([Call("/1")]))).response is not None
        assert (await client.estimate(1)).makespan is not None
        with pytest.raises(PoolNotFound, match=r"there is no pool 'default'; use one of maps"):
            await anext(client.process([Call("/1")], pool="default"))


async def test_with_several_pools_a_request_must_name_one() -> None:
    """It is refused, with their names, before anything is sent."""
    async with serving(pools=["maps", "mail"]) as server, Client(server.address) as client:
        assert (await client.info()).default_pool == ""
        for attempt in (
            anext(client.process([Call()])),
            anext(client.process_stream([Call()])),
            client.estimate(1),
        ):
            with pytest.raises(PoolNotFound, match=r"no pool was named, and there are several; use one of mail, maps"):
                await attempt
