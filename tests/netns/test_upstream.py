"""The name servers that guests' questions go to, when the host's change while a network is up."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

import pytest

from lab.netns import GATEWAY, WEB_ADDRESS, WEB_NAME, wait_for
from lab.tool import netwrap

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked

OTHER: Final = "198.51.100.53"
OTHER_NAME: Final = "known.to.the.other.test"
FIRST: Final = f"nameserver {GATEWAY}\n"
SECOND: Final = f"nameserver {OTHER}\n"
STUB: Final = "nameserver 127.0.0.53\n"
REAL: Final = "/run/systemd/resolve/resolv.conf"


@pytest.fixture
def two_servers(uplinked: Uplinked) -> Host:
    """Return a machine in whose internet another name server is, which knows another name."""
    net = uplinked.net
    net.run("ip", "address", "add", f"{OTHER}/32", "dev", "lo")
    net.popen(
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
        *("--no-resolv", "--no-hosts", "--bind-interfaces", f"--listen-address={OTHER}"),
        f"--host-record={OTHER_NAME},{WEB_ADDRESS}",
    )
    wait_for(lambda: "356433C6:0035" in net.proc_net("udp"), "the other name server")
    return uplinked.host


@contextlib.contextmanager
def nat(host: Host) -> Iterator[None]:
    """Have the nat network up."""
    netwrap(host, "network", "up", "nat", check=True)
    try:
        yield
    finally:
        netwrap(host, "network", "down", "nat", check=True)


def join(host: Host) -> None:
    """Have a run join the network, and leave it."""
    netwrap(host, "-q", "--", "true", "-nic", "nat", check=True)
    netwrap(host, "wait", check=True)


def knows(host: Host, name: str) -> bool:
    """Tell whether the network's name server knows NAME."""
    (network,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    gateway = network["address"].partition("/")[0]
    done = host.run("busybox", "nslookup", "-type=a", name, gateway, check=False)
    return WEB_ADDRESS in done.stdout


def wait_other(host: Host) -> None:
    """Wait until the other name server is asked, and only that."""
    wait_for(lambda: knows(host, OTHER_NAME), "an answer of the other name server")
    assert not knows(host, WEB_NAME)


def is_by_resolved(host: Host) -> None:
    """Have a machine look like one of systemd-resolved's: a link, to a stub."""
    host.write("/run/systemd/resolve/stub-resolv.conf", STUB)
    host.write(REAL, FIRST)
    turn(host, "/run/systemd/resolve/stub-resolv.conf")


def turn(host: Host, target: str) -> None:
    """Make /etc/resolv.conf a link, in one step as programs do."""
    script = 'ln -s "$1" /etc/resolv.conf.new; mv -T /etc/resolv.conf.new /etc/resolv.conf'
    host.run("sh", "-euc", script, "turn", target)


REWRITTEN: Final = 'printf "%s" "$1" >/etc/resolv.conf'
REPLACED: Final = 'printf "%s" "$1" >/etc/new; mv /etc/new /etc/resolv.conf'


@pytest.mark.parametrize("script", [REWRITTEN, REPLACED], ids=["rewritten", "replaced"])
def test_the_file_changes(two_servers: Host, watch: Watch, script: str) -> None:
    host = two_servers
    with nat(host):
        assert knows(host, WEB_NAME)
        host.run("sh", "-euc", script, "change", SECOND)
        wait_other(host)
    host.write("/etc/resolv.conf", FIRST)
    watch.baseline(host)


def test_what_is_behind_the_stub_changes(two_servers: Host, watch: Watch) -> None:
    host = two_servers
    is_by_resolved(host)
    with nat(host):
        assert knows(host, WEB_NAME)
        host.run("sh", "-euc", f'printf "%s" "$1" >{REAL}.new; mv {REAL}.new {REAL}', "", SECOND)
        wait_other(host)
    clean(host, watch)


def test_the_link_is_turned_and_an_interface_comes(two_servers: Host, watch: Watch) -> None:
    """As when a VPN comes up, and goes again."""
    host = two_servers
    host.write("/run/one/resolv.conf", FIRST)
    host.write("/run/two/resolv.conf", SECOND)
    turn(host, "/run/one/resolv.conf")
    with nat(host):
        assert knows(host, WEB_NAME)
        turn(host, "/run/two/resolv.conf")
        host.run("ip", "link", "add", "vpn0", "up", "type", "bridge")
        host.run("ip", "address", "add", "192.0.2.2/24", "dev", "vpn0")
        wait_other(host)
    host.run("ip", "link", "del", "vpn0")
    clean(host, watch)


def test_who_joins_finds_a_turned_link(two_servers: Host, watch: Watch) -> None:
    host = two_servers
    host.write("/run/one/resolv.conf", FIRST)
    host.write("/run/two/resolv.conf", SECOND)
    turn(host, "/run/one/resolv.conf")
    with nat(host):
        assert knows(host, WEB_NAME)
        turn(host, "/run/two/resolv.conf")
        join(host)
        wait_other(host)
        # And what is now behind it is followed.
        host.run("sh", "-euc", 'printf "%s" "$1" >/run/two/resolv.conf', "", FIRST)
        wait_for(lambda: knows(host, WEB_NAME), "an answer of the first name server")
    clean(host, watch)


def test_who_joins_finds_another_resolver(two_servers: Host, watch: Watch) -> None:
    """systemd-resolved is given up for a plain file."""
    host = two_servers
    is_by_resolved(host)
    with nat(host):
        assert knows(host, WEB_NAME)
        host.run("sh", "-euc", REPLACED, "", SECOND)
        before = server(host)
        join(host)
        wait_other(host)
        assert server(host) != before
        before = server(host)
        join(host)
        assert server(host) == before
    clean(host, watch)


def test_a_link_that_leads_nowhere(two_servers: Host, watch: Watch) -> None:
    host = two_servers
    turn(host, "/run/nowhere/resolv.conf")
    with nat(host):
        assert not knows(host, WEB_NAME)
        host.run("sh", "-euc", REPLACED, "", FIRST)
        join(host)
        assert knows(host, WEB_NAME)
    clean(host, watch)


def server(host: Host) -> int:
    """Return the process of the network's name server."""
    (network,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    pid: int = network["dnsmasq"]
    return pid


def clean(host: Host, watch: Watch) -> None:
    """Take the machine's own files, as they are now, for what they have to be."""
    host.run("sh", "-c", "rm -rf /etc/resolv.conf /run/one /run/two /run/systemd")
    host.written.clear()
    watch.baseline(host)


SPLIT_NAME: Final = "host.behind.the.vpn.test"


def stub(host: Host, address: str, *options: str) -> subprocess.Popen[str]:
    """Start a name server on the host alone, which knows more than the servers behind it."""
    words = ("--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=")
    child = host.popen(
        *("dnsmasq", *words, "--no-hosts", "--no-resolv", "--bind-interfaces"),
        *(f"--listen-address={address}", *(options or (f"--server={GATEWAY}",))),
        f"--host-record={SPLIT_NAME},{WEB_ADDRESS}",
    )
    host.wait_listening("udp6" if ":" in address else "udp", 53)
    return child


@pytest.mark.parametrize("address", ["127.0.0.53", "127.0.0.1", "::1"])
def test_a_stub_on_the_host_is_asked(two_servers: Host, watch: Watch, address: str) -> None:
    """As of systemd-resolved, which knows a VPN's names, or unbound: whatever it knows counts."""
    host = two_servers
    is_by_resolved(host)
    host.write("/etc/resolv.conf", f"nameserver {address}\n")
    stub(host, address)
    watch.baseline(host)
    with nat(host):
        assert knows(host, SPLIT_NAME)
        assert knows(host, WEB_NAME)


def test_servers_are_asked_in_the_hosts_order(two_servers: Host, watch: Watch) -> None:
    """The second says of every name of the first that there is none, and may be faster."""
    host = two_servers
    host.write("/etc/resolv.conf", f"nameserver 127.0.0.1\nnameserver {OTHER}\n")
    stub(host, "127.0.0.1")
    watch.baseline(host)
    with nat(host):
        assert all(knows(host, SPLIT_NAME) for _ in range(30))


def test_a_stub_out_of_reach(two_servers: Host, watch: Watch) -> None:
    """As in another network namespace: the next server is asked, at once."""
    host = two_servers
    host.write("/etc/resolv.conf", f"nameserver 127.0.0.1\nnameserver {GATEWAY}\n")
    with nat(host):
        assert knows(host, WEB_NAME)
        assert "strict-order" not in host.sh("cat /run/qemu-netwrap/*/networks/*/dnsmasq.conf")
    watch.baseline(host)


def test_a_stub_that_comes_and_goes(two_servers: Host, watch: Watch) -> None:
    """Who joins finds it."""
    host = two_servers
    is_by_resolved(host)
    with nat(host):
        assert not knows(host, SPLIT_NAME)
        assert knows(host, WEB_NAME)
        child = stub(host, "127.0.0.53")
        join(host)
        assert knows(host, SPLIT_NAME)
        child.kill()
        child.wait()
        join(host)
        assert not knows(host, SPLIT_NAME)
        assert knows(host, WEB_NAME)
    clean(host, watch)


def test_a_stub_that_asks_our_server(two_servers: Host, watch: Watch) -> None:
    """A question does not go round."""
    host = two_servers
    host.write("/etc/qemu-netwrap/config.toml", LOOPED)
    host.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    watch.baseline(host)
    log = ("--log-queries", "--log-facility=/run/stub.log")
    child = stub(host, "127.0.0.1", "--server=10.50.0.1", *log)
    with nat(host):
        assert not knows(host, "some.name.of.nobodys.test")
        asked = host.read("/run/stub.log").count("forwarded some.name.of.nobodys.test")
        assert asked <= 2
    child.kill()
    child.wait()
    host.run("rm", "/run/stub.log")


LOOPED: Final = '[networks.nat]\nmode = "nat"\nsubnet = "10.50.0.0/24"\n'
