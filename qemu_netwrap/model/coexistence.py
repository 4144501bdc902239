"""Facts about other software that affects guests: firewalls, network managers, DNS servers."""

from __future__ import annotations

from qemu_netwrap.record import Record

# The hooks and families of netfilter, as nft(8) names them.
PREROUTING, INPUT, FORWARD, OUTPUT = "prerouting", "input", "forward", "output"
POSTROUTING = "postrouting"
IP, IP6, INET, ARP, FRAMES = "ip", "ip6", "inet", "arp", "bridge"


class IptablesFilter(Record):
    """A table of one iptables program, and which of its hooks drop what no rule accepts."""

    program: str  # the iptables that manages it: `iptables-nft`, `ip6tables-legacy`, …
    forward: str = ""  # the chain for accepts of forwarded packets; empty: none are dropped
    input: bool = False  # packets to the host are dropped
    output: bool = False  # packets that the host sends are dropped
    prerouting: bool = False  # incoming packets are dropped before routing
    selective: tuple[str, ...] = ()  # hooks where it drops some packets, not all the rest
    table: str = "filter"

    @property
    def family(self) -> str:
        """The address family of its packets: IP or IP6."""
        return IP6 if self.program.startswith("ip6") else IP

    @property
    def closes(self) -> bool:
        """Whether it closes the host's services, except those that its rules accept."""
        return self.input and INPUT not in self.selective

    def __str__(self) -> str:
        """Return the command that manages the table."""
        return self.program if self.table == "filter" else f"{self.program} -t {self.table}"


class ClosedChain(Record):
    """A base chain of another program's nft table that drops what no rule accepts.

    An accept in another table does not help: a packet must pass all base chains of a hook.
    """

    family: str
    table: str
    chain: str
    hook: str  # PREROUTING, INPUT, FORWARD, OUTPUT or POSTROUTING
    selective: bool = False  # it drops some packets, not all the rest

    @property
    def closes(self) -> bool:
        """Whether it closes the host's services, except those that its rules accept."""
        return self.hook == INPUT and self.family in (IP, IP6, INET) and not self.selective

    def __str__(self) -> str:
        """Return family, table and chain as nft(8) takes them."""
        return f"{self.family} {self.table} {self.chain}"


class CoexistenceFacts(Record):
    """What probes of the host have found before a network is created."""

    filters: tuple[IptablesFilter, ...] = ()
    chains: tuple[ClosedChain, ...] = ()
    firewalld: bool = False
    managers: tuple[str, ...] = ()  # those of model.network_managers that are running
    dns_port: int = 53  # another one if a server has 53 on every address; 0: none is free
    taken: tuple[int, ...] = ()  # DHCP ports that another server has on every address
    open_from: int = 1024  # ip_unprivileged_port_start: any user may bind ports from here on
    bridged: tuple[str, ...] = ()  # IP, IP6: families whose bridged frames br_netfilter filters

    @property
    def close_services(self) -> bool:
        """Whether a firewall closes the host's services to clients that no rule accepts."""
        by_iptables = any(each.closes for each in self.filters)
        return self.firewalld or by_iptables or any(each.closes for each in self.chains)
