"""QEMU's option words, told apart by whether they take the next word as their argument.

QEMU looks a word up in one table (`lookup_opt` in system/vl.c, the table made from
qemu-options.hx) and, when the option takes an argument, swallows the next word whatever it
is. The table is the same for every target: an option of another architecture is looked up
first and refused afterwards.

The words are those of 2.9 (its qemu-options.hx), of 5.2 and 11.1 (the table inside the
program), and of 7.2 and 10.0 (the table inside the program, and each word tried on it).
None of them ever changed from one kind to the other.
"""

from __future__ import annotations

# First the words that 10.0 or 11.1 know, then those that were gone by then.
WITH_ARGUMENT: frozenset[str] = frozenset(
    """
    accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev
    compat cpu D d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb
    fsdev fw_cfg g gdb global hda hdb hdc hdd icount incoming initrd iscsi k kernel L
    loadvm M m machine mem-path mon monitor msg mtdblock name net netdev nic numa object
    option-rom overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest
    qtest-log readconfig rtc run-with sandbox sd seed semihosting-config serial set shim
    smbios smp spice tpmdev trace usbdevice uuid vga virtfs vnc watchdog-action xen-domid

    balloon bootp bt chroot clock hdachs realtime redir rotate runas smb soundhw
    startdate tb-size tftp virtioconsole watchdog writeconfig
    """.split()
)

WITHOUT_ARGUMENT: frozenset[str] = frozenset(
    """
    daemonize enable-kvm enable-sync-profile full-screen h help jitdump mem-prealloc
    no-fd-bootchk no-reboot no-shutdown no-user-config nodefaults nographic old-param
    only-migratable perfmap preconfig S s semihosting snapshot usb version win2k-hack
    xen-attach xen-domid-restrict

    alt-grab async-teardown audio-help ctrl-grab curses enable-fips enable-hax localtime
    no-acpi no-frame no-hpet no-kvm no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection
    no-quit nodefconfig portrait rtc-td-hack sdl show-cursor singlestep tdf virtfs_synth
    xen-create
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
