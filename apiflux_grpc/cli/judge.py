"""`apiflux judge`."""

from __future__ import annotations

from typing import Annotated

import typer


def judge(
    limit: Annotated[
        list[str],
        typer.Option("--limit", help="A limit of every key: 1000/60s; 200000/60s:cost; :fixed, :bucket=DEPTH."),
    ],
    key: Annotated[list[str], typer.Option("--key", help="A key that is accepted, KEY or LABEL=KEY.")],
    bind: Annotated[
        str, typer.Option("--bind", help="HOST:PORT to listen on; port 0 picks a free port.")
    ] = "127.0.0.1:9000",
    speak: Annotated[
        str,
        typer.Option(
            help="The API whose paths, answers, errors, keys and headers it has: "
            "openai, anthropic, github or google-maps; plain answers any path."
        ),
    ] = "plain",
    key_in: Annotated[
        str | None,
        typer.Option(
            help="Where calls have their key: header:NAME, bearer or query:NAME; "
            "default: as the API has it, or header:X-API-Key."
        ),
    ] = None,
    latency: Annotated[str, typer.Option(help="How long an answer takes, like 20ms or 10ms..50ms.")] = "0",
    headers: Annotated[
        str | None,
        typer.Option(
            help="Tell what is left of limits as this API does: ietf, openai, anthropic, github or none; "
            "default: as --speak says, or none."
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            help="Where a call says what it costs: header:NAME or json:FIELD; "
            "default: the tokens of its usage, where the API has them, or header:X-Cost."
        ),
    ] = None,
    others: Annotated[float, typer.Option(help="The share of each key's limits that somebody else spends.")] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A fault and its probability, like 500=0.01, hang=0.001 or '503;retry-after=2=0.05'."),
    ] = None,
    reject: Annotated[
        list[str] | None,
        typer.Option(
            help="When a key is answered 401: LABEL=2s..5s after the start, or LABEL=3, its first calls. "
            "'LABEL=0..6s;429' is another fault."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="With the same seed, the same calls meet the same --fault.")] = 0,
    tls_cert: Annotated[str | None, typer.Option(help="Use TLS with this certificate, a PEM file.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="The key of that certificate, a PEM file.")] = None,
) -> None:
    """Run an upstream that enforces limits, and reports how full each key made them at worst.

    A call can ask for a fault itself: X-Judge-Fault: 500,ok fails it once.
    """
    from apiflux_grpc.judge import faults
    from apiflux_grpc.judge import options as tool
    from apiflux_grpc.judge.limits import parse_limit
    from apiflux_grpc.judge.server import run_judge

    try:
        host, port = tool.parse_bind(bind)
        keys = tool.parse_keys(key)
        options = tool.JudgeOptions(
            keys=keys,
            limits=tuple(parse_limit(text) for text in limit),
            host=host,
            port=port,
            speak=speak,
            key_in=None if key_in is None else tool.parse_key_in(key_in),
            latency_ns=tool.parse_latency(latency),
            headers=headers,
            cost_in=None if cost is None else tool.parse_cost_in(cost),
            others=others,
            faults=faults.parse_chances(fault or ()),
            rejections=faults.parse_rejections(reject or (), keys),
            seed=seed,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(run_judge(options))
