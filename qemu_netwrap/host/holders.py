"""Who holds something that is taken: looked up when a launch has failed on it."""

from __future__ import annotations

from qemu_netwrap.host import files


def holder_of_tap(name: str) -> str:
    """Return the process that has tap NAME open, as `PROGRAM (pid N)`; empty if none is seen.

    The kernel shows the interface's name in the descriptor's fdinfo (drivers/net/tun.c,
    `tun_chr_show_fdinfo`).
    """
    for pid in filter(str.isdigit, files.listdir("/proc")):
        try:
            for fd in files.listdir(f"/proc/{pid}/fdinfo"):
                if f"iff:\t{name}\n" in files.read(f"/proc/{pid}/fdinfo/{fd}"):
                    return f"{files.read(f'/proc/{pid}/comm').strip()} (pid {pid})"
        except OSError:
            continue
    return ""
