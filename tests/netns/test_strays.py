"""/run/qemu-netwrap removed in mid-life: what is ours is known by its marks, and goes by gc."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from lab import neighbours
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

FORGET = ("rm", "-rf", "/run/qemu-netwrap")
CLOSED = """
table inet theirs { chain in { type filter hook input priority 0; policy drop; }; }
"""


def launched(host: Host, *net: str) -> subprocess.Popen[str]:
    """Start an idle QEMU, and return when its first tap is up."""
    qemu = host.popen(COMMAND, "-q", "--", QEMU, *IDLE, *net, stderr=subprocess.DEVNULL)
    up = ("ip", "link", "show", "up", "dev", f"qn{qemu.pid}-0")
    wait_for(lambda: not host.run(*up, check=False).returncode, "the tap")
    wait_for(lambda: "waiter.py" in " ".join(host.processes().values()), "its keeper, asleep")
    return qemu


def end(host: Host, qemu: subprocess.Popen[str]) -> None:
    """End a QEMU, and wait for its keeper, who finds nothing to release."""
    qemu.kill()
    qemu.wait()
    wait_for(lambda: "waiter.py" not in " ".join(host.processes().values()), "the keeper's end")


def leftovers(host: Host) -> str:
    """Return what doctor says of what is left."""
    shown = netwrap(host, "doctor").stdout.splitlines()
    return next(line for line in shown if " leftovers " in line)


@pytest.mark.parametrize("network", ["nat", "host-only"])
def test_gc_knows_what_is_ours(network: str, uplinked: Uplinked, watch: Watch) -> None:
    """All of it goes; forwarding is off again before the rules that guard it are gone."""
    host = uplinked.host
    host.run("nft", "-f", "-", input=CLOSED)
    host.run("iptables-nft", "-P", "FORWARD", "DROP")
    watch.baseline(host)
    qemu = launched(host, "-nic", network)
    host.run(*FORGET)
    end(host, qemu)
    seen = leftovers(host)
    for what in (f"bridge qn-{network}", "nft chains", "accepts in a firewall", "dnsmasq "):
        assert what in seen
    assert "foreign" not in netwrap(host, "network", "list", check=True).stdout
    refused = netwrap(host, "--", "true", "-nic", network)
    assert refused.returncode == 125
    assert "exists already" not in refused.stderr
    assert "qemu-netwrap gc" in refused.stderr
    said = netwrap(host, "gc", check=True).stdout
    assert f"released: bridge qn-{network}" in said
    assert netwrap(host, "gc", check=True).stdout == "nothing was left\n"


def test_what_living_vms_use_stays(uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    watch.baseline(host)
    qemu = launched(host, "-nic", "nat,hostfwd=tcp::2222-:22")
    # Not the state of links: the kernel's worker sets it a moment later.
    listed = "nft list ruleset; ip -4 rule; ip -br link | awk '{print $1, $3}'; pgrep -x dnsmasq"
    before = host.sh(listed)
    host.run(*FORGET)
    said = netwrap(host, "gc", check=True).stdout
    assert said.startswith("left: bridge qn-nat")
    assert f"used by qn{qemu.pid}-0" in said
    assert f"used by qn{qemu.pid}-0" in leftovers(host)
    assert host.sh(listed) == before
    end(host, qemu)
    netwrap(host, "gc", check=True)


def test_the_others_are_not_touched(uplinked: Uplinked, watch: Watch) -> None:
    """One network lives on, with its state; the other one has lost it."""
    host = uplinked.host
    watch.baseline(host)
    netwrap(host, "network", "up", "nat", check=True)
    netwrap(host, "network", "up", "host-only", check=True)
    host.sh("rm -rf /run/qemu-netwrap/*/networks/qn-host-only")
    listed = "for each in prerouting forward postrouting; do"
    listed += " nft list chain inet qemu_netwrap qn-nat_$each; done;"
    listed += " ip -4 addr show qn-nat | grep inet"
    nat = host.sh(listed)
    assert "released: bridge qn-host-only" in netwrap(host, "gc", check=True).stdout
    assert host.sh(listed) == nat
    assert "host-only" not in host.sh("nft list ruleset; ip link; ip rule; ip -6 rule")
    netwrap(host, "network", "down", "nat", check=True)


def test_firewalld_and_managers(uplinked: Uplinked, watch: Watch) -> None:
    host = uplinked.host
    neighbours.networkd(host)
    watch.baseline(host)
    netwrap(host, "network", "up", "nat", check=True)
    assert "05-qemu-netwrap-qn-nat.network" in host.sh("ls /run/systemd/network")
    host.run(*FORGET)
    netwrap(host, "gc", check=True)
    host.sh("rmdir /run/systemd/network 2>/dev/null || :")


def test_look_alikes_are_not_believed(host: Host, watch: Watch) -> None:
    """Words and names are everybody's to choose: a bridge of our name, a process of our words."""
    netwrap(host, "network", "up", "host-only", check=True)
    base = host.sh("echo /run/qemu-netwrap/*").strip()
    words = f"--conf-file={base}/networks/qn-nat/dnsmasq.conf"
    host.sh("ip link add qn-nat address 52:54:00:00:00:09 type bridge")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    own = "exec -a $0 dnsmasq -k --port=0 --user= --pid-file= --conf-file=/dev/null"
    for script in ("exec -a $0 sleep 1000", own):
        child = host.popen(*nobody, "bash", "-c", script, words, stderr=subprocess.DEVNULL)
        wait_for(
            lambda: host.processes().get(child.pid, "").startswith("--conf-file"),  # noqa: B023
            "it, after nsenter(1)",
        )
    watch.baseline(host)
    assert netwrap(host, "gc", check=True).stdout == "nothing was left\n"
    assert [line for line in host.processes().values() if line.startswith(words)] != []
    assert netwrap(host, "network", "list", check=True).stdout.count("foreign") == 1
