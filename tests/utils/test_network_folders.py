from __future__ import annotations

from pathlib import Path

import pytest

from tombola.utils import network_folders
from tombola.utils.network_folders import network_file_system


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has folders of several file systems, by a mount table."""
    table = [
        "proc /proc proc rw 0 0",
        "/dev/vda / ext4 rw 0 0",
        f"server:/export {tmp_path}/nfs nfs4 rw,vers=4.2 0 0",
        f"/dev/vdb {tmp_path}/nfs/local xfs rw 0 0",
        f"//server/share {tmp_path}/with\\040space cifs rw 0 0",
        f"me@host: {tmp_path}/ssh fuse.sshfs rw 0 0",
        f"gcsfuse {tmp_path}/google fuse.gcsfuse rw 0 0",
        f"/dev/vdc {tmp_path}/ntfs fuse.ntfs-3g rw 0 0",
        f"a@tcp:/scratch {tmp_path}/scratch lustre rw,flock 0 0",
        f"server:/export {tmp_path}/twice nfs rw 0 0",
        f"/dev/vdd {tmp_path}/twice ext4 rw 0 0",
        f"mountpoint-s3 {tmp_path}/bucket fuse rw 0 0",
        f"mfs#master:9421 {tmp_path}/moose fuse rw 0 0",
        f"ceph-fuse {tmp_path}/ceph fuse.ceph-fuse rw 0 0",
        f"/dev/vde {tmp_path}/fuse fuse rw 0 0",
        f"/dvs {tmp_path}/cray dvs rw 0 0",
        f"share {tmp_path}/plan 9p rw 0 0",
        "nonsense",
    ]
    mounts = tmp_path / "mounts"
    mounts.write_text("\n".join(table))
    monkeypatch.setattr(network_folders, "MOUNTS", mounts)
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        (".", None),
        ("nfs", "nfs4"),
        ("nfs/a/store", "nfs4"),
        ("nfs/local/store", None),
        ("nfsother", None),
        ("with space/store", "cifs"),
        ("ssh", "fuse.sshfs"),
        ("google", "fuse.gcsfuse"),
        ("ntfs", None),
        ("bucket", "fuse.mountpoint-s3"),
        ("moose", "fuse.mfs"),
        ("ceph", "fuse.ceph-fuse"),
        ("fuse", None),
        ("cray", "dvs"),
        ("plan", "9p"),
        ("scratch/../scratch/x", "lustre"),
        ("twice", None),  # the later mount covers the earlier one
    ],
)
def test_the_file_system_of_a_folder_is_found(place: Path, folder: str, kind: str | None) -> None:
    assert network_file_system(place / folder) == kind


def test_a_link_leads_to_a_network_file_system(place: Path) -> None:
    (place / "link").symlink_to(place / "nfs")
    assert network_file_system(place / "link/store") == "nfs4"


def test_without_a_mount_table_nothing_is_known(place: Path) -> None:
    (place / "mounts").unlink()
    assert network_file_system(place / "nfs") is None


def test_this_machine_has_a_mount_table_that_can_be_read(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None or network_folders.MOUNTS.exists()
