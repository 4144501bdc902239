"""Other programs that rule over a host's network, started for real in a simulated machine.

Some would start, and take over, on the machine that they are installed on. So their packages are
downloaded and unpacked, never installed, and laid over /usr of the simulated machine alone. The
libraries that they need are installed.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from lab.guest import unpacked
from lab.netns import wait_for

if TYPE_CHECKING:
    from lab.netns import Host

BUS: Final = "/run/dbus/system_bus_socket"
# Without service folders: nothing of the machine's own is started on demand.
_BUS_CONFIG: Final = f"""\
<busconfig>
  <type>system</type>
  <listen>unix:path={BUS}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""
_NM_CONFIG: Final = "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\n"
_NETWORKD_ALL: Final = "[Match]\nKind=bridge tun tap\n\n[Network]\nLinkLocalAddressing=ipv6\n"
_PYTHON: Final = "/usr/bin/python3"
_LAY: Final = r"""
usr=/usr
lib=
for each; do
    [ ! -d "$each/etc" ] || cp -a "$each/etc/." /etc/
    usr=$each/usr:$usr
    [ ! -d "$each/lib" ] || lib=$each/lib:$lib
done
mount -t overlay -o "lowerdir=$usr" lab /usr
[ -z "$lib" ] || mount -t overlay -o "lowerdir=$lib/usr/lib" lab /usr/lib
"""
FIREWALL_CMD: Final = f"{_PYTHON} /usr/bin/firewall-cmd"
# What Docker Engine 27 sets up at its start, with iptables and with ip6tables.
_DOCKER: Final = """\
*filter
:FORWARD DROP
:DOCKER -
:DOCKER-ISOLATION-STAGE-1 -
:DOCKER-ISOLATION-STAGE-2 -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
# Only what its own files say: the machine's sysctls and modules are left alone.
_ENABLE_UFW: Final = rf"""
cp /usr/share/ufw/ufw.conf /usr/share/ufw/iptables/*.rules /etc/ufw
sed -i 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/; s/^IPT_MODULES=.*/IPT_MODULES=/' /etc/default/ufw
{_PYTHON} /usr/sbin/ufw --force enable
{_PYTHON} /usr/sbin/ufw reload
"""


def docker(host: Host, *programs: str) -> None:
    """Set up Docker's chains with `iptables-nft`, `ip6tables-legacy` or whichever it has."""
    for program in programs:
        host.run(f"{program}-restore", "--noflush", "--wait", input=_DOCKER)


def ufw(host: Host) -> None:
    """Enable ufw as Debian ships it: nothing comes in, nothing is forwarded."""
    _lay(host, "ufw")
    host.run("sh", "-euc", _ENABLE_UFW)


def dbus(host: Host) -> None:
    """Start a system bus for this machine alone."""
    host.write("/run/dbus/system.conf", _BUS_CONFIG)
    command = ("dbus-daemon", "--config-file=/run/dbus/system.conf", "--nofork", "--nopidfile")
    host.popen(*command, stderr=subprocess.DEVNULL)
    wait_for(lambda: not host.run("test", "-S", BUS, check=False).returncode, "the system bus")


def owned(host: Host, name: str) -> bool:
    """Whether a service of that name is on the machine's bus."""
    call = ("dbus-send", "--system", "--print-reply=literal", "--dest=org.freedesktop.DBus", "/")
    asked = host.run(*call, "org.freedesktop.DBus.NameHasOwner", f"string:{name}", check=False)
    return "true" in asked.stdout


def firewalld(host: Host) -> None:
    """Start firewalld as Debian ships it, with a system bus: the default zone is public."""
    _lay(host, "firewalld", "python3-firewall", "python3-nftables")
    dbus(host)
    null = subprocess.DEVNULL
    daemon = ("/usr/sbin/firewalld", "--nofork", "--nopid", "--log-target=console")
    host.popen(_PYTHON, *daemon, stdout=null, stderr=null)
    wait_for(lambda: owned(host, "org.fedoraproject.FirewallD1"), "firewalld")
    wait_for(lambda: "public" in firewall_cmd(host, "--get-default-zone"), "its zones")


def use_firewalld_zone(host: Host, zone: str) -> None:
    """Have firewalld make the chains of a zone: it keeps them, empty, when nothing uses them."""
    for verb in ("add", "remove"):
        firewall_cmd(host, f"--zone={zone}", f"--{verb}-interface=any0")


def firewall_cmd(host: Host, *words: str) -> str:
    """Return what firewall-cmd prints, empty when it fails."""
    return host.run(*FIREWALL_CMD.split(), *words, check=False).stdout


def network_manager(host: Host) -> None:
    """Start NetworkManager, with a system bus; it lets alone what it finds."""
    _lay(host, "network-manager")
    dbus(host)
    host.write("/etc/NetworkManager/NetworkManager.conf", _NM_CONFIG)
    # Where /sys is for reading only it does not wait for udev, which no namespace has.
    host.run("sh", "-euc", "mount -t tmpfs lab /var/lib; mount -o remount,ro /sys")
    null = subprocess.DEVNULL
    host.popen("/usr/sbin/NetworkManager", "--no-daemon", stdout=null, stderr=null)
    wait_for(lambda: owned(host, "org.freedesktop.NetworkManager"), "NetworkManager")


def networkd(host: Host) -> None:
    """Start systemd-networkd, with a system bus, configured to take every bridge and tap."""
    dbus(host)
    host.write("/etc/systemd/network/10-all.network", _NETWORKD_ALL)
    script = (
        "mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp;"
        " chown -R systemd-network: /run/systemd/netif; mount -o remount,ro /sys"
    )
    host.run("sh", "-euc", script)
    null = subprocess.DEVNULL
    host.popen("/lib/systemd/systemd-networkd", stdout=null, stderr=null)
    wait_for(lambda: owned(host, "org.freedesktop.network1"), "systemd-networkd")


def _lay(host: Host, *packages: str) -> None:
    """Lay unpacked packages over the machine's /etc and /usr."""
    host.run("sh", "-euc", _LAY, "lay", *(str(unpacked(package)) for package in packages))
