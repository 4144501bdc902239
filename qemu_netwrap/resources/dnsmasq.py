"""The DHCP and DNS server of a network."""

from __future__ import annotations

import os

import qemu_netwrap
from qemu_netwrap import linux
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved

_RESOLVER = "resolv-file"
_IN_ORDER = "strict-order"


class DnsmasqServer(Resource):
    """The DHCP and DNS server of one network: the text of its configuration file."""

    kind = "Dnsmasq"
    programs = ("dnsmasq",)

    bridge: str
    config: str
    duid: str = ""  # the server's identifier in DHCPv6; empty without DHCPv6

    @property
    def resolver(self) -> str:
        """The file from which it reads the host's name servers; empty if it reads none."""
        lines = (line.partition("=") for line in self.config.splitlines())
        return next((value for key, _, value in lines if key == _RESOLVER), "")

    def with_resolver(self, path: str, *, in_order: bool) -> DnsmasqServer:
        """Return the same server with another resolver file, queried in order or not."""
        known = (f"{_RESOLVER}={self.resolver}", _IN_ORDER)
        others = [line for line in self.config.splitlines() if line not in known]
        lines = [*others, *resolver_lines(path, in_order=in_order)]
        return self.replace(config="".join(f"{line}\n" for line in lines))

    def acquire(self, context: Context) -> Iterator[None]:
        """Start dnsmasq, and wait until it answers."""
        folder = context.state.network(self.bridge)
        child = linux.dnsmasq.start(folder, self.config, self.duid)
        yield
        linux.dnsmasq.await_answers(child, folder)
        process = linux.dnsmasq.find(folder)
        if process is not None:
            if linux.dnsmasq.is_nobody(process):
                context.say(
                    f"{self.bridge}: dnsmasq runs as nobody: a QEMU that does too can end it;"
                    " remedy: useradd --system --shell /usr/sbin/nologin dnsmasq"
                )
            target = os.path.realpath(self.resolver) if self.resolver else ""
            context.remember(pid=str(process.pid), started=process.started, resolver=target)

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Stop the network's dnsmasq; search all processes if the noted pid is not it.

        The pid may never have been noted, or belong to another pid namespace.
        """
        noted = None
        if "pid" in saved:
            noted = linux.proc.Process(int(saved["pid"]), saved["started"])
        if noted is not None and linux.proc.lives(noted):
            linux.dnsmasq.kill(noted)
            yield
            linux.dnsmasq.stop(noted)
        else:
            linux.dnsmasq.stop_anywhere(context.state.network(self.bridge))
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether it has ended, or reads a resolver file that the host no longer uses.

        dnsmasq watches the folder of the file that a link led to when it started: the link may
        lead elsewhere now.
        """
        target = os.path.realpath(self.resolver) if self.resolver else ""
        if saved.get("resolver", target) != target:
            return True
        return linux.dnsmasq.find(context.state.network(self.bridge)) is None

    def renewed(self) -> DnsmasqServer:
        """Return it with the resolver file that the host uses now."""
        if not (self.resolver and qemu_netwrap.realm.is_system()):
            return self
        path, in_order = linux.host_facts.resolver()
        return self.with_resolver(path, in_order=in_order)

    def before_repair(self, context: Context) -> None:
        """End dnsmasq, so that it writes its leases to disk."""
        linux.dnsmasq.end(context.state.network(self.bridge))

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        do = f"dnsmasq --conf-file=- <<'EOF'\n{self.config}EOF"
        return Commands((do,), (f"kill DNSMASQ-OF-{self.bridge}",))


def resolver_lines(path: str, *, in_order: bool) -> list[str]:
    """Return the lines for the host's name servers: the last ones of the configuration."""
    return [*([_IN_ORDER] if in_order else []), f"{_RESOLVER}={path}"]
