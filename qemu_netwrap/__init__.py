"""Networks for QEMU: there when the guest boots, gone when QEMU is gone."""

__version__ = "0.1.0"
