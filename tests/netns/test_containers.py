"""In a container: /proc/sys is read-only, or there is but one user."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from guest.shell import reached
from lab.netns import Host
from lab.pumped import guest_of
from lab.tool import COMMAND, netwrap
from netns.test_guest_to_host import ADVERTISEMENTS, BRIDGES, attacker, learned, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.fixtures import Watch
    from lab.netns import Uplinked

WEB: Final = "198.51.100.80"
WEB6: Final = "2001:db8:80::80"
_READ_ONLY: Final = """
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
"""
# Who has root's id alone, in namespaces of their own.
ALONE: Final = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--")


@pytest.fixture
def guest(uplinked6: Uplinked) -> Iterator[Host]:
    with Host("guest") as machine:
        yield machine


def leased(guest: Host) -> tuple[str, str]:
    """Return the address and the router that a guest gets by DHCP; it has them then."""
    guest.write("/run/got", "#!/bin/sh\n[ $1 != bound ] || echo $ip $router\n", mode=0o755)
    ask = ("busybox", "udhcpc", *"-f -q -n -t 30 -T 1 -i eth0 -s /run/got".split())
    address, *router = guest.run(*ask).stdout.split()
    guest.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    if router:
        guest.run("ip", "route", "add", "default", "via", *router)
    return address, f"{address.rpartition('.')[0]}.1"


def network(host: Host) -> dict[str, str]:
    found: list[dict[str, str]] = json.loads(netwrap(host, "ps", "--json").stdout)["networks"]
    return found[0]


def line(host: Host, what: str, *before: str) -> dict[str, str]:
    """Return what doctor says of something."""
    told = json.loads(host.run(*before, COMMAND, "doctor", "--json", check=False).stdout)
    return next(each for each in told["lines"] if each["what"] == what)


class TestReadOnlySettings:
    """The kernel takes IPv4's by netlink; IPv6 is done without where it cannot be switched on."""

    @pytest.mark.parametrize("word", ["nat", "host-only"])
    def test_networks_start(
        self, uplinked6: Uplinked, guest: Host, watch: Watch, tmp_path: Path, word: str
    ) -> None:
        host = uplinked6.host
        host.run("sh", "-euc", _READ_ONLY)
        watch.baseline(host)
        with guest_of(host, guest, tmp_path, word):
            _, gateway = leased(guest)
            assert reached(guest, gateway, WEB) == ({gateway, WEB} if word == "nat" else {gateway})
            assert bool(network(host)["address6"]) == (word == "host-only")
        assert host.sysctl("net.ipv4.conf.eth0.forwarding") == "0"

    def test_ipv6_of_a_router(
        self, uplinked6: Uplinked, guest: Host, watch: Watch, tmp_path: Path
    ) -> None:
        """What has the right value need not be written."""
        host = uplinked6.host
        for key in ("ipv4.conf.all", "ipv6.conf.all"):
            host.set_sysctl(f"net.{key}.forwarding", 1)
        host.run("sh", "-euc", _READ_ONLY)
        watch.baseline(host)
        with guest_of(host, guest, tmp_path, "nat"):
            leased(guest)
            assert network(host)["address6"]
            assert reached(guest, WEB) == {WEB}

    def test_a_host_without_ipv6(self, uplinked: Uplinked, watch: Watch, tmp_path: Path) -> None:
        host = uplinked.host
        host.set_sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        host.run("sh", "-euc", _READ_ONLY)
        watch.baseline(host)
        for word in ("nat", "host-only", "tap,br=br7"):
            with Host("guest") as guest, guest_of(host, guest, tmp_path, word):
                assert word.startswith("tap") or leased(guest)

    @pytest.mark.parametrize("word", BRIDGES)
    def test_a_guest_is_no_router_of_the_hosts(
        self, uplinked6: Uplinked, guest: Host, watch: Watch, tmp_path: Path, word: str
    ) -> None:
        """Although accept_ra cannot be switched off."""
        host = uplinked6.host
        host.run("sh", "-euc", _READ_ONLY)
        watch.baseline(host)
        with attacker(host, guest, tmp_path, word) as own:
            assert host.sysctl(f"net.ipv6.conf.{BRIDGES[word]}.accept_ra") == "1"
            send(host, guest, own, *ADVERTISEMENTS.values())
            assert learned(host) == ""

    def test_said(self, uplinked6: Uplinked, watch: Watch) -> None:
        host = uplinked6.host
        host.run("sh", "-euc", _READ_ONLY)
        watch.baseline(host)
        plan = netwrap(host, "plan", "--", "qemu-system-x86_64", "-nic", "nat", check=True).stdout
        assert "# no IPv6: /proc/sys is read-only" in plan
        told = line(host, "forwarding")
        assert told["state"] == "warning"
        assert "IPv4's is switched on by netlink, IPv6's not: nat has none" in told["found"]
        assert told["remedy"]


class TestOneUser:
    """`unshare -Ur`: dnsmasq can become nobody else there."""

    @pytest.mark.parametrize("word", ["nat", "host-only"])
    def test_networks_start(self, host: Host, tmp_path: Path, word: str) -> None:
        vm = tmp_path / "vm"
        vm.write_text(
            '#!/bin/sh\ngrep -E "^(Uid|Gid|Name)" /proc/[0-9]*/status >"$TOLD"\n', "utf-8"
        )
        vm.chmod(0o755)
        script = (
            "mount -t tmpfs run /run; ip link set lo up;"
            f" {COMMAND} -- {vm} -nic {word}; {COMMAND} wait; ! ip link show qn-{word}"
        )
        told = tmp_path / "told"
        host.run(*ALONE, "sh", "-euc", script, env={"TOLD": str(told)})
        assert "dnsmasq" in told.read_text("utf-8")

    def test_said(self, host: Host) -> None:
        script = f"mount -t tmpfs run /run; {COMMAND} doctor --json"
        done = host.run(*ALONE, "sh", "-c", script, check=False)
        (told,) = (each for each in json.loads(done.stdout)["lines"] if each["what"] == "privilege")
        assert told["state"] == "ok"
        assert told["found"] == "root, alone in its user namespace: dnsmasq runs as root of it"
        assert "alone" not in line(host, "privilege")["found"]
