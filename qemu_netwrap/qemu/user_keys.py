"""Keys of QEMU's `user` network, and what to use instead on a network of qemu-netwrap."""

from __future__ import annotations

# Keys of a network in the configuration, each with the keys of `user` that it replaces.
_IN_THE_CONFIGURATION = {
    "subnet": "net host dhcpstart ip",
    "subnet6": "ipv6-net ipv6-prefix ipv6-prefixlen ipv6-host",
    "dns": "dns ipv6-dns",
    "ipv6": "ipv4 ipv6",
    "tftp": "tftp",
    "bootfile": "bootfile",
}
_EXAMPLES = {
    "subnet": 'subnet = "10.50.0.0/24"',
    "subnet6": 'subnet6 = "fd12:3456:789a:1::/64"',
    "dns": 'dns = ["192.0.2.53"]',
    "ipv6": "ipv6 = false",
    "tftp": 'tftp = "/srv/tftp"',
    "bootfile": 'bootfile = "pxelinux.0"',
}
_OTHERWISE = {
    "hostname": "the guest's name in DHCP and DNS is that of -name",
    "restrict": "host-only, instead of nat, is a network without a way out",
    "guestfwd": "guests reach services of the host by the gateway's address; host_services ="
    ' ["tcp/PORT"] in [networks.NAME] of the configuration opens them where a firewall does not',
    "smb": "guests reach a Samba server of the host by the gateway's address; host_services ="
    ' ["smb"] in [networks.NAME] of the configuration opens it where a firewall does not',
    "dnssearch": "guests' names are in the domain NETWORK.internal, which DHCP tells them",
    "tftp-server-name": "DHCP names the gateway as the server to boot from",
}
_SAME_AS = {"smbserver": "smb", "domainname": "dnssearch"}


def instead(key: str) -> str:
    """Return a hint for a key of `user`; "" if KEY is none of its keys."""
    ours = next((own for own, theirs in _IN_THE_CONFIGURATION.items() if key in theirs.split()), "")
    if not ours:
        return _OTHERWISE.get(_SAME_AS.get(key, key), "")
    return f"it is a network's: {_EXAMPLES[ours]} in [networks.NAME] of the configuration"
