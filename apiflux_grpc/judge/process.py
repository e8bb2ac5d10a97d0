"""A judge in a process of its own, for tests, benchmarks and `apiflux stress`.

The rule: options, and with them the keys, go over the child's standard input, since everyone can read the arguments of
a process. That pipe stays open: its end tells the child that its parent is gone, even killed.
"""

import json
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import quote

from apiflux_grpc.core.units import parse_address
from apiflux_grpc.judge.faults import Chance, Fault, Rejection
from apiflux_grpc.judge.limits import Limit
from apiflux_grpc.judge.options import JudgeOptions
from apiflux_grpc.judge.places import CostIn, KeyIn
from apiflux_grpc.judge.report import Live, Report

END_WITHIN: Final = 60  # seconds; a bound for a judge that hangs, far above what a busy machine needs


class JudgeProcess:
    """A judge in a process of its own, for as long as the `with` block lasts; pinned to one `cpu` if asked.

    It ends with its parent, even a killed one; then `returncode` is its exit code. Raises RuntimeError, with what it
    said, if it can't start.
    """

    def __init__(self, options: JudgeOptions, *, cpu: int | None = None) -> None:
        self._options = options
        self._cpu = cpu
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if options.tls_cert is not None:  # its own certificate is all that it can be known by
            context = ssl.create_default_context(cafile=options.tls_cert)
            context.check_hostname = False
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)
        self.url = ""
        self.port = 0
        self.pid = 0
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "apiflux_grpc.judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which may still want the report
        )
        self.pid = self._process.pid
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def report(self) -> Report:
        """Everything that arrived since the last reset."""
        return Report.from_json(self._ask("GET", "report"))

    def live(self) -> Live:
        """A look at the run so far; cheap enough to ask during it."""
        data = self._ask("GET", "live")
        keys = {label: (accepted, rejected) for label, (accepted, rejected) in data.pop("keys").items()}
        return Live(**data, keys=keys)

    def calls(self) -> dict[str, int]:
        """How many arrivals each call had, accepted or not, since the last reset."""
        return self._ask("GET", "calls")

    def reject(self, label: str) -> None:
        """From now on this key is answered 401."""
        self._ask("POST", f"reject/{quote(label, safe='')}")

    def accept(self, label: str) -> None:
        """Undo `reject`; rejections of the options still hold."""
        self._ask("POST", f"accept/{quote(label, safe='')}")

    def reset(self) -> None:
        """Forget every arrival and every command; the options' rejections count from now on."""
        self._ask("POST", "reset")

    def _start(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # if it is dead already, its stderr says why
            process.stdin.write(to_line(self._options, self._cpu))
            process.stdin.flush()
        line = process.stdout.readline()
        if not line.startswith("judging on "):
            process.wait()
            self._stderr.seek(0)
            raise RuntimeError(f"the judge didn't start: {self._stderr.read().strip()}")
        address = line.split()[-1]
        self.url = f"{'http' if self._options.tls_cert is None else 'https'}://{address}"
        self.port = parse_address(address)[1]

    def _end(self) -> None:
        self._process.terminate()
        try:
            self.returncode = self._process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.returncode = self._process.wait()
        for stream in (self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _ask(self, method: str, what: str) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_judge/{what}", method=method)
        with self._opener.open(request, timeout=60) as response:
            return cast("dict[str, Any]", json.load(response))


def to_line(options: JudgeOptions, cpu: int | None) -> str:
    """What a judge's process reads at its start: one line of JSON."""
    return json.dumps({"options": {**asdict(options), "keys": {**options.keys}}, "cpu": cpu}) + "\n"


def from_line(line: str) -> tuple[JudgeOptions, int | None]:
    """The options and the cpu that `to_line` wrote."""
    data = json.loads(line)
    options = data["options"]
    options["limits"] = tuple(Limit(*limit) for limit in options["limits"])
    options["key_in"] = options["key_in"] and KeyIn(*options["key_in"])
    options["cost_in"] = options["cost_in"] and CostIn(*options["cost_in"])
    options["latency_ns"] = tuple(options["latency_ns"])
    options["faults"] = tuple(Chance(Fault(*fault), probability) for fault, probability in options["faults"])
    options["rejections"] = tuple(
        Rejection(label, first, from_ns, until_ns, Fault(*fault))
        for label, first, from_ns, until_ns, fault in options["rejections"]
    )
    return JudgeOptions(**options), data["cpu"]
