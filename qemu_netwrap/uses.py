"""Files that say who needs a thing that is shared: the first comer sets it up, the last undoes it.

One format for all of them, in the state folder: sysctls of the host's devices, our nftables table,
policy rules, physical functions, and the claims of runs to MACs, names and addresses.
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.record import Record


class Uses(Record):
    """Who needs a thing that is shared, and what it was before: what a file of theirs says.

    If there is a former state to go back to, its words are the first line. Then each use has a
    line, the first comer's first: who needs the thing and, after a space, what of it. The file is
    written before the thing is changed, and again when the use has ended.
    """

    former: tuple[str, ...] = ()
    users: tuple[tuple[str, str], ...] = ()  # who, and what of it: often nothing

    @classmethod
    def read(cls, path: str) -> Uses:
        """Read the file of a thing without a former state; one that is not there says nothing."""
        return cls((), _users(linux.files.read(path).split("\n")))

    @classmethod
    def read_changed(cls, path: str) -> Uses:
        """Read the file of a thing with a former state; one that is not there says nothing."""
        first, *lines = linux.files.read(path).split("\n")
        return cls(tuple(first.split()), _users(lines))

    @property
    def names(self) -> tuple[str, ...]:
        """Who needs it."""
        return tuple(who for who, _ in self.users)

    def with_use(self, who: str, what: str = "") -> Uses:
        """Return them with one more, behind those that came before it."""
        return self.replace(users=tuple(dict.fromkeys((*self.users, (who, what)))))

    def without(self, who: str, what: str = "") -> Uses:
        """Return them without one, which may be missing."""
        return self.replace(users=tuple(each for each in self.users if each != (who, what)))

    def write(self, path: str) -> None:
        """Write the file."""
        first = [" ".join(self.former)] if self.former else []
        lines = [*first, *(" ".join(filter(None, each)) for each in self.users)]
        linux.files.write(path, "".join(f"{line}\n" for line in lines))

    def keep(self, path: str) -> None:
        """Write the file, or remove it when nobody needs the thing."""
        if self.users:
            self.write(path)
        else:
            linux.files.remove(path)


def _users(lines: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the uses in LINES."""
    parts = (line.partition(" ") for line in lines)
    return tuple((who, what) for who, _, what in parts if who)


def claim(path: str, run: str, what: str) -> None:
    """Add a run to a file of claims, behind those that came before it."""
    known = Uses.read(path)
    if (run, what) not in known.users:
        known.with_use(run, what).write(path)


def disclaim(path: str, run: str, what: str) -> bool:
    """Take a run out of a file of claims; return whether it was there."""
    known = Uses.read(path)
    rest = known.without(run, what)
    if rest != known or not rest.users:
        rest.keep(path)
    return rest != known
