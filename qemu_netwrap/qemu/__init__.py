"""QEMU's command line, parsed as QEMU parses it, and rewritten.

Pure: files and the output of QEMU are passed in as text. May import `model`.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.qemu import bridge_conf as bridge_conf
    from qemu_netwrap.qemu import command_line as command_line
    from qemu_netwrap.qemu import guest_nics as guest_nics
    from qemu_netwrap.qemu import help_words as help_words
    from qemu_netwrap.qemu import hostfwd as hostfwd
    from qemu_netwrap.qemu import json_options as json_options
    from qemu_netwrap.qemu import keyval as keyval
    from qemu_netwrap.qemu import known_options as known_options
    from qemu_netwrap.qemu import misspelt as misspelt
    from qemu_netwrap.qemu import netdev_options as netdev_options
    from qemu_netwrap.qemu import netdev_schema as netdev_schema
    from qemu_netwrap.qemu import network_options as network_options
    from qemu_netwrap.qemu import option_groups as option_groups
    from qemu_netwrap.qemu import readconfig as readconfig
    from qemu_netwrap.qemu import rewrite as rewrite
    from qemu_netwrap.qemu import sriov_options as sriov_options
    from qemu_netwrap.qemu import user_keys as user_keys
else:
    __getattr__ = lazy.submodules(__name__)
