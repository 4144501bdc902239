"""The host: one module for each interface of the kernel or of a service.

Each function does one step, as its name says; none makes decisions. May import `model` and `qemu`.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux import accounts as accounts
    from qemu_netwrap.linux import bpf as bpf
    from qemu_netwrap.linux import bridge_conf as bridge_conf
    from qemu_netwrap.linux import cgroup as cgroup
    from qemu_netwrap.linux import child as child
    from qemu_netwrap.linux import coexistence as coexistence
    from qemu_netwrap.linux import commands as commands
    from qemu_netwrap.linux import dbus as dbus
    from qemu_netwrap.linux import devices as devices
    from qemu_netwrap.linux import dhcp_probe as dhcp_probe
    from qemu_netwrap.linux import dnsmasq as dnsmasq
    from qemu_netwrap.linux import event_loop as event_loop
    from qemu_netwrap.linux import fds as fds
    from qemu_netwrap.linux import files as files
    from qemu_netwrap.linux import firewalld as firewalld
    from qemu_netwrap.linux import firewalls as firewalls
    from qemu_netwrap.linux import foreign_fds as foreign_fds
    from qemu_netwrap.linux import frame_filter as frame_filter
    from qemu_netwrap.linux import holders as holders
    from qemu_netwrap.linux import hook_files as hook_files
    from qemu_netwrap.linux import host_facts as host_facts
    from qemu_netwrap.linux import ingress_filter as ingress_filter
    from qemu_netwrap.linux import inherited as inherited
    from qemu_netwrap.linux import installed as installed
    from qemu_netwrap.linux import iptables as iptables
    from qemu_netwrap.linux import ipv6_facts as ipv6_facts
    from qemu_netwrap.linux import lookups as lookups
    from qemu_netwrap.linux import mounts as mounts
    from qemu_netwrap.linux import namespaces as namespaces
    from qemu_netwrap.linux import netlink as netlink
    from qemu_netwrap.linux import network_managers as network_managers
    from qemu_netwrap.linux import nft as nft
    from qemu_netwrap.linux import open_files as open_files
    from qemu_netwrap.linux import outside as outside
    from qemu_netwrap.linux import pci as pci
    from qemu_netwrap.linux import polling as polling
    from qemu_netwrap.linux import port_relay as port_relay
    from qemu_netwrap.linux import ports as ports
    from qemu_netwrap.linux import proc as proc
    from qemu_netwrap.linux import processes as processes
    from qemu_netwrap.linux import program_query as program_query
    from qemu_netwrap.linux import programs as programs
    from qemu_netwrap.linux import pyzip as pyzip
    from qemu_netwrap.linux import qemu_files as qemu_files
    from qemu_netwrap.linux import remedies as remedies
    from qemu_netwrap.linux import rlimits as rlimits
    from qemu_netwrap.linux import run_locks as run_locks
    from qemu_netwrap.linux import seccomp as seccomp
    from qemu_netwrap.linux import session as session
    from qemu_netwrap.linux import setgroups as setgroups
    from qemu_netwrap.linux import shims as shims
    from qemu_netwrap.linux import socket_filter as socket_filter
    from qemu_netwrap.linux import syscalls as syscalls
    from qemu_netwrap.linux import sysctl as sysctl
    from qemu_netwrap.linux import tap_facts as tap_facts
    from qemu_netwrap.linux import tcp_relay as tcp_relay
    from qemu_netwrap.linux import trust as trust
    from qemu_netwrap.linux import tun as tun
    from qemu_netwrap.linux import udp_relay as udp_relay
    from qemu_netwrap.linux import uplink_helpers as uplink_helpers
    from qemu_netwrap.linux import uplinks as uplinks
    from qemu_netwrap.linux import users as users
    from qemu_netwrap.linux import waits as waits
    from qemu_netwrap.linux import way_out as way_out
else:
    __getattr__ = lazy.submodules(__name__)
