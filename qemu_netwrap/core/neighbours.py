"""What else on the host has a say in whether guests have a network, as facts."""

from __future__ import annotations

from qemu_netwrap.core.record import Record

INPUT = "input"
FORWARD = "forward"
IP, IP6 = "ip", "ip6"


class IptablesFilter(Record):
    """The filter table of one iptables, where it drops what it was not told to let through."""

    program: str  # the iptables it is written with: `iptables-nft`, `ip6tables-legacy`, …
    forward: str = ""  # the chain for accepts of what is forwarded; empty: it is not dropped
    input: bool = False  # what comes in to the host is dropped

    @property
    def family(self) -> str:
        """The family of its packets."""
        return IP6 if self.program.startswith("ip6") else IP


class ClosedChain(Record):
    """A base chain of somebody else's nft table that drops what it was not told to let through.

    An accept elsewhere does not help: a packet has to pass every base chain of a hook.
    """

    family: str
    table: str
    chain: str
    hook: str  # INPUT or FORWARD

    def __str__(self) -> str:
        """Name the chain as nft(8) does."""
        return f"{self.family} {self.table} {self.chain}"


class Neighbours(Record):
    """What was found by targeted looks when a network was about to be made."""

    filters: tuple[IptablesFilter, ...] = ()
    chains: tuple[ClosedChain, ...] = ()
    firewalld: bool = False
    managers: tuple[str, ...] = ()  # of core.managers, those that run
    dns_port: int = 53  # another when somebody has that on every address; 0: no port is free
    taken: tuple[int, ...] = ()  # of DHCP's ports: what somebody has on every address
    open_from: int = 1024  # ip_unprivileged_port_start: anybody may bind to ports from here on
    bridged: tuple[str, ...] = ()  # IP, IP6: whose bridged frames br_netfilter shows to firewalls
