"""Devices of the host that a guest gets whole: PCI devices by VFIO, virtual functions by SR-IOV.

Which ones, whether they may be passed, who has them. May import `resources` and all above it.
"""
