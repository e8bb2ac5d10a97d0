"""Broken variants of what is kept over a restart; as in variants.py."""

from __future__ import annotations

from typing import Final

STORE: Final = "apiflux_grpc/adapters/lease_sqlite.py"
OF_STORE: Final = ("tests/adapters/test_lease_sqlite.py", "tests/adapters/test_state_file.py")
OF_PROCESSES: Final = ("tests/adapters/test_lease_processes.py",)

STATE: Final = (
    (
        "state: a probe makes what the server's user can't write then",
        "apiflux_grpc/adapters/state_file.py",
        "        if path.exists():\n            _check_head(path)",
        "        open_file(path).close()",
        OF_STORE,
    ),
    ("state: a grant of a long window isn't synced", STORE, "'FULL' if lasting else 'NORMAL'", "'NORMAL'", OF_STORE),
    (
        "state: who knows of no long window doesn't sync one that others know",
        STORE,
        "if not lasting and any(map(self._must_last, rounds)):",
        "if False:",
        OF_STORE,
    ),
    ("state: a boot loses nothing", STORE, 'entry.run_id = ""  # its last', "pass  # its last", OF_STORE),
    ("state: time begins anew with a boot", STORE, "if boot != self._boot and", "if False and", OF_STORE),
    ("state: a wall clock may go back", STORE, "max(0, self._wall() - last[1])", "self._wall() - last[1]", OF_STORE),
    (
        "state: a file that was replaced goes on",
        STORE,
        "if (found.st_dev, found.st_ino) == self._file:",
        "if True:",
        OF_STORE,
    ),
    (
        "state: what wasn't written counts",
        STORE,
        "self._entries.clear()  # they are ahead of the file",
        "pass",
        OF_STORE,
    ),
    (
        "state: what others wrote isn't read",
        STORE,
        "if version != self._version:",
        "if self._version is None:",
        OF_STORE,
    ),
    ("state: an exchange isn't one transaction", STORE, '"BEGIN IMMEDIATE"', '"SELECT 1"', OF_PROCESSES),
    (
        "state: nothing is known of what was spent, so nothing was",
        "apiflux_grpc/core/keyring.py",
        "if self._spent_at is None:",
        "if True:",
        ("tests/core/test_cold_start.py",),
    ),
)
