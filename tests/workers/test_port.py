"""The port that workers share: who may have it, and who not."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from contextlib import AbstractContextManager, ExitStack

import pytest

from apiflux_grpc.workers.port import Port


def taken() -> AbstractContextManager[object]:
    """What is done in the block fails: somebody has the port."""
    return pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE))


def bound(port: int, *, shared: bool, host: str = "127.0.0.1") -> socket.socket:
    """As gRPC does it for a listener."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        one.bind((host, port))
        one.listen()
    except OSError:
        one.close()
        raise
    return one


def test_workers_share_it_and_connections_reach_only_who_listens() -> None:
    """Port 0 is picked once, for all; the socket that holds it gets no connection."""
    with Port("127.0.0.1", 0) as port, ExitStack() as all_of_them:
        assert port.number
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port.number))
        workers = [all_of_them.enter_context(bound(port.number, shared=True)) for _ in range(2)]
        for _ in range(20):
            all_of_them.enter_context(socket.create_connection(("127.0.0.1", port.number)))
        selector = all_of_them.enter_context(selectors.DefaultSelector())
        for worker in workers:
            selector.register(worker, selectors.EVENT_READ)
        for _ in range(20):
            ready = next(worker for worker in workers if worker is selector.select()[0][0].fileobj)
            all_of_them.enter_context(ready.accept()[0])


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_that_is_taken_cannot_be_held(shared: bool) -> None:
    """Even if who has it would share it: that is another server."""
    with bound(0, shared=shared) as other, taken(), Port("127.0.0.1", other.getsockname()[1]):
        pass


def test_a_second_supervisor_fails_before_the_first_ones_workers_listen() -> None:
    """And so does a server without workers."""
    with Port("127.0.0.1", 0) as port:
        with taken(), Port("127.0.0.1", port.number):
            pass
        with taken():
            bound(port.number, shared=False)


def test_a_port_whose_connections_are_just_over_can_be_held() -> None:
    """A server that is started again has it at once: the side that closes first remembers it for a minute."""
    with bound(0, shared=False) as earlier:
        port = earlier.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            earlier.accept()[0].close()
            assert client.recv(1) == b""
    with taken(), socket.socket() as one:
        one.bind(("127.0.0.1", port))
    with Port("127.0.0.1", port) as again, bound(again.number, shared=True):
        pass


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::", "::1"])
def test_a_name_and_each_family_can_be_held(host: str) -> None:
    """All its addresses on one port: nobody else gets it on any of them."""
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with Port(host, 0) as port:
        address = "::1" if host == "::1" else "127.0.0.1"
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as one, taken():
            one.bind((address, port.number))


def test_a_host_that_is_not_here_is_an_error() -> None:
    """192.0.2.1 is nobody's address."""
    with pytest.raises(OSError, match="assign"), Port("192.0.2.1", 0):
        pass
