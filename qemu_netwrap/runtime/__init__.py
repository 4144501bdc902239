"""A run, from the command line until everything acquired for it has been released.

Launcher, keeper, waiter; networks that runs share; journals. May import all but `doctor`, `cli`.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.runtime import addresses as addresses
    from qemu_netwrap.runtime import bridge_helper as bridge_helper
    from qemu_netwrap.runtime import exec_inside as exec_inside
    from qemu_netwrap.runtime import executor as executor
    from qemu_netwrap.runtime import host_ports as host_ports
    from qemu_netwrap.runtime import ifup_hook as ifup_hook
    from qemu_netwrap.runtime import inventory as inventory
    from qemu_netwrap.runtime import keeper as keeper
    from qemu_netwrap.runtime import kept_code as kept_code
    from qemu_netwrap.runtime import launch_options as launch_options
    from qemu_netwrap.runtime import launcher as launcher
    from qemu_netwrap.runtime import membership as membership
    from qemu_netwrap.runtime import mending as mending
    from qemu_netwrap.runtime import mtu as mtu
    from qemu_netwrap.runtime import network_choice as network_choice
    from qemu_netwrap.runtime import owners as owners
    from qemu_netwrap.runtime import pinning as pinning
    from qemu_netwrap.runtime import plan as plan
    from qemu_netwrap.runtime import preflight as preflight
    from qemu_netwrap.runtime import preflight_taps as preflight_taps
    from qemu_netwrap.runtime import preview as preview
    from qemu_netwrap.runtime import provision as provision
    from qemu_netwrap.runtime import repair as repair
    from qemu_netwrap.runtime import run_steps as run_steps
    from qemu_netwrap.runtime import runs as runs
    from qemu_netwrap.runtime import status as status
    from qemu_netwrap.runtime import strays as strays
    from qemu_netwrap.runtime import tap_waiter as tap_waiter
    from qemu_netwrap.runtime import tap_warnings as tap_warnings
    from qemu_netwrap.runtime import teardown as teardown
    from qemu_netwrap.runtime import unaided as unaided
    from qemu_netwrap.runtime import under_sudo as under_sudo
    from qemu_netwrap.runtime import uplink_follower as uplink_follower
    from qemu_netwrap.runtime import users_networks as users_networks
    from qemu_netwrap.runtime import users_runs as users_runs
    from qemu_netwrap.runtime import vfio_bind as vfio_bind
    from qemu_netwrap.runtime import waiter as waiter
    from qemu_netwrap.runtime import warden as warden
    from qemu_netwrap.runtime import way_out as way_out
else:
    __getattr__ = lazy.submodules(__name__)
