"""A server in a process of its own, and the configuration that puts it in front of an upstream.

Rule: what it says before it listens is the error's text, and it ends with its `with` block, or with this process, also
if that is killed: a pipe that only we hold open is its standard input, and it ends when that does.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable


# `python -m apiflux_grpc`, but killed when its standard input ends. Not read by Python's own file: a thread that waits
# with its lock held stops an interpreter from ending.
_ENDS_WITH_US: Final = """
import os, runpy, signal, threading

def wait():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=wait, daemon=True).start()
runpy.run_module("apiflux_grpc", run_name="__main__", alter_sys=True)
"""


class ServedProcess:
    """`apiflux serve` in a process of its own, for as long as the `with` block lasts; pinned to one `cpu` if asked.

    `target` is its HOST:PORT, on any free port unless one is given. `state` is where it keeps what was spent, unless
    the configuration says another place; None: in memory. `files`: how many it may have
    open. Raises RuntimeError, with what it said, if it can't start.
    """

    def __init__(
        self,
        config: str,
        environ: dict[str, str],
        *,
        cpu: int | None = None,
        log_level: str = "warning",
        log_format: str = "console",
        port: int = 0,
        state: Path | None = None,
        files: int | None = None,
    ) -> None:
        self._config = config
        self._environ = environ
        self._cpu = cpu
        self._log = (*("--log-level", log_level), *("--log-format", log_format))
        self._port = port
        self._state = state
        self._files = files
        self.target = ""
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        config = Path(self._folder.name) / "apiflux.toml"
        config.write_text(self._config, encoding="utf-8")
        self._stderr = (Path(self._folder.name) / "stderr").open("w+", encoding="utf-8")
        # A user without a home keeps nothing.
        home = {"HOME": "", "XDG_STATE_HOME": "" if self._state is None else str(self._state)}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _ENDS_WITH_US, *self._log),
                *("serve", "--bind", f"127.0.0.1:{self._port}", "--config", str(config)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | self._environ | home,
            cwd=self._folder.name,  # no .env of somebody else's
            start_new_session=True,  # Ctrl-C is for the parent
            preexec_fn=None if self._files is None else partial(_may_open, self._files),
        )
        self.pid = self._process.pid
        if self._cpu is not None:
            os.sched_setaffinity(self.pid, {self._cpu})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            self._process.wait()
            said = self.stderr
            self.__exit__()
            raise RuntimeError(f"the server didn't start: {said.strip()}")
        self.target = line.split()[-1]
        return self

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return (Path(self._folder.name) / "stderr").read_text(encoding="utf-8", errors="replace")

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        if self.returncode is None:
            self._process.terminate()
            try:
                self.returncode = self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self.returncode = self._process.wait()
        return self.returncode

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self.returncode = self._process.wait()

    def __exit__(self, *_: object) -> None:
        self.terminate()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()
        self._folder.cleanup()


def _may_open(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def config_for(
    base_url: str, limits: Iterable[tuple[int, int, *tuple[object, ...]]], labels: list[str], extra: str = ""
) -> str:
    """The TOML of a pool `default` in front of `base_url`; secrets come from the variables of `secrets_for`.

    A limit is (max, period in ns, what it counts, ...), the period in whole milliseconds, and calls counted if it
    doesn't say; `extra` is TOML of the pool.
    """
    rows = ", ".join(map(_limit_row, limits))
    keys = "".join(
        f'\n[[pools.default.keys]]\nlabel = "{label}"\nsecret_env = "STRESS_SECRET_{place}"\n'
        for place, label in enumerate(labels)
    )
    return f'[pools.default]\nbase_url = "{base_url}"\nlimits = [{rows}]\n{extra}\n{keys}'


def _limit_row(limit: tuple[int, int, *tuple[object, ...]]) -> str:
    most, per_ns, *more = limit
    counts = f', counts = "{more[0]}"' if more else ""
    return f'{{ max = {most}, per = "{per_ns // 1_000_000}ms"{counts} }}'


def secrets_for(keys: dict[str, str]) -> dict[str, str]:
    """The environment that goes with config_for."""
    return {f"STRESS_SECRET_{place}": secret for place, secret in enumerate(keys.values())}
