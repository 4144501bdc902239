"""What else on the host has a say in whether guests have a network, as facts."""

from __future__ import annotations

from qemu_netwrap.record import Record

# The kernel's places for rules, as nft(8) calls them.
PREROUTING, INPUT, FORWARD, OUTPUT = "prerouting", "input", "forward", "output"
POSTROUTING = "postrouting"
IP, IP6, INET, ARP, FRAMES = "ip", "ip6", "inet", "arp", "bridge"


class IptablesFilter(Record):
    """A table of one iptables, where it drops what it was not told to let through."""

    program: str  # the iptables it is written with: `iptables-nft`, `ip6tables-legacy`, …
    forward: str = ""  # the chain for accepts of what is forwarded; empty: it is not dropped
    input: bool = False  # what comes in to the host is dropped
    output: bool = False  # what the host sends is dropped
    prerouting: bool = False  # what comes in is dropped before it is routed
    selective: tuple[str, ...] = ()  # hooks where it drops some, not whatever is left
    table: str = "filter"

    @property
    def family(self) -> str:
        """The family of its packets."""
        return IP6 if self.program.startswith("ip6") else IP

    @property
    def closes(self) -> bool:
        """Whether services of the host are closed by it, but for those that it names."""
        return self.input and INPUT not in self.selective

    def __str__(self) -> str:
        """Name the table as its user does."""
        return self.program if self.table == "filter" else f"{self.program} -t {self.table}"


class ClosedChain(Record):
    """A base chain of somebody else's nft table that drops what it was not told to let through.

    An accept elsewhere does not help: a packet has to pass every base chain of a hook.
    """

    family: str
    table: str
    chain: str
    hook: str  # PREROUTING, INPUT, FORWARD, OUTPUT or POSTROUTING
    selective: bool = False  # it drops some, not whatever is left

    @property
    def closes(self) -> bool:
        """Whether services of the host are closed by it, but for those that it names."""
        return self.hook == INPUT and self.family in (IP, IP6, INET) and not self.selective

    def __str__(self) -> str:
        """Name the chain as nft(8) does."""
        return f"{self.family} {self.table} {self.chain}"


class CoexistenceFacts(Record):
    """What was found by targeted looks when a network was about to be made."""

    filters: tuple[IptablesFilter, ...] = ()
    chains: tuple[ClosedChain, ...] = ()
    firewalld: bool = False
    managers: tuple[str, ...] = ()  # of model.network_managers, those that run
    dns_port: int = 53  # another when somebody has that on every address; 0: no port is free
    taken: tuple[int, ...] = ()  # of DHCP's ports: what somebody has on every address
    open_from: int = 1024  # ip_unprivileged_port_start: anybody may bind to ports from here on
    bridged: tuple[str, ...] = ()  # IP, IP6: whose bridged frames br_netfilter shows to firewalls

    @property
    def close_services(self) -> bool:
        """Whether a firewall closes the host's services to those whom it was not told of."""
        by_iptables = any(each.closes for each in self.filters)
        return self.firewalld or by_iptables or any(each.closes for each in self.chains)
