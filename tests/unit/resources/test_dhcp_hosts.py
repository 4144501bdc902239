"""What several runs write for a network's dnsmasq at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from lab.netns import wait_for
from qemu_netwrap.linux import files
from qemu_netwrap.resources.base import Context
from qemu_netwrap.resources.dhcp_hosts import DhcpHost
from qemu_netwrap.state import StateDir

WRITER: Final = """
import sys
from qemu_netwrap.resources.base import Context
from qemu_netwrap.resources.dhcp_hosts import AnyClient
from qemu_netwrap.state import StateDir
[*AnyClient("qn-nat", "tap0").acquire(Context(StateDir(sys.argv[1])))]
"""


def is_waited_for(path: str) -> bool:
    """Whether a process waits for the lock of a file (proc_locks(5))."""
    number = f":{Path(path).stat().st_ino}"
    lines = map(str.split, Path("/proc/locks").read_text("ascii").splitlines())
    return any(words[1] == "->" and words[-3].endswith(number) for words in lines)


def test_a_file_being_written_is_not_taken_for_what_a_crash_left(tmp_path: Path) -> None:
    """Who ends removes all scratch files, holding the lock: so who writes one holds it too."""
    state = StateDir(str(tmp_path))
    hosts = Path(state.network("qn-nat"), "hosts")
    hosts.mkdir(parents=True)
    with files.Lock(state.macs_lock):
        writer = subprocess.Popen((sys.executable, "-c", WRITER, state.base))
        wait_for(lambda: is_waited_for(state.macs_lock) or writer.poll() is not None, "the writer")
        assert [*hosts.iterdir()] == []
    assert writer.wait() == 0
    work = Context(state)
    ended = DhcpHost("qn-nat", "other", "52:54:00:00:00:01", "")
    assert [*ended.release(work, {})] == [None]
    assert [file.read_text("ascii") for file in hosts.iterdir()] == ["*:*:*:*:*:*\n"]
    work.rtnl.close()
