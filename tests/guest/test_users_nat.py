"""An ordinary user's nat: address, name and way out for the guest, and not a trace of root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guest.shell import Shell, page
from lab.netns import UPLINK_ADDRESS, WEB_BODY
from lab.tool import QEMU, netwrap, unhurried

if TYPE_CHECKING:
    from lab.netns import Uplinked
    from lab.user import User

NIC = "nat,model=virtio"
WEB6 = "2001:db8:80::80"
WEB = "http://www.example.test/"


def test_guest_has_lease_names_and_way_out(user: User, uplinked: Uplinked) -> None:
    with (
        Shell(user, "-nic", NIC, name="one") as one,
        Shell(user, "-nic", NIC, name="two") as two,
    ):
        lease = one.lease
        assert lease.domain == "nat.internal"
        assert one.get(WEB) == WEB_BODY
        assert two.get(WEB) == WEB_BODY
        # Each sees the other by its name.
        assert one.get("http://two/") == "two\n"
        assert two.get("http://one.nat.internal/") == "one\n"
        # Nothing of it is on the host.
        links = user.host.run("ip", "-o", "link").stdout
        assert "qn" not in links
        assert "tap" not in links
        assert user.host.run("nft", "list", "ruleset").stdout == ""
        assert user.host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"
        assert user.host.run("ls", "/run/qemu-netwrap", check=False).returncode
        assert "one" in netwrap(user, "ps", check=True).stdout
        joined = netwrap(user, "plan", "--", QEMU, "-nic", NIC, check=True).stdout
        assert "): joined\n" in joined
        assert "network namespace of this user's own" in joined
    netwrap(user, "wait", check=True)
    made = netwrap(user, "plan", "--", QEMU, "-nic", NIC, check=True).stdout
    assert "): made\n" in made
    assert "way out: slirp4netns" in made


def test_hostfwd_leads_from_outside_the_host_and_a_neighbour(
    user: User, uplinked: Uplinked
) -> None:
    led = f"{NIC},hostfwd=tcp::8080-:80"
    with (
        Shell(user, "-nic", led, name="one") as one,
        Shell(user, "-nic", NIC, name="two") as two,
    ):
        one.wait_report("ready")
        for address in ("127.0.0.1", UPLINK_ADDRESS):
            assert page(user.host, f"{address}:8080") == "one\n"
        assert page(uplinked.net, f"{UPLINK_ADDRESS}:8080") == "one\n"
        assert two.get(f"http://{UPLINK_ADDRESS}:8080/") == "one\n"
        taken = netwrap(user, "--", QEMU, "-nic", led)
        assert taken.returncode == 125
        assert "taken by run" in taken.stderr
    netwrap(user, "wait", check=True)
    free = netwrap(user, "--", "true", "-nic", led)
    assert (free.returncode, unhurried(free.stderr)) == (0, "")
    netwrap(user, "wait", check=True)


def test_a_bridge_that_the_host_does_not_have_is_a_segment(user: User) -> None:
    nic = ("-nic", "bridge,br=seg0,model=virtio")
    with (
        Shell(user, *nic, address="192.0.2.11/24") as first,
        Shell(user, *nic, address="192.0.2.12/24") as second,
    ):
        for guest in (first, second):
            guest.wait_report("ready")
        assert first.reached("192.0.2.12") == {"192.0.2.12"}
        assert "seg0" not in user.host.run("ip", "-o", "link").stdout
    netwrap(user, "wait", check=True)


def test_host_only_leads_nowhere_else(user: User) -> None:
    with Shell(user, "-nic", "host-only,model=virtio", name="one") as one:
        assert one.lease.gateway == "-"
        assert one.lease.domain == "host-only.internal"
        one.wait_report("ready")
        assert "one" in netwrap(user, "exec", "host-only", "--", "curl", "-s", "http://one/").stdout
    netwrap(user, "wait", check=True)


def test_ipv6_leads_out_by_slirp4netns(user6: User) -> None:
    """It advertises itself some seconds after its start."""
    with Shell(user6, "-nic", NIC, name="one") as one:
        assert one.ask(f"try 150 wget -qO- http://[{WEB6}]/") == WEB_BODY
    netwrap(user6, "wait", check=True)
