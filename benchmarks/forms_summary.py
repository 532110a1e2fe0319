"""What the fits of the table of forms say together: medians over layers, who wins, what a norm or a menu is worth.

Errors are those of the output on held-out inputs unless said otherwise. Where no rank of a form fits into a share its
error is 1: leaving the layer's output away costs nothing. Where a form refuses a layer the layer does not count for it.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from statistics import median

from forms_file import NORMS, SHARES, Fitted, Point, Results

LOST = 1.0
"""Relative error of a layer that is left away."""

NEGLIGIBLE = 1e-3
"""Where menus are compared an error below this counts as this: nobody needs a millionth instead of a hundred
thousandth."""

MENU = ("svd", "spatial_svd", "tucker2", "cp", "block_term")
"""The default menu when this was measured; `group_svd` has joined it since."""

MAIN = {
    "vdsr": r"64x64x3x3",
    "resnet20": r"\d+x\d+x3x3",
    "resnet56": r"\d+x\d+x3x3",
    "mobilenet_v2": r"\d+x\d+x1x1",
    "llama2c": r"\d+x\d+",
}
"""Shapes of the layers that the medians are over, in the order of the page; of MobileNetV2 the depthwise ones are told
of apart."""


@dataclass(frozen=True)
class Summary:
    """One network.

    Args:
        results: its fits.
        pattern: of the shapes that count.
    """

    results: Results
    pattern: str = ".*"

    @cached_property
    def layers(self) -> list[str]:
        """Names of the layers that count."""
        return [name for name, site in self.results.sites.items() if re.fullmatch(self.pattern, site["shape"])]

    @cached_property
    def _fits(self) -> dict[tuple[str, str, str], Fitted]:
        return {(fitted.site, fitted.form, fitted.norm): fitted for fitted in self.results.fits}

    @cached_property
    def forms(self) -> list[str]:
        """Forms that fit some layer within some share, the best ones first (inputs norm, a quarter kept)."""
        inside = set(self.layers)
        found = {fitted.form for fitted in self.results.fits if fitted.site in inside}
        return sorted(found, key=lambda form: (self.error(form, "inputs", 0.25), form))

    def carried(self, form: str) -> list[str]:
        """The layers that a form does not refuse."""
        refused = self.results.refused
        return [
            name
            for name in self.layers
            if any((name, form, norm) in self._fits for norm in NORMS)
            or refused[self.results.sites[name]["shape"]].get(form, "").startswith("its smallest rank")
        ]

    def point(self, layer: str, form: str, norm: str, share: float) -> Point | None:
        fitted = self._fits.get((layer, form, norm))
        return None if fitted is None else fitted.at(share)

    def errors(
        self, form: str, norm: str, share: float, judge: str = "held_out_error", layers: Collection[str] | None = None
    ) -> list[float]:
        """Of each layer that the form carries, or of some of them."""
        inside = [layer for layer in self.carried(form) if layers is None or layer in layers]
        points = [self.point(layer, form, norm, share) for layer in inside]
        return [LOST if point is None else getattr(point, judge) for point in points]

    def error(
        self, form: str, norm: str, share: float, judge: str = "held_out_error", layers: Collection[str] | None = None
    ) -> float:
        """Median over these layers; that of a lost one where the form carries none."""
        return median(self.errors(form, norm, share, judge, layers) or [LOST])

    def kinds(self) -> dict[str, list[str]]:
        """The layers by shape; 1x1 layers by whether they widen, matrices of blocks by what stands behind the block's
        number."""
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            numbered = re.fullmatch(r"layers\.\d+\.(.*)", layer)
            shape = self.results.sites[layer]["shape"]
            if shape.endswith("x1x1"):
                out, inp, *_ = map(int, shape.split("x"))
                shape = "1x1 to more channels" if out > inp else "1x1 to fewer channels"
            found.setdefault(f"{numbered[1]} {shape}" if numbered else shape, []).append(layer)
        return found

    def worth(self, form: str, share: float) -> float | None:
        """Median over layers of the error of the fit in the weight norm over that of the fit in the input norm."""
        pairs = zip(self.errors(form, "weights", share), self.errors(form, "inputs", share))
        found = [plain / weighted for plain, weighted in pairs if plain < LOST or weighted < LOST]
        return median(found) if found else None

    def unseen(self, form: str, share: float) -> float | None:
        """Median over layers of the held-out over the fitted error of the fit in the input norm."""
        points = [self.point(layer, form, "inputs", share) for layer in self.carried(form)]
        found = [point.held_out_error / point.output_error for point in points if point is not None]
        return median(found) if found else None

    def grown(self, form: str, share: float) -> float | None:
        """Share of the layers whose weight the fit in the input norm misses by more than the weight itself."""
        points = [self.point(layer, form, "inputs", share) for layer in self.carried(form)]
        found = [point.weight_error > LOST for point in points if point is not None]
        return sum(found) / len(found) if found else None

    def macs(self, form: str, share: float) -> float | None:
        """Median over layers of the MACs that are kept."""
        points = {layer: self.point(layer, form, "inputs", share) for layer in self.carried(form)}
        found = [point.macs / self.results.sites[layer]["macs"] for layer, point in points.items() if point is not None]
        return median(found) if found else None

    def seconds(self, form: str, norm: str) -> float:
        """Median over layers, of choosing the arrangement and fitting all shares."""
        found = [self._fits.get((layer, form, norm)) for layer in self.carried(form)]
        return median(fitted.seconds for fitted in found if fitted is not None)

    def wins(self, norm: str, share: float, forms: Collection[str] | None = None) -> Counter[str]:
        """On how many layers each form errs least."""
        return Counter(self._best(layer, norm, share, forms or self.forms)[1] for layer in self.layers)

    def menu(self, forms: Sequence[str], share: float) -> float:
        """Geometric mean over layers of the least error among some forms over that among all."""
        return _mean_ratio(
            (self._best(layer, "inputs", share, forms)[0], self._best(layer, "inputs", share, self.forms)[0])
            for layer in self.layers
        )

    def menu_macs(self, forms: Sequence[str], share: float) -> float:
        """The same at a share of the MACs, among all fits that take no more."""
        return _mean_ratio(
            (self._cheapest(layer, share, forms), self._cheapest(layer, share, self.forms)) for layer in self.layers
        )

    def _best(self, layer: str, norm: str, share: float, forms: Collection[str]) -> tuple[float, str]:
        points = {form: self.point(layer, form, norm, share) for form in forms}
        return min((point.held_out_error, form) if (point := points[form]) else (LOST, form) for form in points)

    def _cheapest(self, layer: str, share: float, forms: Collection[str]) -> float:
        allowed = share * self.results.sites[layer]["macs"]
        found = [self.point(layer, form, "inputs", kept) for form in forms for kept in SHARES]
        return min([LOST, *(point.held_out_error for point in found if point is not None and point.macs <= allowed)])


def _mean_ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Geometric mean of the ratios of errors, none of them smaller than the negligible one."""
    logs = [log(max(one, NEGLIGIBLE) / max(other, NEGLIGIBLE)) for one, other in pairs]
    return exp(sum(logs) / len(logs))
