"""The files of deploy/ fit together and to the server: `make deploy-check` asks other tools about each by itself."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest
import trustme

from apiflux_grpc.settings import load
from apiflux_grpc.settings.types import PoolSettings, Settings
from apiflux_grpc.testing.served import ServedProcess
from deploy.health import main as health
from docs.command_line import exit_codes
from docs.common import ROOT
from tests.docs.pages import blocks, check_apiflux
from tests.server.authority import Served, options
from tests.server.serving import serving

DOCKERFILE, COMPOSE, KUBERNETES, JOB, UNIT = (
    (ROOT / "deploy" / name).read_text(encoding="utf-8")
    for name in ("Dockerfile", "compose.yaml", "kubernetes.yaml", "kubernetes-job.yaml", "apiflux.service")
)
KEY = "canary-of-team-a"


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert match is not None, pattern
    return match[1]


def of_kubernetes(folder: Path) -> Settings:
    """The ConfigMap's configuration, with the Secret's files where a folder stands for their mount."""
    text = textwrap.dedent(found(r"^  apiflux\.toml: \|\n(.*?)^---", KUBERNETES))
    mount = found(r"name: keys, mountPath: ([^,]+),", KUBERNETES)
    (name,) = re.findall(rf'secret_file = "{mount}/([^"]+)"', text)
    (folder / name).write_text(KEY)
    assert re.search(rf"^stringData:\n  {name}: ", KUBERNETES, re.MULTILINE)
    (folder / "k.toml").write_text(text.replace(mount, str(folder)))
    return load(folder / "k.toml", environ={})


def of_compose() -> Settings:
    variable = found(r"^    environment:\n      ([A-Z_]+): ", COMPOSE)
    return load(ROOT / "deploy" / "apiflux.toml", environ={variable: KEY})


@pytest.mark.parametrize("system", ["compose", "kubernetes"])
def test_its_configuration_is_that_of_one_server_for_others(tmp_path: Path, system: str) -> None:
    """It has its key, listens beyond loopback on the published port, and is given longer than its grace to end."""
    settings, text = (of_compose(), COMPOSE) if system == "compose" else (of_kubernetes(tmp_path), KUBERNETES)
    pools: tuple[PoolSettings, ...] = tuple(settings.pools)
    assert [(pool.pool.name, [key.secret for key in pool.pool.keys]) for pool in pools] == [("default", [KEY])]
    assert pools[0].base_url == "https://api.example.com"
    assert [warning for warning in settings.warnings if "listens on" not in warning] == []
    assert (settings.host, settings.port) == ("0.0.0.0", 50051)
    ports = set(re.findall(r"\b(?:port|containerPort): (\d+)|:(\d+)\"", text))
    assert {"".join(port) for port in ports} == {"50051"}
    patience = found(r"(?:stop_grace_period|terminationGracePeriodSeconds): (\d+)", text)
    assert int(patience) * 1e9 > settings.grace + 5e9


@pytest.mark.parametrize("manifest", [KUBERNETES, JOB], ids=["server", "job"])
def test_a_container_may_nothing_that_it_needs_not(manifest: str) -> None:
    """The same user as in the image, and all that Kubernetes can forbid a container."""
    user = found(r"^USER (\d+):\d+$", DOCKERFILE)
    assert int(user) > 1000
    for words in (
        f"runAsUser: {user}",
        f"fsGroup: {user}",
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: { drop: [ALL] }",
        "seccompProfile: { type: RuntimeDefault }",
        "automountServiceAccountToken: false",
    ):
        assert words in manifest


def test_a_job_may_ask_the_server_and_ends_when_no_try_would_help() -> None:
    """It has the label that the NetworkPolicy asks for, options that there are, and the exit codes that are final."""
    label = found(r"matchLabels: \{ (apiflux-client: \S+) \}", KUBERNETES)
    assert f"        {label}" in JOB
    arguments = re.split(r", *", found(r"^          args: \[(.*?)\]$", JOB).replace('"', ""))
    assert check_apiflux(arguments) == ""
    assert found(r"values: \[(.*?)\]", JOB) == "2, 3"
    assert {code for code, meaning in exit_codes() if re.search("input|some calls", meaning)} == {"2", "3"}


def test_two_servers_never_have_the_same_keys() -> None:
    """One replica, and the old one ends before the new one starts: budgets aren't shared."""
    assert re.search(r"^  replicas: 1\n  strategy: \{ type: Recreate \}$", KUBERNETES, re.MULTILINE)


def test_the_image_runs_a_command_that_there_is() -> None:
    """With options that it has, and the configuration where both systems mount it."""
    arguments = json.loads(found(r"^CMD (\[.*?\])$", DOCKERFILE))
    assert check_apiflux(arguments) == ""
    folder = str(Path(arguments[-1]).parent)
    assert f":{arguments[-1]}:ro" in COMPOSE
    assert f"mountPath: {folder}," in KUBERNETES


def test_the_unit_fits_the_server_and_its_page(tmp_path: Path) -> None:
    """It runs a command that there is, hands over the key that the page's file reads, and waits for a drain."""
    arguments = shlex.split(found(r"^ExecStart=\S+/apiflux (.*?)$", UNIT))
    assert check_apiflux(arguments) == ""
    (block,) = (one for one in blocks("toml") if one.page == "howto/systemd.md")
    name = found(r"^LoadCredential=([^:]+):", UNIT)
    assert f'secret_file = "/run/credentials/apiflux.service/{name}"' in block.text
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "c.toml").write_text(block.text.replace(f"/run/credentials/apiflux.service/{name}", "key"))
    settings = load(tmp_path / "c.toml", environ={})
    assert int(found(r"^TimeoutStopSec=(\d+)s$", UNIT)) * 1e9 > settings.grace + 5e9


def test_what_the_image_is_built_of_is_let_through() -> None:
    """.dockerignore keeps out all that the Dockerfile doesn't name, and nothing that it names."""
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    ignore = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    assert sorted(" ".join(copied).split()) == sorted(re.findall(r"^!(.*)$", ignore, re.MULTILINE))
    assert [name for name in " ".join(copied).split() if not (ROOT / name).exists()] == []


def test_health_is_the_servers(capsys: pytest.CaptureFixture[str]) -> None:
    """0 while it serves, 1 when nobody is there."""
    with ServedProcess("", {}) as served:
        assert health(served.target) == 0
        assert capsys.readouterr().out == "SERVING\n"
    assert health(served.target) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


async def test_health_is_asked_for_over_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the files that a client needs, and the name in the certificate; without them it isn't healthy."""
    served = Served(tmp_path, authority := trustme.CA(), mutual=True)
    served.give(authority.issue_cert("apiflux.example"))
    tls = options(tmp_path, authority, authority.issue_cert("probe"))
    files = ["--ca-file", str(tls.ca_file), "--cert-file", str(tls.cert_file), "--key-file", str(tls.key_file)]
    async with serving(tls=served.files) as server:
        for arguments, code in (
            ([*files, "--server-name", "apiflux.example"], 0),
            (files, 1),
            ([], 1),
            (["--ca-file", str(tmp_path / "none")], 1),
        ):
            assert await asyncio.to_thread(health, server.address, *arguments) == code
    assert f"can't read {tmp_path}/none: No such file" in capsys.readouterr().err
