"""The configuration file: finding it, parsing it, and the effective settings.

The keys of a network are those of its mode, in `networks`. May import `networks` and all above it.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.config import effective as effective
    from qemu_netwrap.config import file as file
    from qemu_netwrap.config import key_texts as key_texts
    from qemu_netwrap.config import parse as parse
    from qemu_netwrap.config import toml_position as toml_position
else:
    __getattr__ = lazy.submodules(__name__)
