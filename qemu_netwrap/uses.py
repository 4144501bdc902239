"""Files that list the users of a shared thing: the first user sets it up, the last one undoes it.

All have one format, in the state folder: sysctls of the host's devices, qemu-netwrap's nftables
table, policy rules, physical functions, and the claims of runs to MACs, names and addresses.
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.record import Record


class Uses(Record):
    """The users of a shared thing, and its former state: the content of one file.

    If there is a former state to restore, its words are the first line. Then each use has a line,
    the oldest first: the user (a network or run) and, after a space, what it uses. The file is
    written before the thing is changed, and again when the use has ended.
    """

    former: tuple[str, ...] = ()
    users: tuple[tuple[str, str], ...] = ()  # (user, what it uses), which is often empty

    @classmethod
    def read(cls, path: str) -> Uses:
        """Read the file of a thing without a former state; without a file there are no uses."""
        return cls((), _users(linux.files.read(path).split("\n")))

    @classmethod
    def read_changed(cls, path: str) -> Uses:
        """Read the file of a thing with a former state; without a file there are no uses."""
        first, *lines = linux.files.read(path).split("\n")
        # By spaces alone: an interface's name may have other white space in it.
        return cls(tuple(filter(None, first.split(" "))), _users(lines))

    @property
    def names(self) -> tuple[str, ...]:
        """The users: networks by their bridges, or runs."""
        return tuple(who for who, _ in self.users)

    def with_use(self, who: str, what: str = "") -> Uses:
        """Return a copy with one more use at the end; unchanged if it is there already."""
        return self.replace(users=tuple(dict.fromkeys((*self.users, (who, what)))))

    def without(self, who: str, what: str = "") -> Uses:
        """Return a copy without one use, which may be missing."""
        return self.replace(users=tuple(each for each in self.users if each != (who, what)))

    def write(self, path: str) -> None:
        """Write the file."""
        first = [" ".join(self.former)] if self.former else []
        lines = [*first, *(" ".join(filter(None, each)) for each in self.users)]
        linux.files.write(path, "".join(f"{line}\n" for line in lines))

    def keep(self, path: str) -> None:
        """Write the file, or remove it if there are no users."""
        if self.users:
            self.write(path)
        else:
            linux.files.remove(path)


def _users(lines: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the uses in LINES."""
    parts = (line.partition(" ") for line in lines)
    return tuple((who, what) for who, _, what in parts if who)


def claim(path: str, run: str, what: str) -> None:
    """Add a run's claim at the end of a file of claims, unless it is there already."""
    known = Uses.read(path)
    if (run, what) not in known.users:
        known.with_use(run, what).write(path)


def disclaim(path: str, run: str, what: str) -> bool:
    """Remove a run's claim from a file of claims; return whether it was there."""
    known = Uses.read(path)
    rest = known.without(run, what)
    if rest != known or not rest.users:
        rest.keep(path)
    return rest != known
