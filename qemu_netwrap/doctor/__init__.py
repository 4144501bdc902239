"""What this host supports, and what is missing: facts, how they are collected, how they are rated.

Changes nothing. May import all but `cli`.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.doctor import checks as checks
    from qemu_netwrap.doctor import checkup as checkup
    from qemu_netwrap.doctor import facts as facts
    from qemu_netwrap.doctor import probe as probe
else:
    __getattr__ = lazy.submodules(__name__)
