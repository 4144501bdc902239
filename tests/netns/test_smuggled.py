"""Strings of a configuration or a command line that would be more than strings elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.tool import IDLE, QEMU, netwrap
from qemu_netwrap.model import plain_text

if TYPE_CHECKING:
    from pathlib import Path

    from lab.netns import Host, Uplinked

CONFIG = "/etc/qemu-netwrap/config.toml"
SCRIPT = "#!/bin/sh\n: >/run/harm\n"
SERVER = """
interface=br0
bind-dynamic
no-hosts
domain=lab.internal
dhcp-range=10.9.0.2,10.9.0.200,1h
dhcp-authoritative
no-ping
no-resolv
"""
# A client of DHCP on a bridge; whatever its answer is.
CLIENT = """
ip link add v0 address {mac} type veth peer name v1
ip link set v1 master {bridge} up
ip link set v0 up
busybox udhcpc -i v0 -n -q -f -t 30 -T 1 -s /bin/true || :
ip link del v0
"""
ATTACKS = {
    # No slash: Python's ipaddress takes anything else. dnsmasq reads every file of the folder.
    "dns": 'dns = ["fe80::1%lo\\nconf-dir=run"]',
    "hosts": 'hosts = { a = "fe80::1%lo\\nconf-dir=run" }',
    "hosts, the name": 'hosts = { "a\\ndhcp-script=/etc/evil" = "192.0.2.1" }',
    "bridge": 'bridge = "br9\\ndhcp-script=/etc/evil"',
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_configuration_runs_no_script(uplinked: Uplinked, attack: str) -> None:
    host = uplinked.host
    host.write("/etc/evil", SCRIPT, mode=0o755)
    host.write("/run/evil.conf", "dhcp-script=/etc/evil\n")
    host.write(CONFIG, f'[networks.lab]\nmode = "nat"\n{ATTACKS[attack]}\n')
    checked = netwrap(host, "config", "check")
    up = netwrap(host, "network", "up", "lab", cwd="/")
    if up.returncode == 0:
        host.sh(CLIENT.format(mac="52:54:00:00:00:77", bridge="qn-lab"))
        netwrap(host, "network", "down", "lab", check=True)
    assert host.run("test", "-e", "/run/harm", check=False).returncode == 1
    for done in (checked, up):
        assert done.returncode == 125
        assert f"{CONFIG}:3: networks.lab." in done.stderr
        assert "hint: " in done.stderr


@pytest.mark.parametrize("rule", ["tcp:[fe80::1%lo\n]:2222-:22", "tcp::2222-[fd00::5%\nx]:22"])
def test_a_forward_is_one_rule(uplinked: Uplinked, rule: str) -> None:
    done = netwrap(uplinked.host, "--", QEMU, *IDLE, "-nic", f"nat,hostfwd={rule}")
    assert done.returncode == 125
    assert "Invalid host forwarding rule" in done.stderr


@pytest.mark.parametrize("name", ["ignore", "infinite", "100", "1h", "web"])
def test_a_guests_name_is_a_name_to_dnsmasq(host: Host, tmp_path: Path, name: str) -> None:
    """Of itself it takes `ignore` for no lease at all, `100` and `1h` for a lease's time."""
    mac = "52:54:00:00:00:77"
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    (hosts / mac).write_text(plain_text.lease_words((mac, name)) + "\n")
    (tmp_path / "conf").write_text(SERVER)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    host.sh("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.9.0.1/24 dev br0")
    files = {"conf-file": "conf", "pid-file": "pid", "dhcp-leasefile": "leases"}
    words = [f"--{key}={tmp_path / file}" for key, file in files.items()]
    server = host.popen("dnsmasq", "-k", "--user=root", *words, f"--dhcp-hostsdir={hosts}")
    host.wait_listening("udp", 67)
    host.sh(CLIENT.format(mac=mac, bridge="br0"))
    server.terminate()
    server.wait(10)
    host.run("ip", "link", "del", "br0")
    (lease,) = (tmp_path / "leases").read_text().splitlines()
    assert lease.split()[1::2] == [mac, name]
