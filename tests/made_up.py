"""A made-up report as a compression of a ResNet-20 would leave it."""

from polyad.outcome import Amount, Evaluation, Report, SiteReport
from polyad.records import Refusal

FORMS = ("tucker2", "svd", "spatial_svd", "cp", "dense")


def site(at: int, name: str, channels: int) -> SiteReport:
    """One row; later layers are wider and compress better."""
    form = FORMS[at % len(FORMS)]
    params, half = 9 * channels**2, channels // 2
    rank = {"tucker2": (half, half - 2), "svd": (half,), "spatial_svd": (half + 3,), "cp": (2 * channels,)}.get(
        form, ()
    )
    dense = form == "dense"
    energy = [1.0, *(float(f"{0.7 * 0.82 ** (r * 32 / channels):.4g}") for r in range(1, channels)), 0.0]
    return SiteReport(
        name=name,
        label="Conv2d",
        form=form,
        rank=rank,
        params_before=params,
        params=params if dense else params // (2 + at % 3) + at,
        macs_before=params * 1024 // (channels // 16) ** 2,
        macs=params * (1024 if dense else 400) // (channels // 16) ** 2,
        weight_error=0.0 if dense else 0.21 + at / 100,
        output_error=0.0 if dense else 0.0123456 + at / 1000,
        held_out_error=None if dense else 0.0145678 + at / 1000,
        energy=tuple(energy),
        why="dearest to lose per parameter, kept" if dense else "least damage per parameter saved within the budget",
    )


def report() -> Report:
    """Twenty sites, everything known."""
    names = [f"layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3) for block in (0, 1, 2) for conv in (1, 2)]
    widths = [16] * 6 + [32] * 6 + [64] * 6
    rows = [site(at, name, width) for at, (name, width) in enumerate(zip(names, widths, strict=True), 1)]
    rows = [site(0, "conv1", 16), *rows, site(4, "linear", 64)]
    return Report(
        model="zoo:resnet20",
        budget="params=30%",
        metric="inputs",
        allocator="knapsack",
        recovery="statistics",
        params=Amount(before=269722, after=80900),
        macs=Amount(before=40551424, after=14203392),
        bytes=Amount(before=1084808, after=329512),
        sites=tuple(rows),
        refused=(
            Refusal(
                name="stem.depthwise", label="Conv2d", params=144, macs=147456, reason="depthwise: no channels to share"
            ),
            Refusal(name="head.tied", label="Linear", params=640, macs=640, reason="its weight is tied to embed"),
        ),
        before=Evaluation(metric="accuracy", value=91.64, loss=0.2812, samples=1017),
        after=Evaluation(
            metric="accuracy",
            value=90.1,
            loss=0.3127,
            samples=1017,
            divergence=0.0412345,
            changed=43,
            difference=-1.54,
            standard_error=0.6,
        ),
        recovered=("statistics: 18 of 20 sites corrected, held-out divergence 0.0713 -> 0.0412",),
        seconds={"trace and observe": 3.2, "propose and allocate": 11.7, "fit": 8.1, "recover": 2.4, "evaluate": 1.9},
        provenance={"polyad": "0.1.0", "torch": "2.13.0+cpu", "machine": "x86_64, Linux, 2 threads", "seed": "0"},
    )


def bare() -> Report:
    """Everything optional missing: one dense layer, nothing evaluated."""
    row = SiteReport(
        name="fc",
        label="Linear",
        form="dense",
        rank=(),
        params_before=110,
        params=110,
        macs_before=100,
        macs=100,
        weight_error=0.0,
        output_error=None,
        held_out_error=None,
    )
    amount = Amount(before=110, after=110)
    return Report(
        model="Net",
        budget="",
        metric="weights",
        allocator="",
        recovery="",
        params=amount,
        macs=amount,
        bytes=amount,
        sites=(row,),
        refused=(),
    )
