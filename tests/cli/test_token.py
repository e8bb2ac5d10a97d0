"""`apiflux token new` prints a token once, and the line of it for the configuration."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from apiflux_grpc.cli.token import token
from apiflux_grpc.client.token import check_token
from apiflux_grpc.core.callers import Access, Caller, Callers, parse_digest

app = typer.Typer()
app.command()(token)


def test_a_token_fits_its_line() -> None:
    """It has 256 random bits behind a word that scanners can know; a second one is another."""
    made = [CliRunner().invoke(app, ["new"]).stdout.splitlines() for _ in range(2)]
    for secret, line in made:
        assert secret.startswith("apiflux_")
        assert len(secret.removeprefix("apiflux_")) == 43  # 32 bytes in base64
        callers = Callers([Caller("a", Access(), (parse_digest(line),))])
        assert callers.of_token(check_token(secret)).name == "a"
    assert made[0] != made[1]
