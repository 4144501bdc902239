"""What to do about errors of the kernel that have one meaning wherever they come up."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n), or ask for fewer ports,"
    " queues or NICs",
    errno.ENFILE: "the host has too many files open: see sysctl fs.file-nr, raise fs.file-max",
    errno.ENOMEM: "the host is short of memory",
    errno.ENOBUFS: "the host is short of memory for its network",
    errno.ENOSPC: "the disk, or /run, is full: make room there",
    errno.EROFS: "what is to be written there is on a file system that can only be read",
    errno.EINVAL: "the kernel refuses that value; -v shows what was being done",
}


def remedy(error: OSError, otherwise: str) -> str:
    """Return the hint for an error; OTHERWISE where its number alone does not tell."""
    return _REMEDIES.get(error.errno or 0, otherwise)
