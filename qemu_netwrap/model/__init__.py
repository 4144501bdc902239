"""The data model: networks, a run and its NICs, facts about the host, addresses, names.

Pure: no I/O, no state. Imports `errors`, `record` and the standard library.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model import addresses as addresses
    from qemu_netwrap.model import chain_verdicts as chain_verdicts
    from qemu_netwrap.model import coexistence as coexistence
    from qemu_netwrap.model import host as host
    from qemu_netwrap.model import host_services as host_services
    from qemu_netwrap.model import ipv4 as ipv4
    from qemu_netwrap.model import ipv6 as ipv6
    from qemu_netwrap.model import ipv6_text as ipv6_text
    from qemu_netwrap.model import mac as mac
    from qemu_netwrap.model import names as names
    from qemu_netwrap.model import network as network
    from qemu_netwrap.model import network_managers as network_managers
    from qemu_netwrap.model import numbers as numbers
    from qemu_netwrap.model import pci as pci
    from qemu_netwrap.model import plain_text as plain_text
    from qemu_netwrap.model import pxe as pxe
    from qemu_netwrap.model import reservations as reservations
    from qemu_netwrap.model import run as run
    from qemu_netwrap.model import suggest as suggest
else:
    __getattr__ = lazy.submodules(__name__)
