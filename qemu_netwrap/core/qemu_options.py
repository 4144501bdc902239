"""QEMU's option words, told apart by whether they take the next word as their argument.

QEMU looks a word up in one table (`lookup_opt` in system/vl.c, the table made from
qemu-options.hx) and, when the option takes an argument, swallows the next word whatever it
is. The table is the same for every target: an option of another architecture is looked up
first and refused afterwards.

The words are those that 7.2 and 10.0 both know (the table inside the program, and each word tried
on it); 11.1 knows them too, but for -old-param. Of those that came or went, no version ever changed
the kind. They are not here: whether a word is one, only the QEMU at hand can tell, and one that it
does not know it refuses.
"""

from __future__ import annotations

WITH_ARGUMENT: frozenset[str] = frozenset(
    """
    accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev
    compat cpu D d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb
    fsdev fw_cfg g gdb global hda hdb hdc hdd icount incoming initrd iscsi k kernel L
    loadvm M m machine mem-path mon monitor msg mtdblock name net netdev nic numa object
    option-rom overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest
    qtest-log readconfig rtc sandbox sd seed semihosting-config serial set smbios smp
    spice tpmdev trace usbdevice uuid vga virtfs vnc watchdog-action xen-domid
    """.split()
)

WITHOUT_ARGUMENT: frozenset[str] = frozenset(
    """
    daemonize enable-kvm enable-sync-profile full-screen h help mem-prealloc
    no-fd-bootchk no-reboot no-shutdown no-user-config nodefaults nographic old-param
    only-migratable preconfig S s semihosting snapshot usb version win2k-hack xen-attach
    xen-domid-restrict
    """.split()
)

# `-help` explains an option from this column on; text that starts before it is the argument.
_EXPLANATION = 16


def parse_help(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the option words of a `qemu -help` text: with an argument, and without.

    Hidden options and those of other architectures are not in such a text.
    """
    with_argument: set[str] = set()
    without_argument: set[str] = set()
    for line in text.splitlines():
        if line.startswith("-"):
            # Two words share a line: "-h or -help     display", "-fda/-fdb file  use 'file' as".
            head, _, rest = line.replace(" or -", "/-", 1).partition(" ")
            words = {word.lstrip("-") for word in head.split("/")}
            start = len(line) - len(rest.lstrip())
            # A long word pushes what follows it to the right: an argument by one space.
            argument = start < _EXPLANATION or (start > _EXPLANATION and not rest.startswith(" "))
            (with_argument if rest and argument else without_argument).update(words)
    return frozenset(with_argument), frozenset(without_argument - with_argument)
