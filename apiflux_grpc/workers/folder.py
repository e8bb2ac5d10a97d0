"""A folder for what workers share while their supervisor runs.

Rule: it goes away with its supervisor, however that ends. A killed one can't remove it, so the next does: who owns a
folder holds a lock on a file in it, which the kernel lets go of with the process. The file gets its name once it is
locked, so that a folder that is just being made is never taken for one that was left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX: Final = "apiflux-"
OWNER: Final = "owner"  # the locked file


@contextmanager
def shared_folder() -> Iterator[Path]:
    """One of our own, empty but for its lock. Raises OSError if none can be made."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        _remove_left(folder.parent)
        with (folder / "new").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            (folder / "new").rename(folder / OWNER)
            yield folder


def _remove_left(parent: Path) -> None:
    """Those of ours whose supervisor is gone. What can't be removed stays: it's in nobody's way."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
                continue
            with (folder / OWNER).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
