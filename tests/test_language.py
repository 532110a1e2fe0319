"""A language model, from its files to a smaller one in a folder, with the published figures."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml

from conftest import Polyad
from data_files import items, refuses
from language import TEXT, entries, write_tokenizer, write_weights
from polyad.batches import as_batches
from polyad.checkpoint import load_network
from polyad.data import calibration_alone, calibration_and_evaluation, loader, open_data
from polyad.models import open_model
from polyad.records import Preprocessing
from polyad.tokenizer import START, read_tokenizer
from polyad.zoo.llama2c import SIZES


# ------------------------------------------------------------------------------------------------------------- the text
@pytest.fixture
def stories(tmp_path: Path) -> str:
    write_tokenizer(tmp_path / "tok.bin")
    (tmp_path / "stories.txt").write_text(TEXT)
    return f"text:{tmp_path / 'stories.txt'}"


def test_documents_are_read_on_their_own(stories: str, tmp_path: Path) -> None:
    source = open_data(stories)
    tokenizer = read_tokenizer(tmp_path / "tok.bin")
    found = items(source.splits["all"])
    assert [tokenizer.decode(x.tolist() + y[-1:].tolist()) for x, y in found] == TEXT.split("<|endoftext|>")
    assert all(x[0] == START and x[1:].equal(y[:-1]) for x, y in found)
    assert source.notes == () and source.classes == len(tokenizer)
    batches = as_batches(loader(source.splits["all"], 100))
    assert [tuple(batch.args[0].shape) for batch in batches] == [(1, len(x)) for x, _ in found]
    assert all(batch.labels is not None and batch.labels.shape == batch.args[0].shape for batch in batches)
    assert len(as_batches(source.splits["all"])) == len(batches)  # the set itself is data, as in Python
    again = pickle.loads(pickle.dumps(source.splits["all"]))
    assert again[1][0].equal(found[1][0])


def test_quotes_blanks_and_empty_documents(stories: str, tmp_path: Path) -> None:
    text = "\n \u201cthe\u201d \u2018hot\u2019 \n<|endoftext|>\n\n<|endoftext|>the\u00a0end"
    (tmp_path / "stories.txt").write_text(text, encoding="utf-8-sig")
    tokenizer = read_tokenizer(tmp_path / "tok.bin")
    decoded = [tokenizer.decode(y.tolist()) for _, y in items(open_data(stories).splits["all"])]
    assert decoded == ["\"the\" 'hot'", "the\u00a0end"]


def test_a_text_without_the_mark_is_cut_into_pieces(stories: str, tmp_path: Path) -> None:
    text = "the other world, " * 9 + "end"
    (tmp_path / "stories.txt").write_text(text)
    whole = [START, *read_tokenizer(tmp_path / "tok.bin").encode(text)]
    found = items(open_data(stories, Preprocessing(context=8)).splits["all"])
    assert all(0 < len(x) < 8 for x, _ in found) and found[0][0][0] == START
    assert [int(one) for _, y in found for one in y] == whole[1:]  # every token is predicted once
    assert [int(one) for x, _ in found for one in x] == whole[:-1]
    refuses(stories, "context is 1; expected at least two tokens", context=1)


def test_documents_beside_others_are_cut_off(stories: str) -> None:
    source = open_data(stories, Preprocessing(context=12))
    whole, found = (items(part.splits["all"]) for part in (open_data(stories), source))
    assert [len(x) for x, _ in found] == [min(len(x), 11) for x, _ in whole]
    cut = sum(len(x) > 11 for x, _ in whole)
    assert 0 < cut < 3
    assert len(source.notes) == 1 and f"{cut} of 3 documents" in source.notes[0] and "at 12 tokens" in source.notes[0]


def test_few_documents_leave_half_for_the_figures(stories: str) -> None:
    source = open_data(stories)
    fitted, judged = (items(part) for part in calibration_and_evaluation(source, 256, 0))
    assert (len(fitted), len(judged)) == (1, 2)
    assert not any(one.equal(other) for one, _ in fitted for other, _ in judged)
    assert len(items(calibration_alone(source, 256, 0))) == 3
    assert len(items(calibration_and_evaluation(source, 2, 0)[0])) == 2


def test_refusals(stories: str, tmp_path: Path) -> None:
    refuses("text:/no/such.txt", "no file '/no/such.txt'; write text:FILE")
    refuses(stories, "has 284 tokens; expected the 512 of the network", tokens=512)
    refuses(stories, r"no\.bin cannot be read", tokenizer=str(tmp_path / "no.bin"))
    (tmp_path / "stories.txt").write_text(" <|endoftext|>\n")
    refuses(stories, "holds no text; expected documents")
    (tmp_path / "stories.txt").write_bytes("schön".encode("latin-1"))
    refuses(stories, r"is not UTF-8 text \(byte 3\)")
    (tmp_path / "stories.txt").write_text(TEXT)
    write_tokenizer(tmp_path / "tok2.bin")
    refuses(
        stories, r"needs a tokenizer; expected --tokenizer FILE .* a single tok\*\.bin beside the weights or beside"
    )


# ----------------------------------------------------------------------------------------------------- the command line
@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and tokenizer in one folder, a text in another: all made up, in the sizes of zoo:llama2c."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "net").mkdir()
    torch.manual_seed(0)
    write_weights(folder / "net" / "random.bin", open_model("zoo:llama2c").module, SIZES)
    filled = entries()
    filled += [(-99.0, f"~{i}".encode()) for i in range(SIZES.tokens - len(filled))]
    write_tokenizer(folder / "net" / "tok512.bin", filled)
    lines = [f"the other world {'and the lord ' * (i % 5)}, hello number {i}" for i in range(12)]
    (folder / "text.txt").write_text("<|endoftext|>".join(lines))
    return folder


def test_a_language_model_is_compressed_and_loaded(polyad: Polyad, made_up: Path, tmp_path: Path) -> None:
    network = ("zoo:llama2c", "--weights", made_up / "net" / "random.bin")
    chosen = (*network, "--data", f"text:{made_up / 'text.txt'}", "--samples", "6", "--budget", "params=80%")
    out = tmp_path / "small"
    ran = polyad("compress", *chosen, "--out", out, "--json")
    found = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert [row["name"] for row in found["refused"]] == ["embedding", "head"] and found["params"]["kept"] <= 0.8
    assert found["before"]["metric"] == found["after"]["metric"] == "perplexity"
    assert found["after"]["difference"] == pytest.approx(found["after"]["value"] - found["before"]["value"])
    loaded = load_network(out)
    assert loaded.head.weight is loaded.embedding.weight
    assert sum(parameter.numel() for parameter in loaded.parameters()) == found["params"]["after"]
    text = (out / "report.html").read_text() + (out / "README.md").read_text()
    assert text.count("perplexity (lower is better)") == 2 and "accuracy" not in text.partition("<script>")[0]
    # The folder has no tokenizer beside it, and none is beside the text.
    data = ("--data", f"text:{made_up / 'text.txt'}")
    ran = polyad("evaluate", out, *data)
    assert ran.code == 2 and "needs a tokenizer; expected --tokenizer FILE" in ran.err
    named = (*data, "--tokenizer", made_up / "net" / "tok512.bin")
    ran = polyad("evaluate", out, *named, "--reference", "zoo:llama2c", "--reference-weights", network[2])
    assert ran.code == 0 and ran.out.startswith("perplexity ") and "nats per token; " in ran.out
    assert " tokens, cross-entropy" in ran.out and "against the reference" in ran.out
    for command in (("benchmark", out, "--runs", "3", "--input", "40"), ("report", out), ("inspect", *network)):
        ran = polyad(*command)
        assert (ran.code, ran.err) == (0, "") and ran.out


def test_the_loaded_network_gives_the_same_bits(polyad: Polyad, made_up: Path, tmp_path: Path) -> None:
    """The figures of the report are those of the folder, read in another place with the recipe's own text."""
    text, tokenizer = f"text:{made_up / 'text.txt'}", made_up / "net" / "tok512.bin"
    (tmp_path / "weights").mkdir()
    alone = tmp_path / "weights" / "alone.bin"
    alone.write_bytes((made_up / "net" / "random.bin").read_bytes())
    options = ("zoo:llama2c", "--weights", alone, "--data", text, "--calibration", text, "--budget", "params=85%")
    assert polyad("plan", *options).code == 2  # no tokenizer anywhere
    out = tmp_path / "small"
    ran = polyad("compress", *options, "--tokenizer", tokenizer, "--forms", "svd", "--out", out, "--json")
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["tokenizer"] == str(tokenizer)
    again = json.loads(polyad("evaluate", out, "--data", text, "--tokenizer", tokenizer, "--json").out)
    reported = json.loads(ran.out)["after"]
    assert (again["value"], again["loss"]) == (reported["value"], reported["loss"])
    assert polyad("plan", "--recipe", out / "recipe.yaml", "--out", tmp_path / "plan.json", "--quiet").code == 0
    plans = [json.loads(path.read_text()) for path in (tmp_path / "plan.json", out / "plan.json")]
    assert plans[0]["choices"] == plans[1]["choices"]


