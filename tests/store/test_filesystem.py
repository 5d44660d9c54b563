import contextlib
import sqlite3
from pathlib import Path

import pytest

from klaudit.errors import NetworkFilesystem
from klaudit.store import open_store
from klaudit.store.filesystem import find_network_filesystem
from tests.store.examples import make_run

LOCAL = """\
24 30 0:22 / /proc rw,nosuid shared:13 - proc proc rw
30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
31 30 0:26 / /tmp rw shared:2 - tmpfs tmpfs rw
"""

MOUNTS = {
    "nfs": ("nfs", "server:/export", "rw,vers=3"),
    "nfs4": ("nfs4", "server:/export", "rw,vers=4.2"),
    "cifs": ("cifs", "//server/share", "rw"),
    "smb3": ("smb3", "//server/share", "rw"),
    "lustre": ("lustre", "10.0.0.1@tcp:/scratch", "rw,flock"),
    "gpfs": ("gpfs", "gpfs0", "rw"),
    "beegfs": ("beegfs", "beegfs_nodev", "rw"),
    "ceph": ("ceph", "10.0.0.1:6789:/", "rw"),
    "9p": ("9p", "host", "rw,trans=virtio"),
    "virtiofs": ("virtiofs", "share", "rw"),
    "glusterfs": ("fuse.glusterfs", "server:/volume", "rw"),
    "sshfs": ("fuse.sshfs", "host:/home", "rw"),
    "s3fs": ("fuse.s3fs", "bucket", "rw"),
    "unknown fuse": ("fuse", "something", "rw"),
}
LOCAL_MOUNTS = {
    "ext4": ("ext4", "/dev/sdb1", "rw"),
    "xfs": ("xfs", "/dev/sdb1", "rw"),
    "tmpfs": ("tmpfs", "tmpfs", "rw"),
    "ntfs by fuse": ("fuseblk", "/dev/sdb1", "rw"),
    "a local fuse": ("fuse.fuse-overlayfs", "fuse-overlayfs", "rw"),
    "overlay on a local disk": ("overlay", "overlay", "rw,lowerdir=/var/lower,upperdir=/var/upper,workdir=/var/work"),
}


def write_mounts(path: Path, *lines: str) -> Path:
    path.write_text(LOCAL + "".join(f"{line}\n" for line in lines))
    return path


def describe_mount(point: str, mount: tuple[str, str, str]) -> str:
    kind, source, options = mount
    return f"77 30 0:55 / {point} rw,relatime shared:9 master:3 - {kind} {source} {options}"


@pytest.mark.parametrize("name", MOUNTS)
def test_a_network_file_system_is_found_at_and_below_its_mount_point(name: str, tmp_path: Path) -> None:
    mountinfo = write_mounts(tmp_path / "mountinfo", describe_mount("/mnt/data", MOUNTS[name]))
    assert find_network_filesystem(Path("/mnt/data/deep/klaudit.db"), mountinfo=mountinfo) == MOUNTS[name][0]
    assert find_network_filesystem(Path("/mnt/data2/klaudit.db"), mountinfo=mountinfo) is None
    assert find_network_filesystem(Path("/mnt/klaudit.db"), mountinfo=mountinfo) is None


@pytest.mark.parametrize("name", LOCAL_MOUNTS)
def test_a_local_file_system_is_none(name: str, tmp_path: Path) -> None:
    mountinfo = write_mounts(tmp_path / "mountinfo", describe_mount("/mnt/data", LOCAL_MOUNTS[name]))
    assert find_network_filesystem(Path("/mnt/data/klaudit.db"), mountinfo=mountinfo) is None


def test_of_nested_mounts_the_innermost_counts_and_of_stacked_ones_the_last(tmp_path: Path) -> None:
    disk, network = LOCAL_MOUNTS["ext4"], MOUNTS["nfs4"]
    nested = write_mounts(tmp_path / "nested", describe_mount("/home", network), describe_mount("/home/ada/fast", disk))
    assert find_network_filesystem(Path("/home/ada/klaudit.db"), mountinfo=nested) == "nfs4"
    assert find_network_filesystem(Path("/home/ada/fast/klaudit.db"), mountinfo=nested) is None
    stacked = write_mounts(tmp_path / "stacked", describe_mount("/mnt", network), describe_mount("/mnt", disk))
    assert find_network_filesystem(Path("/mnt/klaudit.db"), mountinfo=stacked) is None


