"""Whether a folder lies on a network file system, where locks may not exclude the processes of other machines."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "dvs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2"}
    | {"orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"}
)
"""As the mount table names them; those in user space by what follows `fuse.`."""

USER_SPACE = frozenset(
    {"blobfuse2", "ceph-fuse", "gcsfuse", "goofys", "juicefs", "mfs", "moosefs", "mountpoint-s3", "rclone", "s3fs"}
    | {"sshfs"}
)


def network_file_system(folder: Path) -> str | None:
    """The kind of network file system that `folder` is on, which need not exist, such as `nfs4`; None on a local one,
    and where there is no mount table (only Linux has one)."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    mounted = {
        Path(_unescaped(fields[1])): _kind(*fields[:3]) for line in lines if len(fields := line.split(" ")) > 2
    }
    whole = folder.resolve()
    kind = next((mounted[place] for place in (whole, *whole.parents) if place in mounted), "")
    known = NETWORK_FILE_SYSTEMS | USER_SPACE if kind.startswith("fuse.") else NETWORK_FILE_SYSTEMS
    return kind if kind.removeprefix("fuse.") in known else None


def _kind(source: str, _: str, kind: str) -> str:
    """Some in user space are only named as what is mounted: `mountpoint-s3` of kind `fuse`, or `mfs#host:9421`."""
    return f"fuse.{source.partition('#')[0]}" if kind == "fuse" else kind


def _unescaped(text: str) -> str:
    """The mount table writes spaces as `\\\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
