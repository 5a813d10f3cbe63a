"""Encoder-decoders: transformers' own results as reference, warm start, LoRA, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from magister.students import saving
from magister.students.encoders import seq2seq, text
from magister.students.encoders.text import UnsupportedBackbone

IDS = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 0, 0]])
MASK = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])


@torch.no_grad()
def test_a_pretrained_one_is_transformers_own(tiny_t5: str) -> None:
    from transformers import T5ForConditionalGeneration

    encoder = seq2seq.load(tiny_t5).eval()
    reference = T5ForConditionalGeneration.from_pretrained(tiny_t5).eval()
    fed = torch.tensor([[encoder.start, 20, 21], [encoder.start, 22, 23]])
    states, logits = encoder.decode(encoder(IDS, MASK), MASK, fed)
    expected = reference(input_ids=IDS, attention_mask=MASK, decoder_input_ids=fed).logits
    assert torch.allclose(logits, expected, atol=1e-5)
    assert states.shape == (2, 3, encoder.width)
    assert encoder.fresh == ()
    assert (encoder.start, encoder.end) == (0, reference.config.eos_token_id)


@torch.no_grad()
def test_a_warm_start_has_the_encoders_weights_on_both_sides(tiny_bert: str) -> None:
    encoder, plain = seq2seq.load(tiny_bert).eval(), text.load(tiny_bert).eval()
    assert torch.allclose(encoder(IDS, MASK), plain(IDS, MASK), atol=1e-5)
    own, fresh = plain.plain.state_dict(), encoder.fresh
    for name, value in encoder.plain.decoder.bert.state_dict().items():
        module = f"decoder.bert.{name.rpartition('.')[0]}"
        assert (module in fresh) == ("crossattention" in name), name
        if module not in fresh:
            assert torch.equal(value, own[name]), name
    assert {name for name in fresh if "crossattention" not in name} == {
        "decoder.cls.predictions.transform.dense",
        "decoder.cls.predictions.transform.LayerNorm",
    }
    head = encoder.plain.decoder.get_output_embeddings().weight
    assert head is encoder.plain.decoder.get_input_embeddings().weight  # tied
    assert (encoder.start, encoder.end) == (encoder.sub_tokens.first, encoder.sub_tokens.separator)
    assert len(seq2seq.load(tiny_bert, layers=1).plain.decoder.bert.encoder.layer) == 1


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_t5"])
@torch.no_grad()
def test_the_decoder_sees_the_past_and_the_unmasked_alone(name: str, request: pytest.FixtureRequest) -> None:
    torch.manual_seed(0)
    encoder = seq2seq.load(request.getfixturevalue(name)).eval()
    memory = encoder(IDS, MASK)
    fed = torch.tensor([[encoder.start, 20, 21]] * 2)
    logits = encoder.decode(memory, MASK, fed)[1]
    longer = encoder.decode(memory, MASK, torch.cat([fed, torch.tensor([[30], [0]])], 1))[1]
    assert torch.allclose(longer[:, :3], logits, atol=1e-5)
    unread = torch.where(MASK[..., None] == 1, memory, torch.randn_like(memory))
    assert torch.allclose(encoder.decode(unread, MASK, fed)[1], logits, atol=1e-5)
    read = memory.roll(1, dims=0)
    assert not torch.allclose(encoder.decode(read, MASK, fed)[1], logits, atol=1e-3)
    cache = encoder.new_cache()
    first = encoder.decode(memory, MASK, fed[:, :1], cache)[1]
    rest = encoder.decode(memory, MASK, fed[:, 1:], cache)[1]
    assert torch.allclose(torch.cat([first, rest], 1), logits, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_t5"])
@pytest.mark.parametrize("rank", [0, 2])
def test_is_kept(name: str, rank: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    backbone = request.getfixturevalue(name)
    torch.manual_seed(0)
    encoder: Any = seq2seq.load(backbone)
    if rank:
        encoder.model = text.with_lora(encoder.model, rank, 2.0 * rank, 0.0, whole=encoder.fresh)
        trained = {n for n, p in encoder.named_parameters() if p.requires_grad}
        assert all("lora_" in n or "modules_to_save" in n for n in trained)
        assert len(encoder.fresh_parameters()) == sum("modules_to_save" in n for n in trained)
    assert bool(encoder.fresh_parameters()) == (name == "tiny_bert")
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    saving._write_encoder(tmp_path, encoder, backbone)
    torch.manual_seed(1)  # what is fresh begins differently
    back = saving.read_encoder(tmp_path, backbone, None, seq2seq.load)
    fed = torch.tensor([[encoder.start, 20, 21]] * 2)
    with torch.no_grad():
        encoder.eval(), back.eval()
        expected, found = (e.decode(e(IDS, MASK), MASK, fed)[1] for e in (encoder, back))
    assert torch.allclose(found, expected, atol=1e-5)
    assert (back.start, back.end, back.limit, back.hidden) == (
        encoder.start, encoder.end, encoder.limit, encoder.hidden,
    )  # fmt: skip


def test_decoders_are_refused(tiny_gemma: str, tiny_qwen: str) -> None:
    for backbone in (tiny_gemma, tiny_qwen):
        with pytest.raises(UnsupportedBackbone, match="is a decoder; take an encoder-decoder"):
            seq2seq.load(backbone)


def test_encoders_that_cannot_write_are_refused(tmp_path: Path, tiny_bert: str) -> None:
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    DistilBertModel(DistilBertConfig(vocab_size=300, dim=8, n_layers=1, n_heads=2, hidden_dim=8)).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedBackbone, match=r"cannot be a decoder|no attention to an encoder"):
        seq2seq.load(str(tmp_path))


def test_roberta_counts_its_positions_from_the_padding_onwards(tmp_path: Path, tiny_bert: str) -> None:
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=42, pad_token_id=0, type_vocab_size=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    encoder = seq2seq.load(str(tmp_path))
    assert encoder.limit == 41
    assert any("crossattention" in name for name in encoder.fresh)
    ids = torch.full((1, 41), 7)
    assert encoder(ids, torch.ones_like(ids)).shape == (1, 41, 8)
