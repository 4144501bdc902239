"""The way out of an ordinary user's network namespace: pasta (of passt) or slirp4netns.

Either runs outside, in the host's network namespace, and carries what leaves by a device inside as
sockets of the user's own. So guests reach what the user reaches, and without a privilege.

How they differ (Debian 12's pasta of 2023-03-09 and slirp4netns 1.2.0, pasta of 2025-05-03):

- pasta gives the namespace the host's addresses and routes, of the device of its default route: so
  guests do not reach the host's servers at those addresses. slirp4netns has its own network,
  10.0.2.0/24 and fd00::/64, and guests do.
- pasta configures IPv6 too. slirp4netns does by a router advertisement alone, some 2 seconds after
  its start, and the kernel heeds that on a router only with `accept_ra` 2.
- The old pasta stalls on a connection of which one half is closed, as Debian's changelog of passt
  says: it wakes without end until 0.0~git20240906.6b38f07-1. The other two carry it.
- With --dns-forward the old pasta loses what the host's own resolver answers at its real address.
- The old pasta fails if the host has no default route. The new one does not, and then adds none.
- pasta reaches IPv4 or IPv6 only where the host has it when pasta starts.
- Neither ends with the namespace: the descriptor of its tap keeps that. But new pasta, without
  --no-netns-quit, ends within a second after the process by which it was told the namespace.
- When `DEVICE` is deleted pasta ends, and slirp4netns takes a whole CPU.
- As root each takes itself for the host's: slirp4netns makes its sandbox without entering the user
  namespace first, and pasta becomes nobody. In the user namespace already, both do as for a user.
- Each survives that the host's uplink goes and comes back.
- What is sent at more than some 100 Mbit/s stalls in pasta: it drops what its socket does not take,
  and the sender waits for a retransmission time-out. slirp4netns does not, and it has what QEMU's
  own `user` has, libslirp. TCP through a router with a NIC of MTU 1500 (Linux 6.18, veth, medians
  of 3 times 1.5 s, two busy cores), Mbit/s to and from a server beyond the host:

                      MTU of `DEVICE`:  1500          65520
    slirp4netns                          945 / 2372   4321 / 4520
    pasta 2023-03-09                     141 /  535    239 / 4135
    pasta 2025-05-03                      42 /  713     22 / 4547

  A guest under TCG, MTU 1500, that has all ways at once and takes them in turn (`make bench`; two
  processors that others wanted too, medians of 8 to 20 turns, from run to run), as ratios to what
  it sends and receives by QEMU's own `user`:

    slirp4netns           0.6 to 1.3  0.2 to 0.7
    pasta 2023-03-09      2.9 to 10   0.2 to 0.7
    pasta 2025-05-03      1.0         0.55
    slirp4netns, MTU of bridge, tap and guest 65520: 3.2, 1.2
"""

from __future__ import annotations

from qemu_netwrap.linux.child import require
from qemu_netwrap.linux.programs import SBIN, find_trusted
from qemu_netwrap.record import Record

DEVICE = "uplink0"  # inside the namespace
PASTA, SLIRP = "pasta", "slirp4netns"

_MTU = 65520  # the most that both take, and a multiple of IPv4's words

# Where a helper says that it is ready. pasta closes what it inherits above standard error
# (`close_open_files`, since 2024-08) before it writes its "pid file"; slirp4netns prints to both
# standard descriptors.
READY_FD = {PASTA: 1, SLIRP: 3}

# The resolver inside: slirp4netns' is the third address of its network (slirp4netns(1), --cidr).
# pasta's can be chosen; podman takes 169.254.1.1 too. A link-local address is no one else's.
_DNS = {PASTA: "169.254.1.1", SLIRP: "10.0.2.3"}

_NO_ROUTE = "External interface not usable"  # pasta: for neither IPv4 nor IPv6
NO_MOUNTS = "pasta has a sandbox of mounts, and here nothing can be mounted"
_NO_SYSLOG = "Failed to send "  # pasta, where nothing listens at /dev/log


