"""The user that a network's dnsmasq runs as: one that no QEMU and no other program runs as.

By default dnsmasq becomes `nobody`. A QEMU that runs as `nobody` too could end it or trace it.
"""

from __future__ import annotations

import pwd
import zlib

from qemu_netwrap.linux.programs import SBIN, find_trusted
from qemu_netwrap.record import Record

NAME = "dnsmasq"  # the user's name in distributions' packages
NOBODY = "nobody"
# The uids that systemd gives to units with DynamicUser= (systemd.exec(5)): distributions use none.
_FIRST, _COUNT = 61184, 4336
_TRIES = 16
# The capabilities that dnsmasq keeps as another user: for ports, DHCP's raw packets, ARP entries.
_RIGHTS = "-all,+net_admin,+net_raw,+net_bind_service"


class Account(Record):
    """A user for dnsmasq, and how dnsmasq is started as that user."""

    uid: int
    name: str = ""  # empty: the uid has no name, so dnsmasq cannot switch to it itself
    setpriv: str = ""  # the path of setpriv(1), which switches to the uid

    @property
    def before(self) -> tuple[str, ...]:
        """The arguments before dnsmasq's own, by which setpriv(1) switches to the user."""
        if not self.setpriv:
            return ()
        number = str(self.uid)
        return (
            *(self.setpriv, f"--reuid={number}", f"--regid={number}", "--clear-groups"),
            *("--no-new-privs", f"--inh-caps={_RIGHTS}"),
            *(f"--ambient-caps={_RIGHTS}", f"--bounding-set={_RIGHTS}"),
        )


def account() -> Account:
    """Return the user for dnsmasq: its package's if the host has it, else a uid without an account.

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
    """Return the uids to try, always in the same order."""
    start = zlib.crc32(b"qemu-netwrap")
    return tuple(_FIRST + (start + step) % _COUNT for step in range(_TRIES))


def _is_free(uid: int) -> bool:
    """Whether no account has that uid."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return True
    return False


def nobody() -> int:
    """Return the uid of `nobody`; 0 if there is none, in which case dnsmasq reports it."""
    try:
        return pwd.getpwnam(NOBODY).pw_uid
    except KeyError:
        return 0