def test_a_mount_point_with_spaces_is_read(tmp_path: Path) -> None:
    mountinfo = write_mounts(tmp_path / "mountinfo", describe_mount(r"/mnt/my\040data\134x", MOUNTS["cifs"]))
    assert find_network_filesystem(Path("/mnt/my data\\x/klaudit.db"), mountinfo=mountinfo) == "cifs"


def test_an_overlay_is_what_its_upper_directory_lies_on(tmp_path: Path) -> None:
    overlay = ("overlay", "overlay", "rw,lowerdir=/var/lower,upperdir=/net/upper,workdir=/net/work")
    mountinfo = write_mounts(tmp_path / "mountinfo", describe_mount("/net", MOUNTS["nfs"]), describe_mount("/merged", overlay))
    assert find_network_filesystem(Path("/merged/klaudit.db"), mountinfo=mountinfo) == "overlay on nfs"


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "network")
    mountinfo = write_mounts(tmp_path / "mountinfo", describe_mount(str(tmp_path / "network"), MOUNTS["nfs"]))
    assert find_network_filesystem(tmp_path / "link" / "klaudit.db", mountinfo=mountinfo) == "nfs"


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 3 4\n - \n", "24 30 0:22 / /mnt rw - \n"])
def test_a_file_that_says_nothing_tells_nothing(text: str, tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(text)
    assert find_network_filesystem(Path("/mnt/klaudit.db"), mountinfo=mountinfo) is None
    assert find_network_filesystem(Path("/mnt/klaudit.db"), mountinfo=tmp_path / "none") is None


@pytest.fixture
def network_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that mountinfo says lies on NFS."""
    directory = tmp_path / "network"
    directory.mkdir()
    monkeypatch.setattr(
        "klaudit.store.filesystem.MOUNTINFO", write_mounts(tmp_path / "mountinfo", describe_mount(str(directory), MOUNTS["nfs4"]))
    )
    return directory


def read_journal_mode(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def test_a_store_on_a_network_gets_no_write_ahead_log_and_says_what_to_do(network_directory: Path) -> None:
    path = network_directory / "klaudit.db"
    with open_store(f"sqlite:///{path}", create=True) as store:
        store.runs.add(make_run())
        (warning,) = store.warnings
        assert f"{path} lies on a network file system (nfs4)" in warning
        assert "use PostgreSQL (postgresql://user@host/klaudit)" in warning
    assert read_journal_mode(path) == "delete"
    with open_store(f"sqlite:///{path}", read_only=True) as store:
        assert store.warnings == ()
        assert store.runs.get("id-1") == make_run()


def test_a_store_on_a_local_disk_has_no_warning(store_file: Path) -> None:
    with open_store(f"sqlite:///{store_file}") as store:
        assert store.warnings == ()
    assert read_journal_mode(store_file) == "wal"


def test_a_write_ahead_log_that_came_along_is_folded_in(network_directory: Path, store_file: Path) -> None:
    path = store_file.rename(network_directory / "klaudit.db")
    assert read_journal_mode(path) == "wal"
    with open_store(f"sqlite:///{path}") as store:
        store.runs.add(make_run())
    assert read_journal_mode(path) == "delete"


def test_a_write_ahead_log_that_somebody_has_open_is_refused(network_directory: Path, store_file: Path) -> None:
    path = store_file.rename(network_directory / "klaudit.db")
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM runs").fetchall()
        with pytest.raises(NetworkFilesystem, match=r"\(nfs4\).*End whatever else has the file open.*PostgreSQL") as caught:
            open_store(f"sqlite:///{path}", busy_timeout_s=0.05)
    assert caught.value.exit_code == 3
    assert read_journal_mode(path) == "wal"
