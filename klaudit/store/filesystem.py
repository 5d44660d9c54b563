"""Whether a file lies on a network file system, as Linux tells of its mounts (proc_pid_mountinfo(5))."""

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
"""Mounts of this process; elsewhere than on Linux there is no such file, and nothing is known."""

NETWORK_TYPES = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre", "gpfs", "mmfs", "beegfs", "fhgfs"),
        *("glusterfs", "pvfs2", "orangefs", "panfs", "quobyte", "weka", "wekafs", "moosefs", "gfs2", "ocfs2", "acfs", "curvefs", "juicefs"),
        # Shared with a host or another guest: SQLite's shared memory does not reach across.
        *("9p", "virtiofs", "vboxsf", "prl_fs", "hgfs", "drvfs"),
    }
)
"""File systems that several machines may have mounted."""

LOCAL_FUSE = frozenset(
    {
        *("fuse-overlayfs", "bindfs", "mergerfs", "unionfs", "ntfs", "ntfs-3g", "exfat", "encfs", "gocryptfs", "cryfs", "securefs"),
        *("lxcfs", "portal", "snapfuse", "squashfuse", "archivemount", "fuseiso", "ext2", "apfs", "zfs", "btrfs"),
    }
)
"""File systems in user space that one machine has for itself; any other may be a network behind a driver."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    point: Path
    type: str
    """Such as `ext4`, `nfs4` or `fuse.sshfs`."""
    source: str
    options: tuple[str, ...]
    """Of the file system as a whole."""


def find_network_filesystem(path: Path, *, mountinfo: Path | None = None) -> str | None:
    """Type of the network file system that a file lies on, or would; None for a local one, and where nothing is known.

    Args:
        path: of the file; links in it are followed.
        mountinfo: the file to read, by default `MOUNTINFO`.
    """
    try:
        # As bytes that need not be text: a mount point may be named in any encoding.
        text = (mountinfo or MOUNTINFO).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    mounts = [mount for line in text.splitlines() if (mount := read_mount(line)) is not None]
    return _find_network_type(path.resolve(), mounts)


def read_mount(line: str) -> Mount | None:
    """A line of mountinfo: id, parent, device, root, mount point, options, any number of fields, a dash, type, source, options."""
    before, dash, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or len(rest) < 2:
        return None
    return Mount(Path(_unescape(fields[4])), rest[0], _unescape(rest[1]), tuple(rest[2].split(",")) if len(rest) > 2 else ())


def _find_network_type(path: Path, mounts: list[Mount]) -> str | None:
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    if not above:
        return None
    # Of several mounts on one point the last hides the others.
    mount = max(enumerate(above), key=lambda one: (len(one[1].point.parts), one[0]))[1]
    if _is_network(mount.type):
        return mount.type
    if mount.type == "overlay":
        upper = next((_unescape(option.partition("=")[2]) for option in mount.options if option.startswith("upperdir=")), None)
        below = [one for one in mounts if one is not mount and one.type != "overlay"]
        kind = None if upper is None else _find_network_type(Path(upper), below)
        return None if kind is None else f"overlay on {kind}"
    return None


def _is_network(kind: str) -> bool:
    family, _, driver = kind.partition(".")
    if family == "fuse":
        return driver not in LOCAL_FUSE
    return kind in NETWORK_TYPES


def _unescape(field: str) -> str:
    r"""Octal escapes such as \040 for a space, undone."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
