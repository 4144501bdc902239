"""Network boot of guests: a folder for TFTP, and the file that DHCP names."""

from __future__ import annotations

LONGEST = 127  # bytes of the file name field of a DHCP message, less its NUL (RFC 2131)
_BESIDE = frozenset("/._-+@:=~%")
_CLOSED = frozenset("/ /boot /dev /etc /home /proc /root /run /sys /tmp /usr /var".split())


def folder(value: object) -> str:
    """Return the normalized path for `tftp`. Raises `ValueError` that says what is wrong."""
    text = _plain(value, "a folder like /srv/tftp")
    if not text.startswith("/") or ".." in text.split("/"):
        raise ValueError("expected a folder's whole path, like /srv/tftp")
    found = "/" + "/".join(part for part in text.split("/") if part not in ("", "."))
    if found in _CLOSED:
        raise ValueError("guests may read all that is in it: give it a folder of its own")
    return found


def file(value: object) -> str:
    """Return VALUE for `bootfile`. Raises `ValueError` that says what is wrong."""
    text = _plain(value, "a file's name like pxelinux.0, or a URL")
    if len(text) > LONGEST:
        raise ValueError(f"over {LONGEST} bytes long, which DHCP cannot say")
    return text


def _plain(value: object, expected: str) -> str:
    """Return VALUE if dnsmasq reads it literally. Raises `ValueError`."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected {expected}")
    if not value.isascii() or any(not c.isalnum() and c not in _BESIDE for c in value):
        raise ValueError("has a character other than letters, digits and / . _ - + @ : = ~ %")
    return value
