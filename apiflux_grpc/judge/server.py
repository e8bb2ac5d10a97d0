"""`apiflux judge`: listens until a signal, then prints its report.

The rule: standard output has one line, the address; whatever else people read goes to standard error.
"""

import asyncio
import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO, cast

from apiflux_grpc.core.units import format_address
from apiflux_grpc.judge.apis.known import APIS
from apiflux_grpc.judge.connection import Connection
from apiflux_grpc.judge.judge import Judge
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.report import Report
from apiflux_grpc.judge.showing import print_report


def run_judge(options: JudgeOptions, *, until_eof: TextIO | None = None) -> int:
    """Judge until SIGTERM or SIGINT (or the end of `until_eof`); prints `judging on HOST:PORT` once it listens.

    Ends with the report as a table on stderr. Returns 0, or 3 if the report names a violation, or 2 if it can't listen.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        report = runner.run(_serve(options, until_eof))
    if report is None:
        return 2
    print_report(report, sys.stderr, APIS[options.speak].unit)
    return 0 if report.ok else 3


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


async def _serve(options: JudgeOptions, until_eof: TextIO | None) -> Report | None:
    """The report at the end; None if it couldn't listen, which it said on stderr."""
    loop = asyncio.get_running_loop()
    judge = Judge(options, soon=loop.call_soon)
    ended = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, ended.set)
    tls: ssl.SSLContext | None = None
    try:
        if options.tls_cert is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(options.tls_cert, options.tls_key)
        # Both event loops set TCP_NODELAY by themselves.
        server = await loop.create_server(partial(Connection, judge), options.host, options.port, backlog=4096, ssl=tls)
    except ssl.SSLError:
        print("the TLS certificate and its key don't match, or aren't PEM", file=sys.stderr)
        return None
    except OSError as error:
        # Event loops have words of their own around the system's.
        why = error.strerror if error.errno is None else os.strerror(error.errno)
        print(f"can't listen on {format_address(options.host, options.port)}: {why}", file=sys.stderr)
        return None
    if until_eof is not None:
        loop.add_reader(until_eof, ended.set)
    # A pause of the garbage collector would make stamps late, and hardly anything here is cyclic.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    judge.lag.reset()
    judge.lag.tick()
    host, port = server.sockets[0].getsockname()[:2]
    print(f"judging on {format_address(host, port)}", flush=True)
    await ended.wait()
    if judge.backlog is not None:
        judge.backlog.finish()
    report = judge.report()
    if until_eof is not None:
        loop.remove_reader(until_eof)
    server.close()
    for connection in [*judge.connections]:
        connection.abort()
    await asyncio.sleep(0)  # connection_lost runs in the next turn of the loop
    return report
