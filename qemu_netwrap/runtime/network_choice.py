"""Which network a netdev of ours joins (docs/design.md, section 2)."""

from __future__ import annotations

from qemu_netwrap import model
from qemu_netwrap.errors import UsageError
from qemu_netwrap.model import names
from qemu_netwrap.model.network import BRIDGE, NAT, Config, Network, types
from qemu_netwrap.qemu.netdev_options import OUR_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.qemu.netdev_options import NetOption

DEFAULT_BRIDGE = "br0"  # DEFAULT_BRIDGE_INTERFACE, QEMU's include/net/net.h


def needs_default(net: NetOption) -> bool:
    """Whether a netdev of ours names no network, so that it joins the default one."""
    return net.type == "tap" and not (net.value("br") or net.value("network"))


def network_of(
    net: NetOption, config: Config, chosen: str, host_bridge: str, chosen_by: str = ""
) -> Network:
    """Return the network of a netdev of ours.

    CHOSEN is the default for this launch, set by --network or by what CHOSEN_BY says; HOST_BRIDGE
    is the bridge that carries the host's default route, or "". Raises `UsageError`, for an unknown
    network say.
    """
    where = net.option.typed
    if net.has("br") and not net.value("br"):
        raise UsageError(f"{where}: br= names no bridge", "is a variable unset? br0 is br=br0")
    if needs_default(net):
        return default(config, chosen, chosen_by or f"--network {chosen}", host_bridge, where)
    if net.type in OUR_TYPES:
        return config.network(net.type) or built_in(net.type)
    if net.value("network"):
        return named(net.value("network"), config, where)
    return _with_uplink(on_bridge(net.value("br") or DEFAULT_BRIDGE, config, where), net)


def _with_uplink(network: Network, net: NetOption) -> Network:
    """Return NETWORK with the uplink that a netdev asks for. Raises `UsageError`."""
    wanted, where = net.value("uplink"), net.option.typed
    if wanted in ("", network.uplink):
        return network
    wrong = names.ifname_fault(wanted)
    if wrong:
        raise UsageError(f"{where}: uplink name {wanted!r} {wrong}", "see: ip link")
    if not network.traits.takes_uplink or network.uplink:
        has = f"has uplink {network.uplink}" if network.uplink else f"is a {network.mode} network"
        raise UsageError(
            f"{where}: {network.bridge} {has}", "name another bridge by br=, or leave out uplink="
        )
    if wanted == network.bridge:
        raise UsageError(f"{where}: a bridge cannot be its own uplink", "name a NIC by uplink=")
    return network.replace(uplink=wanted)


def default(config: Config, chosen: str, chosen_by: str, host_bridge: str, where: str) -> Network:
    """Return the network of a tap that names none; errors name CHOSEN_BY as CHOSEN's source."""
    if chosen:
        return named(chosen, config, chosen_by)
    if config.default:
        return named(config.default, config, f"{config.path}: default")
    if host_bridge:
        return on_bridge(host_bridge, config, where)
    return config.network(NAT) or built_in(NAT)


def built_in(mode: str) -> Network:
    """Return the built-in network of a mode that is a netdev type too, such as `nat`."""
    return Network(mode, mode, names.bridge_name(mode))


def defined(config: Config) -> list[Network]:
    """Return the configured networks, then the built-in ones that no configured one replaces."""
    names_ = {network.name for network in config.networks}
    return [*config.networks, *(built_in(m) for m in types() if m not in names_)]


def named(name: str, config: Config, where: str) -> Network:
    """Return the network called NAME. Raises `UsageError` when there is none."""
    known = {network.name: network for network in defined(config)}
    if name in known:
        return known[name]

    raise UsageError(
        f"{where}: there is no network {name!r}",
        f"{model.suggest.suggestion(name, known)}known networks are {', '.join(known)};"
        f" another is defined by [networks.{name}] in the configuration",
    )


def on_bridge(name: str, config: Config, where: str) -> Network:
    """Return the network on bridge NAME: the configured or built-in one, else a plain one."""
    wrong = names.ifname_fault(name)
    if wrong:
        raise UsageError(f"{where}: bridge name {name!r} {wrong}", "name another bridge with br=")
    ours = (config.network(mode) or built_in(mode) for mode in OUR_TYPES)
    own = next((network for network in ours if network.bridge == name), None)
    return config.by_bridge(name) or own or Network(name, BRIDGE, name)
