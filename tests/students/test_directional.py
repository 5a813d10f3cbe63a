"""Queries that do not see one another: the mask by hand, what a layer lets through, cells, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from magister.students.collate import stack
from magister.students.encoders import text as encoders
from magister.students.encoders.text import TextEncoder, UnsupportedBackbone
from magister.students.fusion.directional import CELL, QueriedLayout, check, kinds, read, sees
from magister.tasks import ner
from torch import Tensor


def test_who_sees_whom() -> None:
    """Text, text, query 1, query 2, padding, cell; the second row has no picture."""
    kind = torch.tensor([[0, 0, 1, 2, 0, CELL]]).expand(2, -1)
    real = torch.tensor([[1, 1, 1, 1, 0, 1], [1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    everything, first, second = [1, 1, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]
    mask = sees(kind, real)
    assert mask.dtype == torch.bool  # no query's number can become a bias, in the cells' rows either
    assert mask.shape == (2, 1, 6, 6)
    assert mask[0, 0].int().tolist() == [everything, everything, first, second, everything, everything]
    assert mask[1, 0, 0].int().tolist() == [1, 1, 1, 1, 0, 0]


@pytest.fixture(scope="module")
def one_layer(tiny_bert: str, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    from transformers import BertModel

    path = tmp_path_factory.mktemp("one")
    BertModel.from_pretrained(tiny_bert, num_hidden_layers=1).save_pretrained(path)
    return encoders.load(str(path), tokenizer=tiny_bert).eval()


def rows_of(encoder: TextEncoder, *questions: str) -> dict[str, Tensor]:
    layout, side = QueriedLayout(encoder), encoder.sub_tokens.text("red shirt")
    words = "Kawhi Leonard of Toronto"
    text = layout.read(ner.Example(id="e", text=words, words=words.split()))
    rows = [layout.rows(text, "e", question, [side])[0][0] for question in questions]
    return stack(encoder, rows, range(len(rows)))


def test_a_row_holds_its_queries_last(one_layer: TextEncoder) -> None:
    rows = rows_of(one_layer, "which names\nthe text ?", "")
    say = lambda ids: " ".join(one_layer.sub_tokens.tokenizer.convert_ids_to_tokens(ids))
    said = "[CLS] kawhi leonard of toronto [SEP] red shirt [SEP] which names [SEP] the text ? [SEP]"
    assert say(rows["input_ids"][0]) == said
    assert kinds(rows["token_type_ids"])[0].tolist() == [0] * 9 + [1] * 3 + [2] * 4
    assert rows["attention_mask"][1].sum() == 9


def test_queries_are_seen_by_the_text_and_not_by_each_other(one_layer: TextEncoder) -> None:
    """In one layer, what query 1 says reaches the text and nothing of query 2; a plain mask lets it through."""
    rows = rows_of(one_layer, "which names\nthe text ?", "red colour\nthe text ?")
    with torch.no_grad():
        states = read(one_layer, rows)
        plain = one_layer(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"].clamp(max=1))
    kind = kinds(rows["token_type_ids"])[0]
    torch.testing.assert_close(states[0][kind == 2], states[1][kind == 2])
    assert not torch.isclose(states[0][kind == 0], states[1][kind == 0]).all(-1).any()
    assert not torch.isclose(plain[0][kind == 2], plain[1][kind == 2]).all(-1).any()


def test_without_queries_and_pictures_it_is_the_backbone(one_layer: TextEncoder) -> None:
    rows = rows_of(one_layer, "", "")
    with torch.no_grad():
        plain = one_layer(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])
        torch.testing.assert_close(read(one_layer, rows), plain)


def test_cells_reach_the_text_of_their_own_row_alone(one_layer: TextEncoder) -> None:
    rows = rows_of(one_layer, "which names\nthe text ?", "which names\nthe text ?")
    cells = torch.randn(2, 3, one_layer.hidden)
    with torch.no_grad():
        states = read(one_layer, rows, None, cells, torch.tensor([True, False]))
        alone = read(one_layer, rows)
    torch.testing.assert_close(states[1], alone[1])
    kind = kinds(rows["token_type_ids"])[0]
    assert not torch.isclose(states[0][kind == 0], alone[0][kind == 0]).all(-1).any()
    torch.testing.assert_close(states[0][kind > 0], alone[0][kind > 0])


def test_only_backbones_that_take_such_a_mask(tiny_bert: str, tiny_gemma: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "pad_token_id": 0,
    }
    check(encoders.load(tiny_bert))
    RobertaModel(RobertaConfig(**sizes)).save_pretrained(tmp_path / "roberta")
    roberta = encoders.load(str(tmp_path / "roberta"), tokenizer=tiny_bert).eval()
    check(roberta)
    rows = rows_of(roberta, "", "")
    with torch.no_grad():
        plain = roberta(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])
        torch.testing.assert_close(read(roberta, rows), plain)
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    ModernBertModel(ModernBertConfig(**sizes, **special)).save_pretrained(tmp_path / "modern")
    for name in (str(tmp_path / "modern"), tiny_gemma):
        with pytest.raises(UnsupportedBackbone, match="take BERT"):
            check(encoders.load(name, tokenizer=tiny_bert))
