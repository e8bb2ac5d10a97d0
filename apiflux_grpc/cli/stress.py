"""`apiflux stress`."""

from __future__ import annotations

from typing import Annotated

import typer

from apiflux_grpc.cli.options import HtmlOption, check_optional_target, load_settings, run_cancellable
from apiflux_grpc.cli.reach import (
    CaFileOption,
    CertFileOption,
    KeyFileOption,
    PlaintextTokenOption,
    TlsOption,
    TokenFileOption,
    tls_options,
    token_of,
)


def stress(
    quick: Annotated[bool, typer.Option("--quick", help="100 requests of 50 calls: half a minute.")] = False,
    full: Annotated[bool, typer.Option("--full", help="100 requests of 2,000 calls: over an hour.")] = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            callback=check_optional_target,
            help="HOST:PORT of a running server; default: start a judge and a server.",
        ),
    ] = None,
    html: HtmlOption = None,
    ca_file: CaFileOption = None,
    cert_file: CertFileOption = None,
    key_file: KeyFileOption = None,
    tls: TlsOption = False,
    token_file: TokenFileOption = None,
    plaintext_token: PlaintextTokenOption = False,
) -> None:
    """Run 100 concurrent requests, and print a table and the judge's verdict."""
    from apiflux_grpc.stress.options import FULL, QUICK
    from apiflux_grpc.stress.run import run_stress

    if quick == full:
        raise typer.BadParameter("set either --quick or --full")
    secure = tls_options(tls, ca_file, cert_file, key_file)
    if secure is not None and target is None:
        raise typer.BadParameter("TLS is for a server that is there already; name it with --target")
    if token_file is not None and target is None:
        raise typer.BadParameter("a token is for a server that is there already; name it with --target")
    token = target and token_of(
        token_file, [target], secure=secure is not None, over_plaintext=plaintext_token, refused=2
    )
    settings = load_settings(None, allow_plaintext=True)
    timeout = None if target is None else settings.request_timeout / 1e9
    plan = QUICK if quick else FULL
    raise typer.Exit(
        run_cancellable(
            run_stress(
                plan,
                target,
                settings.concurrent_requests,
                timeout,
                html=html,
                tls=secure,
                token=token,
                plaintext_token=plaintext_token,
            )
        )
    )