class UplinkHelper(Record):
    """A program that connects a user's network namespace to the outside."""

    name: str  # "pasta" or "slirp4netns"
    path: str


def find(wanted: str = "auto") -> UplinkHelper | None:
    """Return the helper to use: WANTED, or the better one that is installed; None without any.

    Where both are there it is slirp4netns, whatever pasta's version: see above. Raises `HostError`
    if WANTED is not installed.
    """
    if wanted != "auto":
        return UplinkHelper(wanted, require(wanted))
    for name in (SLIRP, PASTA):
        path = find_trusted(name, SBIN)
        if path:
            return UplinkHelper(name, path)
    return None


def dns_address(helper: UplinkHelper) -> str:
    """Return the IPv4 address that leads to the user's resolver from inside the namespace.

    Also to one at a loopback address of the host, such as 127.0.0.53. Old pasta answers it by UDP
    alone.
    """
    return _DNS[helper.name]


def command(  # noqa: PLR0913 - what may differ between two starts
    helper: UplinkHelper,
    pid: int,
    *,
    ipv6: bool = True,
    mtu: int = _MTU,
    sandbox: bool = True,
    is_root: bool = False,
) -> tuple[str, ...]:
    """Return the argument list that connects the user and network namespaces of the process PID.

    The program stays in the foreground. It writes to the descriptor 1 (pasta) or 3 (slirp4netns)
    once the device `DEVICE` is up, with address and IPv4 default route: 5 to 75 ms later. No port
    is forwarded in either direction, and the host's loopback addresses are not reachable, but for
    `dns_address`.

    Without SANDBOX, where nothing can be mounted, slirp4netns has its filter of system calls alone,
    and for pasta there is no such list: () is returned. IS_ROOT: who starts it has entered the user
    namespace, where it is root.

    The program is `helper.path`, whatever the first word: passt knows by it that it is to be pasta.
    """
    if helper.name == SLIRP:
        return _slirp(pid, mtu, ipv6=ipv6, sandbox=sandbox)
    if not sandbox:
        return ()
    user = ("--netns-only",) if is_root else ("--userns", f"/proc/{pid}/ns/user")
    return (
        *(PASTA, "--foreground", "--quiet", "--config-net"),
        *("--pid", f"/proc/self/fd/{READY_FD[PASTA]}"),  # written when all is configured
        "--no-netns-quit",  # the process PID is there for its start only
        *("--ns-ifname", DEVICE, "--mtu", str(mtu), "--no-map-gw"),
        *("--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"),
        *("--dns-forward", _DNS[PASTA]),
        *(() if ipv6 else ("--ipv4-only",)),
        *(*user, "--netns", f"/proc/{pid}/ns/net"),
    )


def _slirp(pid: int, mtu: int, *, ipv6: bool, sandbox: bool) -> tuple[str, ...]:
    """Return slirp4netns' argument list.

    By a pid: with paths of the namespaces --enable-sandbox fails at setegid(0), since it joins the
    user namespace by the pid alone (main.c, `parent`). The sandbox has no files but /etc and /run.
    """
    return (
        *(SLIRP, "--configure", "--mtu", str(mtu), "--disable-host-loopback"),
        *(("--enable-sandbox",) if sandbox else ()),
        "--enable-seccomp",
        *(("--enable-ipv6",) if ipv6 else ()),
        *("--ready-fd", str(READY_FD[SLIRP])),
        *(str(pid), DEVICE),
    )


def why(name: str, printed: str) -> str:
    """Return why the helper NAME does not connect, from what it has PRINTED, with a remedy."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_NO_SYSLOG)]
    if NO_MOUNTS in told:
        return f"{NO_MOUNTS}; apt install slirp4netns, which does without"
    if any(_NO_ROUTE in line for line in told):
        return (
            "the host has no default route, which this pasta needs when it starts; connect the"
            " host first, or: apt install slirp4netns, which needs none"
        )
    return f"{name}: {told[-1] if told else 'it ended without a message'}"
