"""Options that several commands share, each written once."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

MODEL_HELP = "zoo:NAME, torchvision:NAME, timm:NAME, hf:ID-or-folder, FILE.py:FUNCTION, or a folder that Polyad wrote"
DATA_HELP = (
    "digits, npz:FILE or npz:FILE#SPLIT, imagefolder:DIR, torchvision:NAME@DIR, hf:NAME, text:FILE, or FILE.py:FUNCTION"
)


def _load_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Run the files while the command line is read, so that every name is known before the command asks for it."""
    for path in paths or ():
        import_module("polyad.plugins").load_forms(path)
    return paths


Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder that Polyad wrote.", show_default=False)]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="State dict (.pth .pt .th .safetensors .npz), or .bin of llama2.c; never executes code.",
    ),
]
Original = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="What a folder was made from, where that is a file of your own."),
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
        help="What is KEPT: params=50%, macs=60%, params=120k, bytes=500kB on disk, memory=2MB of activations,"
        " latency=60% or 3ms as measured;"
        " drop=0.5: what may be lost, in points of accuracy; repeat or join by commas.",
    ),
]
Forms = Annotated[
    str | None,
    typer.Option(
        "--forms",
        metavar="A,B",
        help="Forms on the menu, by name or variant (cp,block_term/4), or all; those that `polyad forms` marks by"
        " default.",
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_load_plugins,
        help="Forms of your own: the file is run and registers them; may be repeated.",
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        help="Norm of the fits: inputs (what the layer sees), curvature, weights ...; see `polyad metrics`.",
    ),
]
Damage = Annotated[
    str | None,
    typer.Option(
        "--damage",
        help="What makes errors of different layers comparable; measured by default; see `polyad damages`.",
    ),
]
Allocator = Annotated[str, typer.Option("--allocator", help="How the budget is spent; see `polyad allocators`.")]
Floor = Annotated[
    str | None,
    typer.Option(
        "--floor",
        metavar="SHARE",
        help="The least share of a layer's parameters that is kept, such as 5%; against one destroyed layer.",
    ),
]
Finalists = Annotated[
    int,
    typer.Option(
        "--finalists",
        min=1,
        max=8,
        metavar="N",
        help="Plans that weigh damages differently, compared as whole networks by what they do to the outputs.",
    ),
]
Narrow = Annotated[
    bool,
    typer.Option(
        "--narrow",
        help="Channels between layers may be left out too: rows of the layers that write them, columns of the one that"
        " reads them.",
    ),
]
LEVELS = (
    "none, statistics, refit, reconstruction, distillation (no labels), finetune (labels too), or auto (as long as it"
    " pays)"
)
Recover = Annotated[str, typer.Option("--recover", metavar="LEVEL", help=f"Recovery: {LEVELS}.")]
Level = Annotated[str, typer.Option("--level", metavar="LEVEL", help=f"Recovery: {LEVELS}.")]
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
        "--set",
        metavar="LAYER=CHOICE",
        help="A layer's choice: LAYER=dense, LAYER=cp:12, LAYER=block_term/4:8x8; may be repeated.",
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
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="AMOUNT",
        help="Memory for the statistics of the layers, such as 4GB: the data is gone through several times, and the"
        " rest lies on disk. The result is the same.",
    ),
]
Runtime = Annotated[
    str,
    typer.Option("--runtime", help="What runs the network whose latency is measured; see `polyad runtimes`."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads of the runtime; as many as PyTorch takes by default."),
]
LatencyBatch = Annotated[
    int, typer.Option("--latency-batch", min=1, help="Samples in a pass whose latency the budget names.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the unfinished work in OUT.work that an interrupted run left.")
]
Json = Annotated[bool, typer.Option("--json", help="Only JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no table.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the result.", show_default=False)]
InputSize = Annotated[
    str | None, typer.Option("--input", metavar="C,H,W", help="Shape of one input sample, or tokens in it.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Samples in one batch.")]
TRAINING = "Levels that train"


def _of_training(name: str, help: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=TRAINING, **more)


Time = Annotated[str | None, _of_training("--time", "Ends it, the rate down by then: 90s, 20m, 1h.", metavar="TIME")]
Epochs = Annotated[int | None, _of_training("--epochs", "Passes over the samples.", min=1)]
TrainSamples = Annotated[
    int | None,
    _of_training("--train-samples", "How many of the training split, an eighth of them to judge by; all.", min=8),
]
TrainBatch = Annotated[int | None, _of_training("--train-batch", "Samples in one step.", min=1)]
Rate = Annotated[float | None, _of_training("--rate", "Highest rate, relative to the weights; by what is left to win.")]
Precision = Annotated[str | None, _of_training("--precision", "float32 or bfloat16.")]
Augment = Annotated[
    str | None,
    _of_training(
        "--augment", "Images are varied by none, shift, flip (and shift), mix (and both), or auto: what they bear."
    ),
]
Checkpoint = Annotated[str | None, _of_training("--checkpoint", "Time between two checkpoints.", metavar="TIME")]
Blocks = Annotated[
    list[str] | None,
    _of_training(
        "--blocks",
        "Modules that a reconstruction takes as blocks, as in --ignore; the others it finds.",
        metavar="PATTERN",
    ),
]
DenseControl = Annotated[
    bool, _of_training("--dense-control", "Also recover the original, to know what the recipe alone brings.")
]
FurtherTraining = Annotated[
    list[str] | None,
    _of_training(
        "--training",
        "Anything else about it, may be repeated: sweeps=2 (of a refit), features=1 (weight of what blocks give, in a"
        " distillation), labels=0.5 (weight of labels in finetune), norms=batch (batch norm trains), accumulate=4,"
        " patience=3, average=0.999, compile=true ...",
        metavar="NAME=VALUE",
    ),
]


def _read_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Take what the command line leaves out from a recipe."""
    return import_module("polyad.cli.recipe").defaults(context, path)


Recipe = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        is_eager=True,
        callback=_read_recipe,
        help="recipe.yaml of an earlier run: its options, where they are not given here.",
    ),
]


def _read_preset(context: typer.Context, name: str | None) -> str | None:
    """Take what neither the command line nor a recipe says from a preset."""
    return import_module("polyad.cli.presets").defaults(context, name)


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        is_eager=True,
        callback=_read_preset,
        help="A method of the literature: its forms, norm, allocator and recovery, where they are not given here; see"
        " `polyad presets`.",
    ),
]
