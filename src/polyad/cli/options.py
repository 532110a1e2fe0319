"""Options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "zoo:NAME, torchvision:NAME, timm:NAME, hf:ID-or-folder, FILE.py:FUNCTION, or a folder that Polyad wrote"
DATA_HELP = (
    "digits, npz:FILE or npz:FILE#SPLIT, imagefolder:DIR, torchvision:NAME@DIR, hf:NAME, text:FILE, or FILE.py:FUNCTION"
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="State dict (.pth .pt .th .safetensors .npz), or .bin of llama2.c; never executes code.",
    ),
]
Data = Annotated[str, typer.Option("--data", metavar="DATA", help=DATA_HELP, show_default=False)]
MaybeData = Annotated[str | None, typer.Option("--data", metavar="DATA", help=DATA_HELP, show_default=False)]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration", metavar="DATA", help="Calibration inputs, where they are not the training split of --data."
    ),
]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="UNIT=AMOUNT",
        help="What is KEPT: params=50%, macs=60%, params=120k; repeat or join by commas.",
    ),
]
Forms = Annotated[
    str | None, typer.Option("--forms", metavar="A,B", help="Forms on the menu; all of `polyad forms` by default.")
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        help="Norm of the fits: inputs (what the layer sees), curvature, weights ...; see `polyad metrics`.",
    ),
]
Allocator = Annotated[str, typer.Option("--allocator", help="How the budget is spent; see `polyad allocators`.")]
Recover = Annotated[str, typer.Option("--recover", metavar="LEVEL", help="Recovery: statistics, or none.")]
Samples = Annotated[
    int, typer.Option("--samples", min=2, help="Calibration samples; a fifth are held out of every fit.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random, such as the draw of the calibration samples.")]
RoundTo = Annotated[int, typer.Option("--round-to", min=1, help="Ranks are multiples of this.")]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", metavar="PATTERN", help="Layers left alone: a name, a wildcard, or re:REGEX; may be repeated."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="LAYER=CHOICE", help="A layer's choice: LAYER=dense or LAYER=cp:12; may be repeated."
    ),
]
Split = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        metavar="LAYER=PARTS",
        help="Linear layers that are several side by side: 'blocks.*.qkv=3' or =64,32,32; may be repeated.",
    ),
]
Stack = Annotated[
    list[str] | None,
    typer.Option(
        "--stack",
        metavar="PATTERN",
        help="Layers of one shape replaced together, so that they may share factors: a wildcard such as"
        " 'layers.*.attention.q'; may be repeated.",
    ),
]
Mean = Annotated[str | None, typer.Option("--mean", metavar="R,G,B", help="Subtracted from pixels in [0, 1].")]
Std = Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="Pixels are divided by it.")]
Size = Annotated[str | None, typer.Option("--size", metavar="H,W", help="Images are resized and cropped to it.")]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE",
        help="Cuts text into tokens (tok512.bin); a single tok*.bin beside the weights or the text by default.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no table.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the result.", show_default=False)]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Samples in one batch.")]
