"""Single findings of the table of forms, as the page says them."""

from collections.abc import Iterable, Mapping

from forms_file import SHARES
from forms_summary import Summary


def worse(summaries: Iterable[Summary], form: str, other: str) -> str:
    """On how many layers and shares one form errs more than another by a twentieth, in the input norm."""
    count = total = 0
    for summary in summaries:
        for share in SHARES:
            ones = (summary.point(layer, form, "inputs", share) for layer in summary.layers)
            others = (summary.point(layer, other, "inputs", share) for layer in summary.layers)
            pairs = [(a.output_error, b.output_error) for a, b in zip(ones, others) if a is not None and b is not None]
            total += len(pairs)
            count += sum(a > 1.05 * b for a, b in pairs)
    return f"{count} of {total} layers and shares by a twentieth and more"


def largest_weight_error(summaries: Mapping[str, Summary]) -> str:
    """The fit in the input norm that misses its weight most, at half of the parameters."""
    error, form, layer = max(
        (point.weight_error, fitted.variant, fitted.site)
        for summary in summaries.values()
        for fitted, point in summary.results.each("inputs", 0.5)
    )
    return f"{error:.0f} times the weight's squared norm (`{form}` on `{layer}`)"


def slowest(summaries: Mapping[str, Summary], count: int = 3) -> str:
    """The paths of fits that took longest."""
    fits = [
        (one.seconds, one.variant, one.site, summary.results.sites[one.site]["shape"])
        for summary in summaries.values()
        for one in summary.results.fits
    ]
    found = sorted(fits, reverse=True)[:count]
    return ", ".join(f"{seconds:.0f} s (`{form}` on `{site}`, {shape})" for seconds, form, site, shape in found)


def most_unseen(summary: Summary, share: float = 0.25) -> str:
    """The largest median of held-out over fitted error of any form."""
    return f"{max(summary.unseen(form, share) or 0.0 for form in summary.forms):.2f}"
