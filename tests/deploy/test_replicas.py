"""The files of deploy/ for several servers fit together, to the server, and to the Redis beside them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from apiflux_grpc.settings import load
from apiflux_grpc.settings.types import Settings
from docs.common import ROOT
from tests.deploy.test_deploy import DOCKERFILE, KEY, found

COMPOSE, KUBERNETES = (
    (ROOT / "deploy" / f"{name}-replicas.yaml").read_text(encoding="utf-8") for name in ("compose", "kubernetes")
)
SYSTEMS = pytest.mark.parametrize("text", [COMPOSE, KUBERNETES], ids=["compose", "kubernetes"])


def url_of(text: str) -> str:
    return found(r'BUDGETS_URL(?::|, value:) "?(redis://[^" \n]+)', text).replace("$(REDIS_PASSWORD)", "word")


def settings_of(text: str, folder: Path) -> Settings:
    """What a server would load, with a file of the folder for the Secret's."""
    environ = {"BUDGETS_URL": url_of(text)}
    if text is COMPOSE:
        assert "./replicas.toml:/etc/apiflux/apiflux.toml:ro" in COMPOSE
        environ[found(r"^    environment:\n      ([A-Z_]+): ", COMPOSE)] = KEY
        return load(ROOT / "deploy" / "replicas.toml", environ=environ)
    mount = found(r"name: keys, mountPath: ([^,]+),", KUBERNETES)
    toml = textwrap.dedent(found(r"^  apiflux\.toml: \|\n(.*?)^---", KUBERNETES))
    (name,) = re.findall(rf'secret_file = "{mount}/([^"]+)"', toml)
    assert re.search(rf"^stringData:\n  {name}: ", KUBERNETES, re.MULTILINE)
    (folder / name).write_text(KEY)
    (folder / "k.toml").write_text(toml.replace(mount, str(folder)))
    return load(folder / "k.toml", environ=environ)


@SYSTEMS
def test_replicas_share_one_redis_and_have_time_to_end(tmp_path: Path, text: str) -> None:
    """Four servers have one key and no state_dir, and are given longer than their grace to end."""
    settings = settings_of(text, tmp_path)
    assert [[key.secret for key in pool.pool.keys] for pool in settings.pools] == [[KEY]]
    assert [warning for warning in settings.warnings if "listens on" not in warning] == []
    assert (settings.host, settings.port) == ("0.0.0.0", 50051)
    assert "state" not in re.findall(r"name: (\w+), mountPath", text)
    assert int(found(r"replicas: (\d+)", text)) == 4
    patience = found(r"(?:stop_grace_period|terminationGracePeriodSeconds): (\d+)", text)
    before = re.search(r"sleep: \{ seconds: (\d+) \}", text)
    assert (before is None) == (text is COMPOSE)
    assert (int(patience) - int(before[1] if before else 0)) * 1e9 > settings.grace + 5e9


@SYSTEMS
def test_the_redis_never_evicts_and_is_where_the_url_says(text: str) -> None:
    """Its name and its port are those of the URL, and nobody but the servers may reach it."""
    url = urlsplit(url_of(text))
    assert re.search(r"--maxmemory-policy, noeviction\b", text)
    if text is COMPOSE:
        assert re.search(rf"^  {url.hostname}:\n    image: ", text, re.MULTILINE)
        redis = found(rf"^  {url.hostname}:\n(.*?)^\S", text)
        assert "networks: [budgets]" in redis
        assert "ports:" not in redis
        assert re.search(r"^  budgets:\n    internal: true$", text, re.MULTILINE)
    else:
        assert re.search(rf"^kind: Service\nmetadata:\n  name: {url.hostname}$", text, re.MULTILINE)
        assert f"containerPort: {url.port} }}" in text
        assert url.password == "word"
        assert "--requirepass, $(REDIS_PASSWORD)" in text
        assert re.search(rf"^kind: NetworkPolicy\nmetadata:\n  name: {url.hostname}$", text, re.MULTILINE)


def test_the_image_speaks_to_a_redis() -> None:
    """It is built with the library that `[budget] redis` needs."""
    assert "redis" in found(r"\.\[([a-z,]+)\]", DOCKERFILE).split(",")


def test_every_container_may_nothing_that_it_needs_not() -> None:
    """That of the servers and that of the Redis: what Kubernetes and Docker can forbid a container."""
    user = found(r"^USER (\d+):\d+$", DOCKERFILE)
    assert f"runAsUser: {user}" in KUBERNETES
    for words in (
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: { drop: [ALL] }",
        "seccompProfile: { type: RuntimeDefault }",
        "automountServiceAccountToken: false",
    ):
        assert KUBERNETES.count(words) == 2, words
    for words in ("read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert COMPOSE.count(words) == 2, words


def test_pods_go_one_at_a_time_and_clients_see_all_of_them() -> None:
    """An update starts a new one first, an emptied node takes one at most, and the name has the addresses of all."""
    assert "rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }" in KUBERNETES
    label = found(r"^kind: PodDisruptionBudget\n.*?maxUnavailable: 1\n.*?matchLabels: (\{.*?\})$", KUBERNETES)
    assert KUBERNETES.count(f"      labels: {label}\n    spec:") == 1
    assert re.search(r"^  name: apiflux\n.*?^  clusterIP: None$", KUBERNETES, re.MULTILINE | re.DOTALL)
    assert re.findall(r"(\w+Probe):\n +grpc: \{ port: 50051 \}", KUBERNETES) == [
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
    ]
