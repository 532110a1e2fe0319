"""What can be asked on the command line, and how it is answered.

Nothing here imports torch: `--help` has to be quick. Each command loads the file that does it when it is called.
"""

import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from polyad.cli import options as o
from polyad.cli.lists import add_lists
from polyad.cli.shared import choices, training, with_options
from polyad.errors import PolyadError, notes_of

app = typer.Typer(
    name="polyad",
    help="Compress trained PyTorch networks with tensor decompositions, under a budget, with the evidence.\n\n"
    "Start with `polyad demo`, then `polyad inspect MODEL`, then `polyad compress MODEL --data DATA --budget params=50%"
    " --out DIR`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    """Say which Polyad this is, and nothing else."""
    if asked:
        typer.echo(f"polyad {version('polyad')}")
        raise typer.Exit


@app.callback()
def _start(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _answer(command: str, **options: Any) -> None:
    """Run the file of a command.

    PyTorch, which is loaded by it, is asked for large pages of memory: a tenth of the page faults.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import_module(f"polyad.cli.{command}").run(**options)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the result.")] = Path("demo"),
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """The whole story on built-in data, about a minute: train, compress, recover, save, reload, report.

    Example: polyad demo --out demo
    """
    _answer("demo", out=out, quiet=quiet, as_json=as_json)


@app.command()
def inspect(
    model: o.Model,
    weights: o.Weights = None,
    input_size: o.InputSize = None,
    forms: Annotated[
        str | None,
        typer.Option(
            "--forms",
            metavar="A,B",
            help="Names or all: which of them carries each layer, and up to which rank it saves.",
        ),
    ] = None,
    plugin: o.Plugin = None,
    split: o.Split = None,
    stack: o.Stack = None,
    as_json: o.Json = False,
) -> None:
    """Which layers can be replaced, what they cost, what is refused and why.

    Example: polyad inspect zoo:resnet20 --forms all
    """
    options = locals()
    del options["plugin"]
    _answer("inspect", **options)


@app.command()
@with_options(choices)
def plan(
    model: o.Model,
    data: o.Data,
    recipe: o.Recipe = None,
    preset: o.Preset = None,
    budget: o.Budgets = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where plan.json goes.")] = None,
    **options: Any,
) -> None:
    """Decide only: an editable plan.json, to be carried out by `compress --plan`.

    What an interrupted run has finished is kept in FILE.work; the same command with --resume goes on from there.

    Example: polyad plan zoo:resnet20 --weights resnet20.th --data npz:cifar10.npz --budget params=50% --out plan.json
    """
    del options["plugin"]
    _answer("plan", model=model, data=data, budget=budget, out=out, **options)


@app.command()
@with_options(choices, training)
def compress(
    context: typer.Context,
    model: o.Model,
    data: o.Data,
    out: o.Out,
    recipe: o.Recipe = None,
    preset: o.Preset = None,
    budget: o.Budgets = None,
    plan: Annotated[Path | None, typer.Option("--plan", metavar="FILE", help="A plan.json to carry out.")] = None,
    recover: o.Recover = "statistics",
    **options: Any,
) -> None:
    """A smaller network in a new folder, with plan, report and model card.

    Calibration inputs come from the training split of --data (no labels are looked at), figures from its test split.
    What an interrupted run has finished is kept in DIR.work; the same command with --resume goes on from there.

    Example: polyad compress zoo:resnet20 --weights resnet20.th --data npz:cifar10.npz --budget params=50% --out small
    """
    options |= {"model": model, "data": data, "out": out, "budget": budget, "plan": plan, "recover": recover}
    _answer("compress", **import_module("polyad.cli.recipe").settle_plan(context, options))


@app.command()
@with_options(training)
def recover(
    folder: o.Folder,
    data: o.Data,
    out: o.Out,
    level: o.Level = "auto",
    model: o.Original = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    size: o.Size = None,
    tokenizer: o.Tokenizer = None,
    samples: o.Samples = 256,
    batch_size: o.BatchSize = 100,
    seed: o.Seed = 0,
    plugin: o.Plugin = None,
    resume: o.Resume = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    **options: Any,
) -> None:
    """Win back what a compressed network has lost, in a new folder: the same plan, the same counts.

    The original, which is learned from, is the one of the folder's recipe, or of --model and --weights. May be started
    by `accelerate launch` or `torchrun`, to share the work among processes.

    Example: polyad recover small --level distillation --data npz:cifar10.npz --time 20m --out better
    """
    said = {name: value for name, value in locals().items() if name not in ("plugin", "options")}
    _answer("recover", **said, **options)


@app.command()
def evaluate(
    model: o.Model,
    data: o.Data,
    weights: o.Weights = None,
    original: o.Original = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="MODEL", help="The original network, to measure divergence from."),
    ] = None,
    reference_weights: Annotated[
        Path | None, typer.Option("--reference-weights", metavar="FILE", help="State dict of --reference.")
    ] = None,
    mean: o.Mean = None,
    std: o.Std = None,
    size: o.Size = None,
    tokenizer: o.Tokenizer = None,
    batch_size: o.BatchSize = 100,
    plugin: o.Plugin = None,
    as_json: o.Json = False,
) -> None:
    """Accuracy or perplexity of a network, and its divergence from the original.

    Example: polyad evaluate small --data npz:cifar10.npz#test --reference zoo:resnet20 --reference-weights resnet20.th
    """
    options = locals()
    del options["plugin"]
    _answer("evaluate", **options)


