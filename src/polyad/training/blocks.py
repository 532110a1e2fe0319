"""The blocks of a network: residual blocks, transformer layers, runs of plain layers.

A block is a chain of modules of which each takes what the one before it gives: usually one module, a child of an
nn.Sequential or nn.ModuleList that has layers of its own inside; neighbours in an nn.Sequential together where each has
few; and, outside all of these, a layer with the batch norm behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from polyad.errors import PlanError
from polyad.naming import inside, matches
from polyad.outputs import outputs_tensor
from polyad.records import Choice

LEAST = 4
"""Replaceable layers in a block, where neighbours in an nn.Sequential can be put together."""

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Block:
    """A part of a network that is trained by itself.

    Attributes:
        modules: names of its modules in the order in which they run.
        choices: what the plan says about the layers inside.
    """

    modules: tuple[str, ...]
    choices: tuple[Choice, ...]

    @property
    def name(self) -> str:
        """For people."""
        first, *rest = self.modules
        return f"{first} to {rest[-1]}" if rest else first or "the network"

    @property
    def macs(self) -> int:
        """Of the layers that may be replaced, as the plan has them, for one sample."""
        return sum(choice.macs for choice in self.choices)

    def of(self, model: nn.Module) -> "Chain":
        """Its modules in a network, the very ones."""
        return Chain(*(model.get_submodule(name) for name in self.modules))

    def relative(self) -> tuple[Choice, ...]:
        """The choices with the names that layers, and batch norms behind them, have in the chain."""
        found = []
        for choice in self.choices:
            names = {"name": self._inner(choice.site.name), "norm_behind": self._inner(choice.site.norm_behind)}
            found.append(choice.model_copy(update={"site": choice.site.model_copy(update=names)}))
        return tuple(found)

    def _inner(self, name: str | None) -> str | None:
        """A name in the chain; None for what is not inside."""
        for at, module in enumerate(self.modules):
            if name is not None and inside(name, module):
                return f"{at}.{name.removeprefix(module).removeprefix('.')}".removesuffix(".")
        return None


class Chain(nn.Sequential):
    """Modules one after the other, of which the first may take more than one input."""

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        """What the first module takes -> the tensor that the last one gives."""
        first, *rest = self
        output = outputs_tensor(first(*args, **kwargs))
        for module in rest:
            output = outputs_tensor(module(output))
        return output


def find_blocks(model: nn.Module, choices: Sequence[Choice], named: Sequence[str] = ()) -> list[Block]:
    """The blocks of a network that hold layers of a plan, in the order of their names in the network.

    Args:
        model: the original.
        choices: of a plan; those of stacks belong to no block.
        named: names of modules that are blocks, or patterns as in `Settings.ignore`; what lies outside them is found.

    Raises:
        PlanError: no module with a layer of the plan has such a name.
    """
    single = {choice.site.name: choice for choice in choices if not choice.site.members}
    chains = _Finder(model, single, named).chains("", model, listed=False)
    return [Block(chain, tuple(single[name] for name in single if _within(name, chain))) for chain in chains]


class _Finder:
    """Walks down the module tree; a chain is a tuple of names."""

    def __init__(self, model: nn.Module, choices: dict[str, Choice], named: Sequence[str]) -> None:
        self.choices = choices
        modules = [name for name, _ in model.named_modules() if self._count(name)]
        self.named = {name for name in modules if any(matches(pattern, name, "blocks") for pattern in named)}
        for pattern in named:
            if not any(matches(pattern, name, "blocks") for name in modules):
                raise PlanError(f"blocks {pattern!r} names no module that holds a layer of the plan.")

    def chains(self, name: str, module: nn.Module, listed: bool) -> list[tuple[str, ...]]:
        """All chains in a module.

        Args:
            listed: whether it is the child of a container.
        """
        if not self._count(name):
            return []
        if name in self.named or (listed and self._is_block(name, module)):
            return [(name,)]
        if name in self.choices:
            norm = self.choices[name].site.norm_behind
            return [(name, norm) if norm else (name,)]
        if type(module).forward is nn.Sequential.forward:
            return self._in_sequence(name, module)
        listed = isinstance(module, CONTAINERS)
        return [chain for child, inner in _children(name, module) for chain in self.chains(child, inner, listed)]

    def _in_sequence(self, name: str, module: nn.Module) -> list[tuple[str, ...]]:
        """Children are put together up to `LEAST` layers; what has none, such as a ReLU, belongs to those before."""
        found: list[tuple[str, ...]] = []
        grows = False
        for child, inner in _children(name, module):
            if not self._count(child):
                if grows:
                    found[-1] += (child,)
                continue
            chains = self.chains(child, inner, listed=True)
            whole = chains and chains[0][0] == child
            if whole and grows and sum(map(self._count, found[-1])) < LEAST and child not in self.named:
                found[-1] += (child,)
            else:
                found += [(child,)] if whole else chains
            grows = bool(whole) and child not in self.named
        return found

    def _is_block(self, name: str, module: nn.Module) -> bool:
        """Whether it has layers inside, and no further blocks."""
        if isinstance(module, CONTAINERS) or name in self.choices or any(inside(other, name) for other in self.named):
            return False
        return not any(
            self._count(f"{name}.{at}.{child}")
            and f"{name}.{at}.{child}" not in self.choices
            and not isinstance(inner, CONTAINERS)
            for at, container in module.named_modules()
            if at and isinstance(container, CONTAINERS)
            for child, inner in container.named_children()
        )

    def _count(self, name: str) -> int:
        return sum(inside(site, name) for site in self.choices)


def _children(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.{child}" if name else child, inner) for child, inner in module.named_children()]


def _within(name: str, chain: Sequence[str]) -> bool:
    return any(inside(name, module) for module in chain)
