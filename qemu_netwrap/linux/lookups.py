"""The files by which the C library finds hosts and users, as a command on a network needs them."""

from __future__ import annotations

import grp
import os
import pwd

from qemu_netwrap.linux import files

RESOLV_CONF = "/etc/resolv.conf"
_NSSWITCH = "/etc/nsswitch.conf"
_NSCD = "/run/nscd/socket"
# What tcpdump becomes when it is called by uid 0, unless -Z names another account.
_TCPDUMP = "tcpdump:x:0:0::/:/usr/sbin/nologin"


def hosts(server: str, domain: str) -> dict[str, str]:
    """Return the texts, by file, with which the name server SERVER is asked alone, also in DOMAIN.

    systemd-resolved and nscd answer over a socket, whichever network namespace they are asked from:
    with the host's names. So nsswitch.conf(5) leads past the one, and the other is out of reach.
    """
    lines = files.peek(_NSSWITCH).splitlines()
    led = ["hosts: files dns" if line.startswith("hosts:") else line for line in lines]
    return {
        RESOLV_CONF: f"nameserver {server}\nsearch {domain}\n",
        **({_NSSWITCH: _text(led)} if led != lines else {}),
        _NSCD: "",
    }


def root_as_this_user() -> dict[str, str]:
    """Return the texts, by file, with which uid 0 and gid 0 have the names of this process's.

    They are for a user namespace in which this user is root, and the only user: passwd(5) also has
    the home and the shell, and tcpdump's account is the same. What comes first in a file counts.
    Without an account, no file is changed.
    """
    found = {_NSCD: ""}
    try:
        user = pwd.getpwuid(os.geteuid())
        words = (user.pw_name, "x", "0", "0", user.pw_gecos, user.pw_dir, user.pw_shell)
        found["/etc/passwd"] = _with_first("/etc/passwd", ":".join(words), _TCPDUMP)
        group = grp.getgrgid(os.getegid())
        found["/etc/group"] = _with_first("/etc/group", f"{group.gr_name}:x:0:")
    except KeyError:
        pass
    return found


def _with_first(path: str, *lines: str) -> str:
    """Return the text of a file with LINES before its others."""
    return _text([*lines, *files.peek(path).splitlines()])


def _text(lines: list[str]) -> str:
    """Return LINES as a file's text."""
    return "".join(f"{line}\n" for line in lines)