@app.command()
def benchmark(
    model: o.Model,
    weights: o.Weights = None,
    original: o.Original = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Samples in one run.")] = 1,
    runs: Annotated[int, typer.Option("--runs", min=3, help="Timed runs of each network, in turn.")] = 30,
    runtime: o.Runtime = "eager",
    threads: o.Threads = None,
    input_size: o.InputSize = None,
    plugin: o.Plugin = None,
    as_json: o.Json = False,
) -> None:
    """Latency of a network; of a folder that Polyad wrote, against the dense network in the same run.

    Example: polyad benchmark small --batch-size 1
    """
    options = locals()
    del options["plugin"]
    _answer("benchmark", **options)


@app.command()
def export(
    model: o.Model,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="New file.", show_default=False)],
    format: Annotated[str, typer.Option("--format", "--to", help="onnx or pt2; see `polyad formats`.")] = "onnx",
    weights: o.Weights = None,
    original: o.Original = None,
    input_size: o.InputSize = None,
    plugin: o.Plugin = None,
    as_json: o.Json = False,
) -> None:
    """A network as a file for other runtimes, kept only if it computes there what PyTorch computes.

    Example: polyad export small --format onnx --out small.onnx
    """
    options = locals()
    del options["plugin"]
    _answer("export", **options)


@app.command()
def report(folder: o.Folder) -> None:
    """Print the report of a folder and write its HTML page again.

    Example: polyad report small
    """
    _answer("report", folder=folder)


@app.command()
def forms(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One form: its page.", show_default=False)
    ] = None,
    plugin: o.Plugin = None,
    as_json: o.Json = False,
) -> None:
    """The representations there are, or the page of one.

    Example: polyad forms tucker2
    """
    if name is None:
        _answer("listing", what="forms", as_json=as_json)
    else:
        _answer("form", name=name, as_json=as_json)


@app.command()
def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One preset: its settings and what differs from the paper.")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Methods of the literature that run, or one of them.

    Example: polyad presets alds2021
    """
    if name is None:
        _answer("listing", what="presets", as_json=as_json)
    else:
        _answer("presets", name=name, as_json=as_json)


add_lists(app, _answer)


def main() -> None:
    """Entry point: 0 done, 1 it failed, 2 a bad request."""
    try:
        app()
    except PolyadError as error:
        sys.stderr.write("".join((f"polyad: {error}\n", *(f"note: {text}\n" for text in notes_of(error)))))
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            sys.stderr.write(f"polyad: interrupted; {' '.join(notes_of(end)) or 'nothing was left behind'}\n")
        raise
    except Exception as error:  # the last resort: a failure still leaves with its code and its trace
        traceback.print_exc()
        sys.stderr.write(f"polyad: failed: {error}\n")
        sys.exit(1)
