"""A table of interchangeable things, filled by the files of one folder.

Each file of the folder registers what it holds, beside its code; the first look-up imports them all. Adding a thing is
therefore one new file: the command line, the tests and the documentation read the registry.
"""

import importlib
import pkgutil
from collections.abc import Collection, Iterator, Sequence
from difflib import SequenceMatcher, get_close_matches
from os.path import commonprefix
from typing import Any, Generic, Protocol, TypeVar

from polyad.errors import UnknownNameError

T = TypeVar("T")


class Registry(Collection[str], Generic[T]):
    """Names to things of one kind.

    Args:
        kind: what one entry is called in messages ("form", "allocator").
        package: the package whose modules (or the module that itself) registers the entries, imported at the first
            look-up.
    """

    hint = ""
    """What else to say where a name is unknown."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._imported = False

    def register(self, name: str, entry: T) -> T:
        """Add an entry; the same name twice is a programming error."""
        if name in self._entries:
            raise ValueError(f"the {self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Take an entry out again."""
        del self._entries[name]

    def names(self) -> list[str]:
        """All names, in alphabetical order."""
        self._import_all()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> T:
        self._import_all()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self._unknown(name) + self.hint) from None

    def _unknown(self, name: str) -> str:
        close = get_close_matches(name, sorted(self._entries), n=len(self._entries), cutoff=0.5)
        hint = f" Did you mean {max(close, key=lambda known: _likeness(name, known))!r}?" if close else ""
        return f"There is no {self.kind} {name!r}. Known: {', '.join(self.names())}.{hint}"

    def _import_all(self) -> None:
        if self._imported:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self._package}.{module.name}")
        self._imported = True


class Form(Protocol):
    """What a registry of forms has to know of a form."""

    default: bool

    def variant(self, text: str) -> Any: ...


F = TypeVar("F", bound=Form)

ALL = "all"
"""Stands for every form where forms are named."""


class FormRegistry(Registry[F]):
    """Forms by name; "tt/iwho" is the variant `iwho` of the form `tt`."""

    hint = " A form of your own comes with --plugin FILE.py (polyad.load_forms in Python)."

    def __init__(self, kind: str, package: str) -> None:
        super().__init__(kind, package)
        self._variants: dict[str, F] = {}

    def __getitem__(self, name: str) -> F:
        base, slash, text = name.partition("/")
        form = super().__getitem__(base)
        if not slash:
            return form
        if name not in self._variants:
            self._variants[name] = form.variant(text)
        return self._variants[name]

    def remove(self, name: str) -> None:
        super().remove(name)
        self._variants = {known: form for known, form in self._variants.items() if known.split("/")[0] != name}

    def menu(self, names: Sequence[str] | None) -> list[F]:
        """The forms that names ask for: the default ones where there are no names, every one for "all".

        Raises:
            UnknownNameError: a form that does not exist, or "all" beside other names.
        """
        if names is None:
            return [form for form in map(self.__getitem__, self) if form.default]
        if ALL in names and len(names) > 1:
            others = ", ".join(name for name in names if name != ALL) or ALL
            raise UnknownNameError(
                f"'all' is every form there is: write --forms all, or name some without it ({others})."
            )
        return [self[name] for name in (self if ALL in names else names)]


def _likeness(name: str, known: str) -> tuple[float, int]:
    """Of names that are equally close the one that begins alike: resnet21 means resnet20 rather than resnet32."""
    return SequenceMatcher(None, known, name).ratio(), len(commonprefix((name, known)))