# ------------------------------------------------------------------------------------------------------- the real files
@pytest.mark.parametrize(
    ("text", "loss", "count", "cut"),
    [("tinystories_valid_head.txt", 1.1974, 6989, 1), ("tinystories_sample.txt", 1.2641, 1802, 0)],
)
def test_published_figures(polyad: Polyad, data_folder: Path, text: str, loss: float, count: int, cut: int) -> None:
    folder = data_folder / "tinystories260k"
    chosen = ("zoo:llama2c", "--weights", folder / "stories260K.bin", "--data", f"text:{folder / text}")
    ran = polyad("evaluate", *chosen, "--json")
    found = json.loads(ran.out)
    assert found["samples"] == count and found["loss"] == pytest.approx(loss, abs=5e-5)
    assert found["metric"] == "perplexity" and found["value"] == pytest.approx(2.718281828 ** found["loss"])
    assert ("cut off at 512 tokens" in ran.err) == bool(cut)


def test_the_greedy_continuation(data_folder: Path) -> None:
    folder = data_folder / "tinystories260k"
    model = open_model("zoo:llama2c", folder / "stories260K.bin").module
    tokenizer, found = read_tokenizer(folder / "tok512.bin"), [START]
    with torch.no_grad():
        while len(found) < 60:
            found.append(int(model(torch.tensor([found]))[0, -1].argmax()))
    expected = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    assert tokenizer.decode(found).startswith(expected)


def test_a_trained_language_model_is_compressed(polyad: Polyad, data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "tinystories260k"
    text = f"text:{folder / 'tinystories_valid_head.txt'}"
    chosen = ("zoo:llama2c", "--weights", folder / "stories260K.bin", "--data", text, "--budget", "params=95%")
    ran = polyad("compress", *chosen, "--out", tmp_path / "small")
    assert ran.code == 0
    report = json.loads((tmp_path / "small" / "report.json").read_text())
    before, after = report["before"]["value"], report["after"]["value"]
    assert before < after < 1.5 * before  # 3.33 -> 3.74
    assert 0 < report["after"]["standard_error"] < report["after"]["difference"]
    assert "perplexity (lower is better)" in ran.out and "loss (nats per token)" in ran.out
