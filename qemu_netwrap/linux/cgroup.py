"""Control groups, version 2: which processes are ended together.

systemd ends all processes of a unit's group with the unit (systemd.kill(5), KillMode=).
"""

from __future__ import annotations

from qemu_netwrap.linux import proc

# Where systemd mounts version 2: alone, and beside version 1 (cgroups(7)).
_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def leave(pid: int) -> None:
    """Move process PID from this process's group, if it is in it, to that of the first process.

    If that is not allowed, as in many containers, the process stays where it is.
    """
    ours, its, inits = (_group(who) for who in ("self", str(pid), "1"))
    if its != ours or ours == inits or inits.startswith("/.."):
        return
    for mount in _MOUNTS:
        try:
            with open(f"{mount}{inits}/cgroup.procs", "w", encoding="utf-8") as file:
                file.write(str(pid))
        except OSError:
            continue


def _group(process: str) -> str:
    """Return a process's group, as a path below the mount; empty if it is not known."""
    lines = proc.read(f"{process}/cgroup").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")
