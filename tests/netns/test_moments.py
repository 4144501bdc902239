"""What happens on the host in the very moment in which a network is made, or taken down."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.netns import wait_for
from lab.tool import COMMAND, netwrap
from qemu_netwrap.linux.holders import holders_of_tap

if TYPE_CHECKING:
    import subprocess

    from lab.netns import Host, Uplinked

# Its first dnsmasq finds, while it looks at the interfaces, that one of them has gone.
SOME_TAP_GOES: Final = """\
#!/bin/sh
if mkdir {folder}/tried 2>/dev/null; then
    exec strace -qq -f -o {folder}/traced -e trace=ioctl -e inject=ioctl:error=ENODEV:when=2 \
        /usr/sbin/dnsmasq "$@"
fi
exec /usr/sbin/dnsmasq "$@"
"""
# The device of another container goes when the network's rules come.
SOME_DEVICE_GOES: Final = """\
#!/bin/sh
ip link delete passing 2>/dev/null
exec /usr/sbin/nft "$@"
"""
# It writes down what it has inherited.
NFT_THAT_TELLS: Final = """\
#!/bin/sh
readlink /proc/self/fd/* >>{folder}/inherited
exec /usr/sbin/nft "$@"
"""
STAND_IN: Final = "#!/bin/sh\nexec sleep infinity\n"  # for QEMU, its words ignored
# Told to, it is as a QEMU for a moment that is killed: its lock is free, its tap not yet gone.
LOCK_FREE_TAP_THERE: Final = f"""\
#!{sys.executable}
import os, time
while not os.path.exists(f"{{__file__}}.now"):
    time.sleep(0.01)
for link in os.scandir("/proc/self/fd"):
    if os.path.realpath(link.path).endswith("/lock"):
        os.close(int(link.name))
os.execvp("sleep", ("sleep", "infinity"))
"""


def program(path: Path, text: str) -> str:
    """Write a program; return its path."""
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    return str(path)


def started(host: Host, *words: str) -> subprocess.Popen[str]:
    """Start a run; return when its keeper does nothing but wait."""
    child = host.popen(COMMAND, "-q", "--", *words)
    wait_for(lambda: bool(keepers(host, child)), "its keeper")
    return child


def keepers(host: Host, child: subprocess.Popen[str]) -> list[int]:
    """Return the keeper of a run, once it does nothing but wait."""
    folder = f"/runs/{child.pid} "
    return [pid for pid, line in host.processes().items() if folder in line]


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()


def test_an_interface_that_goes_while_dnsmasq_looks_at_it(host: Host, tmp_path: Path) -> None:
    program(tmp_path / "dnsmasq", SOME_TAP_GOES.format(folder=tmp_path))
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    netwrap(host, "-q", "--", "true", "-nic", "host-only", env=path, check=True)
    netwrap(host, "wait", check=True)
    assert "INJECTED" in (tmp_path / "traced").read_text("utf-8")


def test_a_device_that_goes_while_nat_is_made(uplinked6: Uplinked, tmp_path: Path) -> None:
    host = uplinked6.host
    host.sh("""
        ip link add passing type bridge
        ip address add 192.0.2.1/24 dev passing
        ip address add 2001:db8:77::1/64 dev passing
        ip link set passing up
    """)
    program(tmp_path / "nft", SOME_DEVICE_GOES)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    netwrap(host, "-q", "--", "true", "-nic", "nat", env=path, check=True)
    netwrap(host, "wait", check=True)
    assert not is_there(host, "passing")


def test_a_descriptor_without_a_tap_is_no_taps_holder() -> None:
    # A tap that has gone has no name: whoever has such a descriptor open was taken for its QEMU.
    with open("/dev/net/tun", "rb"):
        assert [*holders_of_tap("")] == []


def test_a_network_goes_although_a_member_is_just_dying(host: Host, tmp_path: Path) -> None:
    first = started(host, program(tmp_path / "vm", STAND_IN), "-nic", "bridge,br=br-lab")
    dying = program(tmp_path / "dying", LOCK_FREE_TAP_THERE)
    second = started(host, dying, "-nic", "bridge,br=br-lab")
    (keeper,) = keepers(host, second)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: keeper not in host.processes(), "its keeper's end")
    Path(f"{dying}.now").touch()
    wait_for(lambda: host.processes().get(second.pid) == "sleep infinity", "its lock's end")
    end(first)
    wait_for(lambda: not is_there(host, "br-lab"), "the bridge to go")
    assert is_there(host, f"qn{second.pid}-0")
    end(second)
    netwrap(host, "gc", check=True)


def test_what_a_keeper_starts_does_not_have_its_locks(host: Host, tmp_path: Path) -> None:
    # Else a run whose keeper is killed while its nft runs is not found to be dead.
    program(tmp_path / "nft", NFT_THAT_TELLS.format(folder=tmp_path))
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    netwrap(host, "-q", "--", "true", "-nic", "host-only", env=path, check=True)
    netwrap(host, "wait", check=True)
    inherited = (tmp_path / "inherited").read_text("utf-8").split()
    assert sum(name.endswith("/locks/-nft") for name in inherited) == 2  # adding, and removing
    assert not any("/runs/" in name for name in inherited)


def is_there(host: Host, name: str) -> bool:
    """Whether an interface is there."""
    return host.run("ip", "link", "show", "dev", name, check=False).returncode == 0


def test_dnsmasq_is_silent_before_its_bridge_goes(host: Host, tmp_path: Path) -> None:
    # Else what it is just about to say goes by another interface: router advertisements, say.
    child = started(host, program(tmp_path / "vm", STAND_IN), "-nic", "nat")
    (server,) = (pid for pid, line in host.processes().items() if line.startswith("dnsmasq"))
    os.kill(server, signal.SIGSTOP)
    end(child)
    wait_for(lambda: not is_there(host, "qn-nat"), "the bridge to go")
    # SIGTERM would have it sleep on; SIGKILL wakes it, and lets it do nothing.
    assert state_of(server) != "T"


def state_of(pid: int) -> str:
    """Return the state of a process (proc(5)); empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
