"""More of something than usual: it works, or the hint says which limit it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.tool import COMMAND, netwrap

if TYPE_CHECKING:
    from lab.netns import Uplinked

COUNT = 1500
FORWARDS = ",".join(f"hostfwd=tcp::{20000 + n}-:22" for n in range(COUNT))


def test_many_forwards_are_shown(uplinked: Uplinked) -> None:
    script = 'ulimit -n 8192; exec "$@"'
    words = (COMMAND, "-v", "--", "/bin/true", "-nic", f"nat,{FORWARDS}")
    done = uplinked.host.run("sh", "-c", script, "sh", *words)
    netwrap(uplinked.host, "wait", check=True)
    assert f"dport {20000 + COUNT - 1} dnat" in done.stderr
    assert f", tcp::{20000}-" in done.stderr
    assert f"tcp::{20000 + COUNT - 1}-" in done.stderr


def test_a_guests_ipv6_address(uplinked6: Uplinked) -> None:
    host = uplinked6.host
    lab = '[networks.lab]\nmode = "nat"\nsubnet6 = "fd00:1:2:3::/64"\n'
    host.write("/etc/qemu-netwrap/config.toml", lab)
    for rule in ("tcp:[::]:2222-[fd00:1:2:3::5]:22", "tcp::2222-[fd00:1:2:3::5]:22"):
        words = ("-nic", f"tap,network=lab,hostfwd={rule},hostfwd=tcp:0.0.0.0:2222-:22")
        plan = netwrap(host, "plan", "/bin/true", *words, check=True)
        done = netwrap(host, "-v", "--", "/bin/true", *words, check=True)
        netwrap(host, "wait", check=True)
        for shown in (plan.stdout, done.stderr):
            assert "dnat ip6 to [fd00:1:2:3::5]:22" in shown
            assert "dnat ip to " in shown
    elsewhere = "tap,network=lab,hostfwd=tcp:[::]:2222-[fd00:9::5]:22"
    done = netwrap(host, "--", "/bin/true", "-nic", elsewhere)
    assert done.returncode == 125
    assert "is not in fd00:1:2:3::/64" in done.stderr


def test_the_limit_of_open_files_is_named(uplinked: Uplinked) -> None:
    for limit, typed in ((256, f"nat,{FORWARDS}"), (64, "nat,queues=80")):
        words = (COMMAND, "--", "/bin/true", "-nic", typed)
        script = f'ulimit -n {limit}; exec "$@"'
        done = uplinked.host.run("sh", "-c", script, "sh", *words, check=False)
        assert done.returncode == 125
        assert f"the limit of open files is {limit}" in done.stderr
        assert "ulimit -n" in done.stderr
        netwrap(uplinked.host, "wait", check=True)


def test_an_address_of_one_link_is_told(uplinked: Uplinked) -> None:
    host = uplinked.host
    done = netwrap(host, "--", "/bin/true", "-nic", "nat,hostfwd=tcp:[fe80::1]:2222-:22")
    assert done.returncode == 125
    assert "address" in done.stderr
    assert "need root" not in done.stderr
