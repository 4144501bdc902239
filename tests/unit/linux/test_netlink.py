"""An answer of the kernel's that is longer than what is read is an error, and not cut."""

from __future__ import annotations

import errno

import pytest

from qemu_netwrap.linux import netlink

NETLINK_ROUTE = 0
RTM_GETLINK, RTM_NEWLINK = 18, 16
LOOPBACK = b"\0\0\0\0\1\0\0\0" + bytes(8)  # struct ifinfomsg, of interface 1


def test_a_long_answer_is_no_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = netlink.Netlink(NETLINK_ROUTE)
    try:
        whole = next(asking._ask(RTM_GETLINK, 0, LOOPBACK, RTM_NEWLINK))
        monkeypatch.setattr(netlink, "_RECEIVE", len(whole) // 2)
        with pytest.raises(OSError, match="longer than can be read") as raised:
            next(asking._ask(RTM_GETLINK, 0, LOOPBACK, RTM_NEWLINK))
    finally:
        asking.close()
    assert raised.value.errno == errno.EMSGSIZE
