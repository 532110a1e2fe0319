"""Text to tokens and back: merges, bytes, files that are not right."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from language import LETTERS, PAIRS, TEXT, entries, token, write_tokenizer
from polyad.errors import DataError
from polyad.tokenizer import FIRST_BYTE, FIRST_PIECE, Tokenizer, find_tokenizer, read_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return read_tokenizer(write_tokenizer(tmp_path / "tok.bin"))


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.pieces[token].decode() for token in tokenizer.encode(text)]


def greedy(tokenizer: Tokenizer, text: str) -> list[int]:
    """Every pair is looked at before each merge: the definition, in n^2."""
    tokens = tokenizer._single(f" {text}")
    while True:
        found = [(made, -at) for at in range(len(tokens) - 1) if (made := tokenizer.merge(*tokens[at : at + 2]))]
        if not found:
            return tokens
        (_, made), at = max(found, key=lambda one: (one[0][0], one[1]))
        tokens[-at : 2 - at] = [made]


def test_a_blank_is_one_with_the_first_word(tokenizer: Tokenizer) -> None:
    assert len(tokenizer) == FIRST_PIECE + len(PAIRS) + len(LETTERS)
    assert pieces(tokenizer, "the world") == [" the", " w", "or", "ld"]
    assert tokenizer.encode("the") == [token(" the")]
    assert tokenizer.encode("") == []


def test_the_best_score_is_merged_first(tmp_path: Path) -> None:
    def of(*pairs: str) -> list[str]:
        tokenizer = read_tokenizer(write_tokenizer(tmp_path / "tok.bin", entries(pairs)))
        return pieces(tokenizer, "bthe")

    assert of("th", "he") == [" ", "b", "th", "e"]
    assert of("he", "th") == [" ", "b", "t", "he"]
    assert of("th", "he", "the") == [" ", "b", "the"] == of("he", "the", "th")


def test_the_leftmost_of_equals_is_merged_first(tmp_path: Path) -> None:
    alike = [*entries(()), (-5.0, b"aa"), (-5.0, b"ab")]
    tokenizer = read_tokenizer(write_tokenizer(tmp_path / "tok.bin", alike))
    assert pieces(tokenizer, "aaab") == [" ", "aa", "ab"]
    assert pieces(tokenizer, "aaaab") == [" ", "aa", "aa", "b"]


@pytest.mark.parametrize("text", ["hello there, the other world", "tthhee" * 9, "ththe thethe wworld", TEXT])
def test_merges_are_those_of_the_definition(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text) == greedy(tokenizer, text)


@pytest.mark.parametrize(
    "text",
    [TEXT, "a", " a", "  ", "ä, 日本 🦙 \x00\x7f", "line\nline\r\n\ttab", "<0x0A> <s> \n<s>\n </s> <unk>", "ab" * 500],
)
def test_decode_gives_the_text_again(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.decode([1, *tokens, 2]) == text  # start and end stand for nothing
    assert min(tokens) >= FIRST_BYTE


def test_what_no_piece_covers_becomes_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("é") == [token(" "), FIRST_BYTE + 0xC3, FIRST_BYTE + 0xA9]
    assert tokenizer.decode([FIRST_BYTE + 0xC3]) == "\N{REPLACEMENT CHARACTER}"  # half a character


def test_special_pieces_are_never_made_from_text(tmp_path: Path) -> None:
    """A piece that ends a special one must not let text stand for a control token."""
    letters = [(-9.0, bytes([c])) for c in b"<>0xA\ns/"]
    halves = [(-1.0, b"<0x0A"), (-2.0, b"<0"), (-2.0, b"x0"), (-2.0, b"<0x0"), (-1.0, b"\n<s"), (-1.0, b"\n<")]
    tokenizer = read_tokenizer(write_tokenizer(tmp_path / "tok.bin", [*entries(()), *letters, *halves, (-1.0, b">\n")]))
    for text in ("<0x0A>", "\n<s>\n"):
        tokens = tokenizer.encode(text)
        assert min(tokens) >= FIRST_PIECE and tokenizer.decode(tokens) == text


def test_long_texts_take_no_squares_of_their_length(tokenizer: Tokenizer) -> None:
    text = "the other world, " * 20_000  # 340,000 characters: squares would take hours
    tokens = tokenizer.encode(text)
    assert len(tokens) < 200_000 and tokenizer.decode(tokens) == text


def swapped(raw: bytes) -> bytes:
    """The pieces of the bytes 0 and 1 change places."""
    return raw.replace(b"<0x00>", b"<0x??>").replace(b"<0x01>", b"<0x00>").replace(b"<0x??>", b"<0x01>")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[:-1], "ends inside token 283"),
        (lambda raw: raw[:-6], "ends inside token 283"),
        (lambda raw: raw[:7], "ends inside token 0"),
        (lambda raw: raw[:2], "it has 2 bytes"),
        (lambda raw: b"", "it has 0 bytes"),
        (lambda raw: raw[:4], "longest piece has 6 bytes, and that has 0"),
        (lambda raw: raw[:100], "token 7 is not <0x04>"),
        (lambda raw: struct.pack("<i", 9) + raw[4:], "longest piece has 9 bytes, and that has 6"),
        (lambda raw: raw[:4] + struct.pack("<fi", 0.0, -5) + raw[12:], "token 0 has the length -5"),
        (lambda raw: raw[:4] + struct.pack("<f", float("nan")) + raw[8:], "the score nan"),
        (swapped, "token 3 is not <0x00>"),
        (lambda raw: b'{"model": {"type": "BPE", "vocab": {}}}', "no tokenizer of llama2.c"),
    ],
)
def test_damaged_files(tmp_path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path = write_tokenizer(tmp_path / "tok.bin")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as error:
        read_tokenizer(path)
    assert str(path) in str(error.value) and says in str(error.value) and "--tokenizer FILE" in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.bin cannot be read \(No such file.*tok512\.bin"):
        read_tokenizer(tmp_path / "no.bin")


def test_the_only_one_in_a_folder_is_found(tmp_path: Path) -> None:
    assert find_tokenizer(tmp_path / "a.txt") is None
    path = write_tokenizer(tmp_path / "tok512.bin")
    (tmp_path / "weights.bin").touch()
    assert find_tokenizer(tmp_path / "a.txt") == path
    write_tokenizer(tmp_path / "tokenizer.bin")
    assert find_tokenizer(tmp_path / "a.txt") is None


def test_the_published_tokenizer(data_folder: Path) -> None:
    """Known tokens, and whole stories there and back."""
    folder = data_folder / "tinystories260k"
    tokenizer = read_tokenizer(folder / "tok512.bin")
    assert len(tokenizer) == 512
    assert tokenizer.encode("Once upon a time") == [403, 407, 261, 378]
    for name in ("tinystories_sample.txt", "tinystories_valid_head.txt"):
        text = (folder / name).read_text(encoding="utf-8")
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode(text[:700]) == greedy(tokenizer, text[:700])
