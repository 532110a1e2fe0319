"""What a choice costs: parameters, MACs and bytes of a site in a form at a rank."""

from polyad.decompositions.base import FORMS
from polyad.errors import FormError
from polyad.records import DENSE, Choice, Plan, Rank, Site
from polyad.storage import itemsize


def site_params(site: Site, form: str, rank: Rank) -> int:
    """Parameters, bias included."""
    return site.params if form == DENSE else FORMS[form].params(site.layer, rank)


def site_macs(site: Site, form: str, rank: Rank) -> int:
    """Multiply-accumulates for one sample, all runs together."""
    if form == DENSE:
        return site.macs
    return sum(run.times * FORMS[form].macs(site.layer, rank, run.size) for run in site.runs)


def site_bytes(site: Site, form: str, rank: Rank) -> int:
    """Bytes on disk: parameters in the type of the weight; the order of outputs (int64) of a form that sorts them."""
    found = site_params(site, form, rank) * itemsize(site.dtype)
    if form != DENSE and FORMS[form].reorders:
        found += site.layer.stack * site.layer.out_features * itemsize("int64")
    return found


def check_rank(site: Site, form: str, rank: Rank) -> None:
    """Raise FormError, with the layer's name, for a form or rank that the site cannot take."""
    if form == DENSE:
        return
    try:
        FORMS[form].check(site.layer, rank)
    except FormError as error:
        raise FormError(f"{site.name}: {error}") from None


def recounted(plan: Plan) -> Plan:
    """The plan with the costs that its forms and ranks have: an edit by hand changes those and not the sums.

    What was measured for a plan that was edited since says nothing any more and is left out.
    """
    found = plan.model_copy(update={"choices": tuple(map(_recounted, plan.choices))})
    edited = any(new.params != old.params for new, old in zip(found.choices, plan.choices, strict=True))
    return found.model_copy(update={"timed": None}) if edited else found


def _recounted(choice: Choice) -> Choice:
    check_rank(choice.site, choice.form, choice.rank)
    params = site_params(choice.site, choice.form, choice.rank)
    macs = site_macs(choice.site, choice.form, choice.rank)
    size = site_bytes(choice.site, choice.form, choice.rank)
    why = choice.why if params == choice.params else "edited by hand"
    return choice.model_copy(update={"params": params, "macs": macs, "bytes": size, "why": why})
