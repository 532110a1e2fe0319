"""The tensor network that an einsum equation stands for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A line between two nodes; `letter` is None on the spokes of a dot, which carries the letter itself."""

    ends: tuple[int, int]
    letter: str | None


@dataclass(frozen=True)
class Leg:
    """An open line at a node."""

    node: int
    letter: str


@dataclass(frozen=True)
class Network:
    """Nodes are numbered: the factors in the order of the equation, then the dots.

    A letter that two factors share is a line between them. A letter that joins three and more factors, or that joins
    factors and is open as well, is a dot with a line to each of them (a hyperedge).

    Attributes:
        factors: the letters of each factor.
        dots: the letter of each dot.
    """

    factors: tuple[str, ...]
    dots: tuple[str, ...]
    links: tuple[Link, ...]
    legs: tuple[Leg, ...]

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.factors) + len(self.dots)

    def is_dot(self, node: int) -> bool:
        return node >= len(self.factors)

    @classmethod
    def of(cls, equation: str) -> "Network":
        """Read `or,ir,kr->oik`."""
        left, view = equation.replace(" ", "").split("->")
        factors = tuple(left.split(","))
        holders = {letter: [at for at, one in enumerate(factors) if letter in one] for letter in left if letter != ","}
        dots = [letter for letter, at in holders.items() if _is_dot(len(at), letter in view)]
        links, legs = [], []
        for letter, at in holders.items():
            if letter in dots:
                dot = len(factors) + dots.index(letter)
                links += [Link((node, dot), None) for node in at]
                at = [dot]
            if letter in view:
                legs.append(Leg(at[0], letter))
            elif letter not in dots:
                links.append(Link((at[0], at[1]), letter))
        legs.sort(key=lambda leg: view.index(leg.letter))
        return cls(factors, tuple(dots), tuple(links), tuple(legs))


def _is_dot(factors: int, is_open: bool) -> bool:
    return factors > 1 if is_open else factors != 2
