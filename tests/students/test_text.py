"""Text backbones: words as sub-tokens, rows in windows, prompts that leave the text where it was."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.models import names, packaged
from magister.students import collate
from magister.students.collate import Layout, owner, read, shape, windows
from magister.students.encoders import text
from magister.students.encoders.text import TooLong, UnsupportedBackbone
from magister.students.student import View
from magister.tasks import ner
from transformers import AutoTokenizer


@pytest.fixture(scope="module")
def encoder(tiny_bert: str) -> text.TextEncoder:
    return text.load(tiny_bert).eval()


TWEET = [
    "RT",
    "@",
    "Kévin",
    "#NBA",
    "😩😍",
    "http://t.co/x9",
    "\u200b",
    "İstanbul",
    "ﬁn",
    "東京タワー",
    "it’s",
    "👩🏽‍🚀",
]


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma", "tiny_qwen"])
def test_sub_tokens_of_words_cover_the_words(name: str, request: pytest.FixtureRequest) -> None:
    sub = text.load(request.getfixturevalue(name)).sub_tokens
    source = " ".join(TWEET)
    example = ner.Example(id="t", text=source, words=tuple(TWEET))
    spans = ner.word_spans(example)
    words = sub.words(source, spans)
    assert len(words) == len(TWEET)
    for (start, end), pieces in zip(spans, words, strict=True):
        assert pieces, "every word has a sub-token"
        assert all(start <= p.start <= p.end <= end for p in pieces)
        assert pieces[0].start == start
        assert pieces[-1].end == end
        assert [p.start for p in pieces] == sorted(p.start for p in pieces)


def test_decoder_sub_tokens_spell_the_text(tiny_qwen: str) -> None:
    sub = text.load(tiny_qwen).sub_tokens
    source = "Kawhi Leonard 東京 and Größe"
    spans = ner.word_spans(ner.Example(id="t", text=source, words=tuple(source.split(" "))))
    ids = [p.id for word in sub.words(source, spans) for p in word]
    assert sub.tokenizer.decode(ids) == source


@pytest.mark.skipif(not packaged.available("minilm"), reason="the package with MiniLM is not installed")
def test_minilm_sub_tokens_equal_its_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(names.resolve("minilm"))
    sub = text.SubTokens(tokenizer)
    whole = tokenizer(TWEET, is_split_into_words=True, add_special_tokens=False, truncation=False)
    ours = [p.id for word in TWEET for p in sub.word(word, True)]
    unseen = ours.count(sub.unknown) - whole["input_ids"].count(sub.unknown)
    assert unseen == 1, "the zero-width space, which a tokenizer drops, is a word all the same"
    assert [i for i in ours if i != sub.unknown] == [i for i in whole["input_ids"] if i != sub.unknown]
    assert len(sub.text("word " * 600)) == 600, "no cut at the length that the packaged tokenizer was saved with"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=0, max_size=60), st.integers(9, 40))
def test_windows_hold_every_unit_and_fit(lengths: list[int], room: int) -> None:
    spans = windows(lengths, room)
    assert sorted({u for span in spans for u in span}) == list(range(len(lengths)))
    assert all(sum(lengths[u] for u in span) <= room for span in spans)
    assert all(a.start < b.start and a.stop < b.stop for a, b in itertools.pairwise(spans))
    assert len(spans) == 1 or sum(lengths) > room
    rows = [collate.Row([], [], [], [], span, [], 0) for span in spans]
    for unit in range(len(lengths)):
        assert unit in spans[owner(rows, unit)]


def test_side_text_is_cut_and_the_text_never(encoder: text.TextEncoder) -> None:
    layout = Layout(encoder)
    body = read(encoder.sub_tokens, "the text", [(0, 3), (4, 8)])
    side = encoder.sub_tokens.text("words " * 80)
    (row,), counts = layout.rows(body, "x", sides=[side[:5], side])
    assert len(row.ids) == encoder.limit
    assert [row.ids[a] for a, _ in row.at] == [p[0] for p in body.pieces]
    kept = sum(row.segments) - 2
    assert counts == {"context_tokens_cut": 5 + len(side) - kept}
    (row,), counts = Layout(encoder, context_tokens=4).rows(body, "x", sides=[side[:5], side])
    assert sum(row.segments) == 4
    assert counts == {"context_tokens_cut": 5 + len(side) - 3}


def test_too_long_is_named(encoder: text.TextEncoder) -> None:
    long = "x" * 90
    body = read(encoder.sub_tokens, long, [(0, 90)])
    with pytest.raises(TooLong, match="example e7: a word of"):
        Layout(encoder).rows(body, "e7")
    body = read(encoder.sub_tokens, "the text " * 40, [(0, 3)] * 80)
    with pytest.raises(TooLong, match="example e8: a text of 80"):
        Layout(encoder).rows(body, "e8", windowed=False)
    rows, counts = Layout(encoder).rows(body, "e8")
    assert counts == {"windows": len(rows)}


def rows_of(encoder: text.TextEncoder, *texts: str) -> dict[str, torch.Tensor]:
    layout = Layout(encoder)
    return collate.stack(encoder, [layout.rows(layout.words(t), t)[0][0] for t in texts], range(len(texts)))


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma", "tiny_qwen"])
def test_a_prompt_leaves_the_positions_of_the_text(name: str, request: pytest.FixtureRequest) -> None:
    """A prompt that says nothing new (keys that no word looks at) must leave the text as it was."""
    encoder = text.load(request.getfixturevalue(name)).eval()
    rows = rows_of(encoder, "Kawhi Leonard", "the text of the Toronto Raptors")
    seen: dict[str, Any] = {}

    def remember(module: Any, args: Any, kwargs: Any) -> None:
        seen.update(kwargs)

    handle = encoder.body.register_forward_pre_hook(remember, with_kwargs=True)
    before = torch.zeros(2, 3, encoder.hidden)
    states = encoder(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"], before=before)
    handle.remove()
    width = rows["input_ids"].shape[1]
    assert states.shape == (2, width, encoder.hidden)
    assert seen["position_ids"][0].tolist() == [0, 0, 0, *range(width)]
    assert seen["attention_mask"].sum(1).tolist() == (rows["attention_mask"].sum(1) + 3).tolist()


def test_roberta_positions_begin_behind_the_padding(tmp_path: Any, tiny_bert: str) -> None:
    from transformers import RobertaConfig, RobertaModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=0,
    )
    encoder = text.TextEncoder(RobertaModel(config, add_pooling_layer=False), tokenizer).eval()
    assert encoder.limit == 39
    rows = rows_of(encoder, "the text")
    plain = encoder(rows["input_ids"], rows["attention_mask"])
    added = encoder(rows["input_ids"], rows["attention_mask"], added=torch.zeros_like(plain))
    torch.testing.assert_close(plain, added)
    # No prompt at all, put before: the positions it writes out must be those that RoBERTa counts itself.
    none = encoder(rows["input_ids"], rows["attention_mask"], before=plain[:, :0])
    torch.testing.assert_close(plain, none)


@pytest.mark.parametrize("name", ["tiny_gemma", "tiny_qwen"])
def test_generate_equals_transformers(name: str, request: pytest.FixtureRequest) -> None:
    """Greedy decoding of a padded batch against ``model.generate`` of each row alone."""
    encoder = text.load(request.getfixturevalue(name)).eval()
    texts = ["Kawhi", "the text of the Toronto Raptors in Oakland , size M , machine wash", "Blue cotton shirt"]
    rows = rows_of(encoder, *texts)
    ours = encoder.generate(rows["input_ids"], rows["attention_mask"], max_new_tokens=12)
    for i, said in enumerate(ours):
        ids = rows["input_ids"][i : i + 1, : int(rows["attention_mask"][i].sum())]
        theirs = encoder.plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert said == theirs[0, ids.shape[1] :].tolist()


def test_attention_in_fp32_gives_the_same_gradients(encoder: text.TextEncoder) -> None:
    rows = rows_of(encoder, "the text of the Toronto Raptors", "Kawhi")
    weights = torch.randn(2, rows["input_ids"].shape[1], encoder.hidden)
    grads = []
    for kind in (text.ATTENTION, "eager"):
        encoder.plain.set_attn_implementation(kind)
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            states = encoder(rows["input_ids"], rows["attention_mask"])
        states.float().mul(weights).sum().backward()
        grads.append(encoder.plain.encoder.layer[0].attention.self.query.weight.grad.clone())
    encoder.plain.set_attn_implementation(text.ATTENTION)
    torch.testing.assert_close(grads[0], grads[1], rtol=0.1, atol=0.1 * float(grads[1].abs().max()))


def test_decoders_read_side_text_first(tiny_gemma: str) -> None:
    encoder = text.load(tiny_gemma).eval()
    example = ner.Example(id="t", text="see Oakland", words=("see", "Oakland"), context={"note": "a place"})
    layout = Layout(encoder)
    (row,), _ = layout.rows(layout.read(example), "t", sides=layout.sides(example, View(context=("note",))))
    said = encoder.sub_tokens.tokenizer.decode(row.ids)
    assert said == "<bos>a place\nsee Oakland\n"
    assert row.null == len(row.ids) - 1
    assert encoder.sub_tokens.tokenizer.decode([row.ids[b] for _, b in row.at]).endswith("d")


def test_an_encoder_decoder_is_refused(tmp_path: Any) -> None:
    from transformers import T5Config

    T5Config().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedBackbone, match="encoder-decoder"):
        text.load(str(tmp_path))


@pytest.mark.parametrize(
    ("word", "previous", "expected"),
    [
        ("oakland", "", "lower"),
        ("Oakland", "", "Title"),
        ("NBA", "", "UPPER"),
        ("I", "", "Title"),
        ("iPhone", "", "miXed"),
        ("2017", "", "digits"),
        ("...", "", "punctuation"),
        ("😩", "", "punctuation"),
        ("https", "", "link"),
        ("東京", "", "other"),
        ("NBA", "#", "#UPPER"),
        ("#NBA", "", "#UPPER"),
        ("@kevin", "", "@lower"),
        ("#", "", "punctuation"),
    ],
)
def test_shapes(word: str, previous: str, expected: str) -> None:
    names = [mark + casing for mark in collate.MARKS for casing in collate.SHAPES]
    assert names[shape(word, previous)] == expected
    assert len(names) == collate.shape_count()


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gemma"])
def test_merged_adapters_give_the_same_states_and_go_without_a_trace(name: str, request: pytest.FixtureRequest) -> None:
    model = text.with_lora(text.load(request.getfixturevalue(name)).eval().model, 4, 8.0, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    learn = [p.requires_grad for p in model.parameters()]
    ids = torch.randint(5, 20, (2, 7))
    run = lambda: model.get_base_model().base_model(input_ids=ids).last_hidden_state.detach()
    before = run()
    with text.merged(model):
        assert torch.allclose(run(), before, atol=1e-4)
        assert not torch.equal(model.get_base_model().state_dict()[_adapted(state)], state[_in_peft(state)])
    assert torch.equal(run(), before)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == learn


def _in_peft(state: dict[str, torch.Tensor]) -> str:
    return next(k for k in state if k.endswith("base_layer.weight"))


def _adapted(state: dict[str, torch.Tensor]) -> str:
    return _in_peft(state).removeprefix("base_model.model.")


def test_modules_trained_whole_stay_in_place_while_adapters_are_merged(tiny_bert: str) -> None:
    from peft import LoraConfig, get_peft_model

    plain = text.load(tiny_bert).eval().model
    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["output"])
    model = get_peft_model(plain, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 10)
    ids = torch.randint(5, 20, (2, 7))
    run = lambda: model(input_ids=ids).last_hidden_state.detach()
    before = run()
    with text.merged(model):
        assert torch.allclose(run(), before, atol=1e-5)
    assert torch.equal(run(), before)
