"""Whom a network's dnsmasq runs as: nobody that QEMU or anything else of a user's runs as.

Without a word dnsmasq becomes `nobody`. People give that user to QEMU too, which could then end it
or trace it.
"""

from __future__ import annotations

import pwd
import zlib

from qemu_netwrap.linux.programs import SBIN, find_trusted
from qemu_netwrap.record import Record

NAME = "dnsmasq"  # what distributions' packages call the user
NOBODY = "nobody"
# What systemd gives to units with DynamicUser= (systemd.exec(5)): no user of a distribution's.
_FIRST, _COUNT = 61184, 4336
_TRIES = 16
# What dnsmasq keeps when it has become another user: ports, DHCP's raw packets, ARP entries.
_RIGHTS = "-all,+net_admin,+net_raw,+net_bind_service"


class Account(Record):
    """A user for dnsmasq, and how it is started as that."""

    uid: int
    name: str = ""  # empty: the number has none, and dnsmasq cannot become it by itself
    setpriv: str = ""  # the program that becomes it

    @property
    def before(self) -> tuple[str, ...]:
        """The words that stand before dnsmasq's own: setpriv(1) becomes the user."""
        if not self.setpriv:
            return ()
        number = str(self.uid)
        return (
            *(self.setpriv, f"--reuid={number}", f"--regid={number}", "--clear-groups"),
            *("--no-new-privs", f"--inh-caps={_RIGHTS}"),
            *(f"--ambient-caps={_RIGHTS}", f"--bounding-set={_RIGHTS}"),
        )


def account() -> Account:
    """Return the user for dnsmasq: its own where the host has one, else a number that nobody has.

    Without setpriv(1) it is `nobody`.
    """
    try:
        return Account(pwd.getpwnam(NAME).pw_uid, NAME)
    except KeyError:
        pass
    setpriv = find_trusted("setpriv", f"{SBIN}:/usr/bin:/bin")
    free = (uid for uid in _numbers() if _is_free(uid))
    uid = next(free, 0) if setpriv else 0
    return Account(uid, "", setpriv) if uid else Account(nobody(), NOBODY)


def _numbers() -> tuple[int, ...]:
    """Return numbers to try, always in the same order."""
    start = zlib.crc32(b"qemu-netwrap")
    return tuple(_FIRST + (start + step) % _COUNT for step in range(_TRIES))


def _is_free(uid: int) -> bool:
    """Whether a number is no user's."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return True
    return False


def nobody() -> int:
    """Return the number of `nobody`; 0 where there is none, and dnsmasq will say so."""
    try:
        return pwd.getpwnam(NOBODY).pw_uid
    except KeyError:
        return 0
