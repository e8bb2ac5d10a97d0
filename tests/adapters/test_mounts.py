"""A directory on a network file system is known by the list of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiflux_grpc.adapters.mounts import network_of

MOUNTS = """\
21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
22 21 0:5 / /home rw,relatime shared:2 master:7 - nfs4 server:/export rw,vers=4.2
23 22 254:2 / /home/me/local rw - xfs /dev/vdb rw
24 21 0:6 / /a\\040b rw - cifs //server/share rw
25 21 0:7 / /data rw - ext4 /dev/vdc rw
26 25 0:8 / /data rw - fuse.sshfs me@there: rw
27 21 0:9 / /over rw - nfs there:/ rw
28 27 0:10 / /over rw - tmpfs tmpfs rw
29 21 0:11 / /mine rw - fuse.bindfs / rw
a line of another kind
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/apiflux", ""),
        ("/home/me/.local/state/apiflux", "nfs4"),
        ("/homes/me", ""),
        ("/home/me/local/state", ""),
        ("/a b/state", "cifs"),
        ("/data/x", "fuse.sshfs"),
        ("/over/x", ""),
        ("/mine", ""),
        ("/home/../var", ""),
    ],
)
def test_the_mount_that_is_nearest_and_newest_tells(directory: str, kind: str) -> None:
    """The directory need not exist yet."""
    assert network_of(Path(directory), MOUNTS) == kind


def test_a_link_is_followed(tmp_path: Path) -> None:
    """What counts is where the files will be."""
    (tmp_path / "link").symlink_to("/home/me")
    assert network_of(tmp_path / "link" / "state", MOUNTS) == "nfs4"


def test_this_machine_has_a_list(tmp_path: Path) -> None:
    """Which a test's own directory passes."""
    assert network_of(tmp_path) == ""
