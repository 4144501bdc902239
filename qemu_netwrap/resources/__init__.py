"""Resources that are acquired on the host and released: bridges, taps, chains, sysctls, servers.

Each kind has `acquire` and `release` in one class. May import `linux`, `state` and all above them.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.resources import base as base
    from qemu_netwrap.resources import dhcp_hosts as dhcp_hosts
    from qemu_netwrap.resources import dnsmasq as dnsmasq
    from qemu_netwrap.resources import explain as explain
    from qemu_netwrap.resources import firewall_accepts as firewall_accepts
    from qemu_netwrap.resources import forward_guards as forward_guards
    from qemu_netwrap.resources import journal as journal
    from qemu_netwrap.resources import links as links
    from qemu_netwrap.resources import lookout as lookout
    from qemu_netwrap.resources import nftables as nftables
    from qemu_netwrap.resources import other_format as other_format
    from qemu_netwrap.resources import port_filters as port_filters
    from qemu_netwrap.resources import port_relay as port_relay
    from qemu_netwrap.resources import remark as remark
    from qemu_netwrap.resources import sysctls as sysctls
    from qemu_netwrap.resources import unmanaged as unmanaged
    from qemu_netwrap.resources import uplink as uplink
    from qemu_netwrap.resources import vfio as vfio
else:
    __getattr__ = lazy.submodules(__name__)
