"""What a choice costs: parameters, MACs and bytes of a site in a form at a rank."""

from polyad.decompositions.base import FORMS
from polyad.errors import FormError
from polyad.records import DENSE, NARROW, Choice, Plan, Rank, Site
from polyad.storage import itemsize


def site_params(site: Site, form: str, rank: Rank) -> int:
    """Parameters, bias included."""
    if form == NARROW:
        return site.layer.narrower(*rank).params
    return site.params if form == DENSE else FORMS[form].params(site.layer, rank)


def site_macs(site: Site, form: str, rank: Rank) -> int:
    """Multiply-accumulates for one sample, all runs together."""
    if form == DENSE:
        return site.macs
    if form == NARROW:
        return sum(run.times * site.layer.narrower(*rank).macs(run.size) for run in site.runs)
    return sum(run.times * FORMS[form].macs(site.layer, rank, run.size) for run in site.runs)


def site_bytes(site: Site, form: str, rank: Rank) -> int:
    """Bytes on disk: parameters in the type of the weight; the order of outputs (int64) of a form that sorts them."""
    found = site_params(site, form, rank) * itemsize(site.dtype)
    if form not in (DENSE, NARROW) and FORMS[form].reorders:
        found += site.layer.stack * site.layer.out_features * itemsize("int64")
    return found


def check_rank(site: Site, form: str, rank: Rank) -> None:
    """Raise FormError, with the layer's name, for a form or rank that the site cannot take."""
    if form in (DENSE, NARROW):
        return
    try:
        FORMS[form].check(site.layer, rank)
    except FormError as error:
        raise FormError(f"{site.name}: {error}") from None


def recounted(plan: Plan) -> Plan:
    """The plan with the costs that its forms and ranks have: an edit by hand changes those and not the sums.

    What was measured for a plan that was edited since says nothing any more and is left out.
    """
    kept = {name: len(one.kept) for one in plan.narrowed for name in one.hidden.layers}
    readers = {one.hidden.reader for one in plan.narrowed}
    choices = tuple(
        _with_width(choice, kept[choice.site.name], choice.site.name in readers) if choice.site.name in kept else choice
        for choice in plan.choices
    )
    found = plan.model_copy(update={"choices": tuple(map(_recounted, choices))})
    edited = any(new.params != old.params for new, old in zip(found.choices, plan.choices, strict=True))
    return found.model_copy(update={"timed": None}) if edited else found


def _recounted(choice: Choice) -> Choice:
    check_rank(choice.site, choice.form, choice.rank)
    params = site_params(choice.site, choice.form, choice.rank)
    macs = site_macs(choice.site, choice.form, choice.rank)
    size = site_bytes(choice.site, choice.form, choice.rank)
    why = choice.why if params == choice.params else "edited by hand"
    return choice.model_copy(update={"params": params, "macs": macs, "bytes": size, "why": why})


def _with_width(choice: Choice, kept: int, reads: bool) -> Choice:
    """A layer of narrowed channels has as many as the plan keeps."""
    layer = choice.site.layer
    rank = (layer.out_features if reads else kept, kept if reads or layer.groups > 1 else layer.in_features)
    return choice.model_copy(update={"form": NARROW, "rank": rank})
