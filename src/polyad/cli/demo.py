"""`polyad demo`: the whole story on built-in data."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from polyad.batches import as_batches
from polyad.budget import Budget
from polyad.checkpoint import load_network
from polyad.cli.compress import summary
from polyad.cli.console import bars, console, print_json, say
from polyad.cli.evaluate import sentence
from polyad.data import calibration_and_evaluation, loader, open_data
from polyad.errors import CheckpointError
from polyad.evaluation import evaluate
from polyad.folders import check_writable
from polyad.models import build_model
from polyad.pipeline import compress
from polyad.progress import Progress
from polyad.report import print_report
from polyad.saving import save

MODEL, DATA, BUDGET = "zoo:digits_cnn", "digits", Budget(params=0.3)
EPOCHS, BATCH, RATE = 20, 64, 3e-3


def run(out: Path, quiet: bool, as_json: bool) -> None:
    check_writable(out)
    silent = quiet or as_json
    progress = bars(silent)
    torch.manual_seed(0)
    source = open_data(DATA)
    calibration, test = calibration_and_evaluation(source, samples=512, seed=0)
    say("1. Train a small convolutional network on handwritten digits (scikit-learn's, real scans).", silent)
    teacher = train(build_model(MODEL), source.splits["train"], progress)
    judged = as_batches(loader(test, 256))
    before = evaluate(teacher, judged)
    say(f"   {sentence(before)}", silent)
    say(f"2. Compress it to {BUDGET} and recover it; labels are not looked at.", silent)
    result = compress(
        teacher,
        loader(calibration, 256),
        budget=BUDGET,
        evaluation=judged,
        source=MODEL,
        samples=512,
        progress=progress,
    )
    for note in result.report.recovered:
        say(f"   {note}", silent)
    say(f"3. Save it to {out}, load it back, evaluate what was loaded.", silent)
    save(result, out)
    loaded = load_network(out)
    check_identical(result.model, loaded, judged)
    say(f"   {sentence(evaluate(loaded, judged, reference=teacher))}", silent)
    if as_json:
        print_json(summary(result.report))
    elif not quiet:
        print_report(result.report, console)
        say(f"The report is {out / 'report.html'}. Next: polyad inspect zoo:resnet20, polyad compress --help")


def train(model: nn.Module, data: Dataset, progress: Progress) -> nn.Module:
    """Cross-entropy, Adam with one cycle of the learning rate."""
    batches = DataLoader(data, BATCH, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * len(batches))
    model.train()
    for _ in progress(range(EPOCHS), "train"):
        for images, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def check_identical(model: nn.Module, loaded: nn.Module, batches: list) -> None:
    """What was saved has to give the same bits."""
    with torch.inference_mode():
        if not torch.equal(batches[0].run(model.eval()), batches[0].run(loaded)):
            raise CheckpointError("The reloaded network differs from the saved one; please report this.")
