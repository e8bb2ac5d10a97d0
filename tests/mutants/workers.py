"""Broken variants of `serve --workers`: the supervisor, its port, and a worker."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

PACKAGE: Final = "apiflux_grpc/workers/"
DECISIONS: Final = ("tests/workers/test_supervision.py",)
PROCESSES: Final = ("tests/workers/test_supervisor.py",)
PORT: Final = ("tests/workers/test_port.py",)
ALONE: Final = ("tests/workers/test_worker.py",)
SERVED: Final = ("tests/e2e/test_workers.py",)

WORKERS: Final = (
    Variant(
        "workers: a failure at the start is tried again",
        PACKAGE + "supervision.py",
        "        if not self._announced:\n            self._give_up(",
        "        if not self._announced and fault is None:\n            self._give_up(",
        DECISIONS,
    ),
    Variant(
        "workers: one that lived waits as long as one that didn't",
        PACKAGE + "supervision.py",
        "worker.failures = 1 if lived else worker.failures + 1",
        "worker.failures += 1",
        DECISIONS,
    ),
    Variant(
        "workers: all is given up though one works",
        PACKAGE + "supervision.py",
        "if all(one.phase is _Phase.WAITS and one.failures",
        "if any(one.phase is _Phase.WAITS and one.failures",
        DECISIONS,
    ),
    Variant(
        "workers: beats count before a worker serves",
        PACKAGE + "supervision.py",
        "        worker = self._workers[number]\n        if worker.phase is _Phase.SERVES:\n",
        "        worker = self._workers[number]\n        if worker.phase in (_Phase.SERVES, _Phase.STARTS):\n",
        DECISIONS,
    ),
    Variant(
        "workers: the supervisor's own pause counts as silence",
        PACKAGE + "supervision.py",
        "            self._paused += now - self.wake_at",
        "            self._paused += 0",
        DECISIONS,
    ),
    Variant(
        "workers: a signal that comes twice cuts at once",
        PACKAGE + "supervision.py",
        "elif self._now - self._stopping_since >= ONE_WISH:",
        "else:",
        DECISIONS,
    ),
    Variant(
        "workers: a drain that was cut short is a clean end",
        PACKAGE + "supervision.py",
        "self._code = self._code or 1",
        "self._code = self._code or 0",
        DECISIONS,
    ),
    Variant(
        "workers: one that can't share goes on alone",
        PACKAGE + "supervisor.py",
        'asked_at = state.asked_at or "server.state_dir"',
        "asked_at = state.asked_at",
        PROCESSES,
    ),
    Variant(
        "workers: each has the whole of every limit",
        PACKAGE + "supervisor.py",
        "state=_shared(settings.state, held))",
        "state=replace(settings.state, directory=None))",
        SERVED,
    ),
    Variant(
        "workers: SIGTERM for one that is silent",
        PACKAGE + "supervisor.py",
        "                self._processes[number].popen.kill()\n",
        "                self._processes[number].popen.terminate()\n",
        PROCESSES,
    ),
    Variant(
        "workers: they are left behind when the supervisor fails",
        PACKAGE + "supervisor.py",
        "            process.popen.kill()\n            process.popen.wait()\n",
        "",
        PROCESSES,
    ),
    Variant(
        "workers: the port is shared from the start",
        PACKAGE + "port.py",
        "            try:\n                port = _bind(",
        "            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "            try:\n                port = _bind(",
        PORT,
    ),
    Variant(
        "workers: connections that are over keep the port",
        PACKAGE + "port.py",
        "one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)",
        "one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)",
        PORT,
    ),
    Variant(
        "workers: two that don't listen yet share the port",
        PACKAGE + "port.py",
        "    try:\n        one.bind(address)\n",
        "    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n    try:\n        one.bind(address)\n",
        PORT,
    ),
    Variant(
        "workers: a worker goes on without its supervisor",
        PACKAGE + "__main__.py",
        "    os.kill(os.getpid(), signal.SIGKILL)",
        "    os.getpid()",
        ALONE,
    ),
    Variant(
        "workers: a stopped worker outlives its supervisor",
        PACKAGE + "__main__.py",
        "    _die_with_parent()\n    connection",
        "    connection",
        SERVED,
    ),
    Variant(
        "workers: it beats though its engine doesn't answer",
        PACKAGE + "__main__.py",
        "    if server.engine.healthy:\n        words.tell",
        "    if server:\n        words.tell",
        ALONE,
    ),
)
