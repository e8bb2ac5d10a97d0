"""What can be copied from the pages works: configurations load, calls are valid, commands have those options."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trustme
from google.protobuf import json_format

from apiflux_grpc.jobs.formats import Recognised
from apiflux_grpc.server.checking import Checking
from apiflux_grpc.settings import load
from apiflux_grpc.testing.served import ServedProcess
from apiflux_grpc.v1 import apiflux_pb2 as pb
from docs.command_line import commands
from docs.common import ROOT
from tests.docs.pages import COMPLETION, HELP, Block, blocks, check_apiflux, inline_code, simple_commands

LISTENS = "listens on"  # beyond loopback: what a container must do is warned of all the same


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_configuration_loads(block: Block, tmp_path: Path) -> None:
    """As it stands, with made-up secrets, and keys where a pool has none; nothing is warned of."""
    file = tmp_path / "apiflux.toml"
    file.write_text(completed(block.text, tmp_path))
    environ = {name: f"secret-of-{name}" for name in re.findall(r'secret_env = "(\w+)"', block.text)}
    environ |= dict.fromkeys(re.findall(r'redis_env = "(\w+)"', block.text), "redis://h")
    settings = load(file, environ=environ)
    assert [warning for warning in settings.warnings if LISTENS not in warning] == []


def completed(text: str, folder: Path) -> str:
    """Files of secrets and certificates are made, and every pool gets keys if it has none."""
    if tls := tomllib.loads(text).get("server", {}).get("tls"):
        write_certificates(folder, **tls)
    for place, name in enumerate(re.findall(r'secret_file = "([^"]+)"', text)):
        (folder / f"secret-{place}").write_text(f"secret-in-a-file-{place}\n")
        text = text.replace(f'"{name}"', f'"secret-{place}"')
    for name, pool in tomllib.loads(text).get("pools", {}).items():
        if "keys" not in pool:
            limits = "" if "limits" in pool else 'limits = [{ max = 1, per = "1s" }]\n'
            text += f'\n[[pools.{name}.keys]]\nsecret = "made-up"\n{limits}'
    return text


def write_certificates(folder: Path, cert_file: str, key_file: str, client_ca_file: str = "") -> None:
    authority = trustme.CA()
    cert = authority.issue_cert("localhost")
    cert.cert_chain_pems[0].write_to_path(folder / cert_file)
    cert.private_key_pem.write_to_path(folder / key_file)
    (folder / key_file).chmod(0o600)
    if client_ca_file:
        authority.cert_pem.write_to_path(folder / client_ca_file)


@pytest.mark.parametrize("block", blocks("json", "jsonl"), ids=str)
def test_lines_of_calls_and_results_are_what_they_should_be(block: Block, tmp_path: Path) -> None:
    """Every line is JSON; a call is one that the server takes."""
    file = tmp_path / "c.toml"
    file.write_text('[pools.default]\nlimits = []\nkeys = [{ secret = "one" }]\n')
    pool = load(file, environ={}).pools[0].pool
    format = Recognised(pool.base_url, lambda found: None)
    for line in block.text.splitlines():
        if {"index", "response"}.isdisjoint(json.loads(line)):
            request = pb.ProcessRequest(calls=[format.call(line)])
            checking = Checking(request, pool, "", default_repeat=1, max_calls=1, max_bytes=1 << 20)
            assert list(checking.slices()) == [None]


def commands_of(block: Block) -> list[list[str]]:
    return list(simple_commands(block.text))


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_commands_have_the_options_that_they_are_given(block: Block) -> None:
    """`apiflux` with its options, `make` with its targets, grpcurl, ghz and curl with requests of the contract."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in commands_of(block):
        match Path(words[0]).name:
            case "apiflux":
                assert check_apiflux(words[1:]) == "", words
            case "make":
                assert words[1] in targets
            case "grpcurl" | "ghz":
                check_request(words)
            case "curl" if "--json" in words:
                json_format.Parse(words[words.index("--json") + 1], pb.ProcessRequest())


def check_request(words: list[str]) -> None:
    service = pb.DESCRIPTOR.services_by_name["FluxService"]
    method = next((re.split("[./]", word)[-1] for word in words if word.startswith(f"{service.full_name}")), "")
    if not method or method == service.name:
        return
    described = service.methods_by_name[method]
    if "-d" in words:
        request: Any = getattr(pb, described.input_type.name)()
        json_format.Parse(words[words.index("-d") + 1], request)


def test_a_wrong_command_is_noticed() -> None:
    """The checks above do find something."""
    assert check_apiflux(["serve", "--bnd", "x"]) == "serve has no option --bnd"
    assert check_apiflux(["serv"]) == "there is no command serv"
    assert check_apiflux(["process"]) == "process takes 1 arguments, not 0"
    assert check_apiflux(["judge", "--key", "a"]) == "judge needs --limit"
    assert check_apiflux(["--log-format", "xml", "serve"]) == "--log-format takes console|json, not xml"
    assert check_apiflux(["process", "-", "--target", "x:1"]) == ""
    script = 'A=1 apiflux serve > out & x=$(seq 3); do apiflux process "$f" | cat; done'
    assert [words[0] for words in simple_commands(script)] == ["apiflux", "x=$(seq", "apiflux", "cat"]


def test_commands_within_lines_exist() -> None:
    """`apiflux ...` has its command, and what begins with "--" is an option of one; placeholders are in capitals."""
    options = {name for command in commands() for name in command.options} | {*HELP, *COMPLETION}
    wrong = []
    for page, code in inline_code():
        words = code.split()
        if words[0] == "apiflux" and not (len(words) > 1 and words[1].isupper()) and not page.startswith("reference/"):
            wrong += [f"{page}: {code}: {fault}" for fault in [check_apiflux(words[1:], whole=False)] if fault]
        if words[0].startswith("--") and words[0].partition("=")[0] not in options:
            wrong.append(f"{page}: {code} is no option")
    assert wrong == []


# -- Python --------------------------------------------------------------------------------------


def compiled(block: Block) -> Any:
    return compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    """With `await` where it would stand in a coroutine."""
    compiled(block)


@pytest.mark.slow
def test_python_runs() -> None:
    """Every example, against a server on the simulator."""
    with ServedProcess("", {}) as served:
        for block in blocks("python"):
            text = block.text.replace("127.0.0.1:50051", served.target)
            made = eval(compiled(Block(block.page, block.line, block.language, text)), {"__name__": str(block)})
            if asyncio.iscoroutine(made):
                asyncio.run(made)
