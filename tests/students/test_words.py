"""The word encoder: what is a word, what is known, pretrained vectors of files and models, letters, and the BiLSTM."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from magister.students.encoders import vectors, words
from magister.students.encoders.words import BREAK, BREAK_WORD, UNKNOWN, BiLSTM, WordEncoder, WordsConfig
from magister.students.student import View
from magister.tasks.attributes import Example
from magister.tasks.task import DataFault
from torch import nn

TEXTS = ["Flat,Nautical Navy,4 M US", "nautical rope 4mm"]


def made(texts: list[str] = TEXTS, **settings: Any) -> WordEncoder:
    torch.manual_seed(0)
    config = WordsConfig(**settings)
    return WordEncoder(config, words.vocabulary(config, texts)).eval()


def rows(encoder: WordEncoder, *texts: str) -> dict[str, torch.Tensor]:
    return encoder.collate([[text[a:b] for a, b in words.units(text)] for text in texts])


@given(st.text())
def test_units_are_all_that_is_not_blank(text: str) -> None:
    spans = words.units(text)
    assert all(a < b for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    assert "".join(text[a:b] for a, b in spans) == "".join(c for c in text if not c.isspace())


def test_values_that_end_inside_a_blank_delimited_word_are_units() -> None:
    text = "Flat,Nautical Navy,4 M US"
    assert [text[a:b] for a, b in words.units(text)] == ["Flat", ",", "Nautical", "Navy", ",", "4", "M", "US"]
    chinese = "绿色T恤XL码"
    assert [chinese[a:b] for a, b in words.units(chinese)] == ["绿", "色", "T", "恤", "XL", "码"]


def test_the_vocabulary_counts_and_folds() -> None:
    lower = words.vocabulary(WordsConfig(min_count=2, characters="cnn"), TEXTS)
    assert lower["words"] == [",", "nautical"]
    assert lower["characters"] == "".join(sorted(set("".join(TEXTS)) - {" "}))
    assert "Nautical" in words.vocabulary(WordsConfig(lower=False), TEXTS)["words"]
    assert "characters" not in words.vocabulary(WordsConfig(), TEXTS)


def test_known_and_unknown_words() -> None:
    encoder = made()
    pieces = encoder.read("NAUTICAL yacht").pieces
    assert pieces[1] == (UNKNOWN,)
    assert pieces[0][0] > BREAK
    assert made(lower=False).read("NAUTICAL").pieces == ((UNKNOWN,),)
    given_words = encoder.read("nautical-rope", spans=[(0, 13)])
    assert given_words.spans == ((0, 13),)


def test_word_dropout_hides_words_in_training_alone() -> None:
    encoder = made(word_dropout=0.5)
    encoder.learned.weight.data = torch.arange(len(encoder.learned.weight)).float()[:, None].expand(-1, 50)
    tensors = encoder.collate([["nautical", BREAK_WORD] * 500])
    plain = encoder(tensors)[0, :, 0]
    hidden = encoder.train()(tensors)[0, :, 0]
    assert (plain[::2] > BREAK).all()
    assert (hidden[1::2] == BREAK).all(), "a break stays"
    assert set(hidden[::2].unique().tolist()) == {float(UNKNOWN), plain[0].item()}
    assert 0.4 < (hidden[::2] == UNKNOWN).float().mean() < 0.6


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def glove(tmp_path: Path) -> str:
    return write(tmp_path / "v.txt", "the 1 2", "of 3 4", "Navy 5 -6", "rope 7 8", "nautical 9 1", "at name .com 2 2")


def test_vectors_of_a_file(glove: str) -> None:
    config = WordsConfig(vectors=glove, vectors_first=1)
    known = words.vocabulary(config, TEXTS)
    assert known["vectors"] == ["the", "Navy", "rope", "nautical"]
    assert known["vector_width"] == 2
    encoder = WordEncoder(config, known).eval()
    encoder.fill()
    scale = torch.tensor([[1.0, 2], [5, -6], [7, 8], [9, 1]]).std()
    found = encoder(encoder.collate([["the", "Navy", "NAUTICAL", "yacht"]]))[0]
    expected = torch.tensor([[1.0, 2], [5, -6], [9, 1], [0, 0]]) / scale
    torch.testing.assert_close(found, expected)
    # A known word learns on top of its vector, one that training had not keeps it: only the shared offset moves it.
    encoder.learned.weight.data[encoder._number("navy")] = torch.tensor([1.0, 1.0])
    moved = encoder(encoder.collate([["the", "Navy"]]))[0]
    torch.testing.assert_close(moved, expected[:2] + torch.tensor([[0.0, 0], [1, 1]]))
    assert {"learned.weight", "pretrained.table"} <= encoder.state_dict().keys(), "kept with the student"


def test_lines_of_a_file(tmp_path: Path) -> None:
    headed = write(tmp_path / "h.txt", "2 3", "a 1 2 3", "a b 4 5 6", "a 7 8 9")
    assert vectors.words_of(headed, ["a"], 5) == (["a", "a b"], 3)
    bad = write(tmp_path / "b.txt", "a 1 2", "b 1 x", "c 1 2", "d", "e 1 inf", "c 1", "f nan 1")
    with pytest.raises(DataFault, match=r"b.txt, line 2, 4, 5 and 2 more: not a word and 2 numbers"):
        vectors.words_of(bad, ["a"], 9)
    with pytest.raises(DataFault, match="has no vector of any word"):
        vectors.words_of(headed, ["q"], 9)
    with pytest.raises(DataFault, match="cannot be read"):
        vectors.words_of(str(tmp_path / "none.txt"), ["q"], 9)


def test_vectors_of_a_model_are_the_mean_of_sub_tokens(tiny_bert: str) -> None:
    from magister.students.encoders import text

    backbone = text.load(tiny_bert)
    encoder = made(word_vectors=tiny_bert)
    ids = [[piece.id for piece in backbone.sub_tokens.word(word, True)] for word in ("Kawhi", "xyz", "Memory")]
    assert max(map(len, ids)) > 1
    table = backbone.embeddings.weight.detach()
    expected = torch.stack([table[own].mean(0) for own in ids]) / table.std()
    torch.testing.assert_close(encoder(encoder.collate([["Kawhi", "xyz", "Memory"]]))[0], expected)
    assert "pretrained.table" not in encoder.state_dict(), "read from the model again"
    assert not any(p.requires_grad and p.shape == table.shape for p in encoder.parameters())


def test_two_sources_of_vectors_clash() -> None:
    recipe = type("R", (), {"images": True, "student": "opentag"})
    said = [message for _, message in WordsConfig(vectors="f", word_vectors="minilm").clashes(recipe)]
    assert len(said) == 2
    assert list(WordsConfig(vectors="f").clashes(type("R", (), {"images": False}))) == []


@pytest.mark.parametrize("kind", ["cnn", "lstm"])
def test_letters_do_not_see_the_padding(kind: str) -> None:
    encoder = made(characters=kind, word_shapes=True)
    short, long = rows(encoder, "Navy 4"), rows(encoder, "Navy 4", "extraordinarily long words here")
    torch.testing.assert_close(encoder(short)[0], encoder(long)[0, :2])
    assert encoder(short).shape[-1] == encoder.width
    assert not torch.equal(encoder(rows(encoder, "yacht"))[0], encoder(rows(encoder, "boats"))[0])


def test_a_character_cnn_by_hand() -> None:
    torch.manual_seed(0)
    cnn = words.CharacterCNN(7)
    ids = [2, 5, 3, 6]
    embedded = [torch.zeros(words.CHARACTER), *(cnn.letters.weight[i] for i in ids), torch.zeros(words.CHARACTER)]
    weight, bias = cnn.convolution.weight, cnn.convolution.bias
    windows = [
        sum(weight[:, :, k] @ embedded[at + k] for k in range(3)) + bias
        for at in range(len(ids))
    ]  # fmt: skip
    torch.testing.assert_close(cnn(torch.tensor([[*ids, 0, 0]]))[0], torch.stack(windows).amax(0))


def test_the_bilstm_reads_each_row_as_if_alone() -> None:
    torch.manual_seed(0)
    bilstm = BiLSTM(5, 4)
    inputs, mask = torch.randn(3, 6, 5), torch.arange(6) < torch.tensor([[6], [2], [4]])
    states, final = bilstm(inputs, mask)
    for row, length in enumerate([6, 2, 4]):
        alone, (last, _) = bilstm.lstm(inputs[row : row + 1, :length])
        torch.testing.assert_close(states[row, :length], alone[0])
        torch.testing.assert_close(final[row], last.flatten())
        torch.testing.assert_close(final[row], torch.cat([alone[0, -1, :4], alone[0, 0, 4:]]))
        assert not states[row, length:].any()


def test_the_bilstm_is_exact_under_autocast() -> None:
    torch.manual_seed(0)
    bilstm, inputs, mask = BiLSTM(5, 4), torch.randn(1, 3, 5), torch.ones(1, 3, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = bilstm(nn.Identity()(inputs), mask)[0]
    torch.testing.assert_close(found, bilstm(inputs, mask)[0])


def test_side_texts_are_cut_and_counted() -> None:
    example = Example(id="p", text="x", context={"a": "one, two", "b": "three four", "c": " "})
    found, counts = words.sides(example, View(context=("a", "b", "c", "d")), 4)
    assert found == [["one", ",", "two"], ["three"]]
    assert counts == {"context_words_cut": 1}
    found, counts = words.sides(example, View(context=("b",)), None)
    assert (found, dict(counts)) == ([["three", "four"]], {})
