"""Which directories are on another machine's disk.

Rule: what SQLite needs (locks that hold, memory that all processes share) a network file system promises and doesn't
keep, so budgets aren't kept on one. Without Linux's list of mounts nothing is known, and nothing is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
# Those that a program serves the kernel calls fuse.NAME.
NETWORK: Final = re.compile(
    "9p|afs|beegfs|ceph|cifs|coda|gfs2|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|pvfs2|smb3|smbfs"
    r"|fuse\.(cephfs|curlftpfs|davfs|gcsfuse|glusterfs|goofys|juicefs|mfs|rclone|s3fs|sshfs)"
).fullmatch


def network_of(directory: Path, mounts: str | None = None) -> str:
    """The kind of the network file system that this directory is on, or would be made on; "": it is on none.

    `mounts` is the text of the list of mounts; None: this machine's, as it is now.
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    where = directory.resolve()
    found, kind = Path("/"), ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        if len(fields := left.split(" ")) < 5 or not right:
            continue
        at = Path(_unescaped(fields[4]))
        # A later line is mounted over an earlier one.
        if where.is_relative_to(at) and (at.is_relative_to(found)):
            found, kind = at, right.split(" ")[0]
    return kind if NETWORK(kind) else ""


def _unescaped(path: str) -> str:
    """The list has spaces, tabs, line ends and backslashes as \\ooo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
