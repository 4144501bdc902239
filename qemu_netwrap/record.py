"""Immutable records: what `dataclass(frozen=True)` gives, without what importing it costs.

`dataclasses` pulls in `inspect`, `re` and `typing`: some 15 ms, twice an interpreter's start,
before a single field is declared (docs/decisions, 0001). Records are declared the same way and type
checkers see them as frozen dataclasses.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_: Any) -> Callable[[T], T]:
        """Stand in for `typing.dataclass_transform`, which only type checkers read."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """Base of all records. Fields are the annotated names, in order; defaults as in a dataclass.

    Equal when of the same class with equal fields; hashable when the fields are. Setting a field
    raises `AttributeError`; `replace` makes a changed copy.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Collect the fields a subclass declares, after its base's."""
        own = (n for n, kind in cls.__annotations__.items() if not kind.startswith("ClassVar"))
        cls.fields = (*cls.fields, *own)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set the fields by position or by name; raises `TypeError` as a function call would."""
        if len(args) == len(self.fields) and not kwargs:
            # Directly into the instance's own dict, since __setattr__ raises.
            self.__dict__.update(zip(self.fields, args, strict=True))
            return
        if len(args) > len(self.fields):
            msg = f"{type(self).__name__} takes {len(self.fields)} fields, not {len(args)}"
            raise TypeError(msg)
        values = dict(zip(self.fields, args, strict=False))
        for name, value in kwargs.items():
            if name in values or name not in self.fields:
                msg = f"{type(self).__name__}: unexpected field {name!r}"
                raise TypeError(msg)
            values[name] = value
        for name in self.fields:
            if name not in values and not hasattr(type(self), name):
                msg = f"{type(self).__name__}: field {name!r} is missing"
                raise TypeError(msg)
        self.__dict__.update(
            (n, values[n] if n in values else getattr(self, n)) for n in self.fields
        )

    def __setattr__(self, name: str, value: object) -> None:
        """Raise `AttributeError`: records are immutable."""
        msg = f"{type(self).__name__}.{name} cannot be set"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        """Raise `AttributeError`: records are immutable."""
        msg = f"{type(self).__name__}.{name} cannot be deleted"
        raise AttributeError(msg)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with the named fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def __eq__(self, other: object) -> bool:
        """Compare class and fields."""
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        """Hash class and fields."""
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        """Return the record as the call that makes it."""
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields)
        return f"{type(self).__name__}({inside})"
