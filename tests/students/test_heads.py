"""The heads' losses, masks and decoding, against slow plain versions and by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.students.collate import Item, Layout, Text, read
from magister.students.encoders import text
from magister.students.heads import generative, ranking, rationale, span, tagging
from magister.students.heads.tags import Tags
from magister.students.student import View
from magister.tasks import attributes, ner
from magister.tasks.task import DataFault
from torch import Tensor

TAGS = Tags(("PER", "LOC"))
NAMES = TAGS.names


class Plain:
    """A reading that knows nothing but the rows: embeddings as states."""

    def __init__(self, encoder: text.TextEncoder, pictures: Tensor | None = None) -> None:
        self.encoder, self.seen = encoder, pictures

    def states(self, rows: dict[str, Tensor], alone: bool = False) -> Tensor:
        return self.encoder(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])

    def pictures(self, examples: Tensor) -> Any:
        if self.seen is None:
            return None, None
        return self.seen[examples], torch.tensor([True, False, True])[examples]

    def vocabulary(self, states: Tensor) -> Tensor:
        head = self.encoder.plain.get_output_embeddings() if self.encoder.decoder else None
        return head(states) if head else states @ self.encoder.embeddings.weight.T

    def generate(self, rows: dict[str, Tensor], max_new_tokens: int) -> list[list[int]]:
        return self.encoder.generate(rows["input_ids"], rows["attention_mask"], max_new_tokens=max_new_tokens)


def example(words: str, *spans: tuple[int, int, str]) -> ner.Example:
    entities = tuple(ner.Entity(text=words[a:b], type=t, start=a, end=b) for a, b, t in spans)
    return ner.Example(id="t", text=words, words=tuple(words.split(" ")), gold=ner.Answer(entities=entities))


def test_gold_tags_by_hand() -> None:
    post = example("to New York with Ann", (3, 11, "LOC"), (17, 20, "PER"))
    tags, counts = tagging.tags_of(post, ner.word_spans(post), TAGS)
    assert [NAMES[t] for t in tags] == ["O", "B-LOC", "I-LOC", "O", "B-PER"]
    assert not counts


def test_gold_that_words_cannot_hold_is_counted() -> None:
    inside = example("#Paris2017 now", (1, 6, "LOC"))
    tags, counts = tagging.tags_of(inside, ner.word_spans(inside), TAGS)
    assert ([NAMES[t] for t in tags], counts) == (["B-LOC", "O"], {"entities_widened_to_words": 1})
    nested = example("New York Times", (0, 14, "PER"), (0, 8, "LOC"))
    tags, counts = tagging.tags_of(nested, ner.word_spans(nested), TAGS)
    assert ([NAMES[t] for t in tags], counts) == (["B-PER", "I-PER", "I-PER"], {"entities_overlapping": 1})


def test_an_unknown_type_is_named() -> None:
    post = example("to Mars", (3, 7, "PLANET"))
    with pytest.raises(DataFault, match=r"unknown entity type 'PLANET'.*there are: PER, LOC"):
        tagging.tags_of(post, ner.word_spans(post), TAGS)


@settings(deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=12))
def test_spans_equal_seqeval(tags: list[str]) -> None:
    from seqeval.metrics.sequence_labeling import get_entities

    assert TAGS.decode([NAMES.index(t) for t in tags]) == [(a, b + 1, kind) for kind, a, b in get_entities(tags)]


def test_tagging_loss_is_that_of_the_words_alone() -> None:
    torch.manual_seed(0)
    head = tagging.TaggingHead(8, ["PER", "LOC"], 0.0)
    emissions, mask = torch.randn(2, 4, 5), torch.tensor([[True] * 4, [True, True, False, False]])
    tags = torch.randint(5, (2, 4))
    alone = head.crf.nll(emissions[1:, :2], tags[1:, :2], mask[1:, :2]) + head.crf.nll(
        emissions[:1], tags[:1], mask[:1]
    )
    torch.testing.assert_close(head.loss(emissions, tags, mask), alone.sum() / 6)


def test_tagging_confidence_is_the_weakest_word() -> None:
    head = tagging.TaggingHead(8, ["PER", "LOC"], 0.0)
    for parameter in head.crf.parameters():
        torch.nn.init.zeros_(parameter)
    emissions = torch.zeros(1, 2, 5)
    emissions[0, 0, 1], emissions[0, 1, 2] = 9.0, 2.0  # B-PER, I-PER
    mask = torch.ones(1, 2, dtype=torch.bool)
    spans = head.decode(emissions, mask)
    assert spans == [[(0, 2, "PER")]]
    expected = math.exp(2) / (math.exp(2) + 4)  # without transitions a word's posterior is its own softmax
    assert head.confidence(emissions, mask, spans) == [[pytest.approx(expected, abs=1e-5)]]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(0, 2**30))
def test_span_loss_equals_its_formula(units: int, seed: int) -> None:
    torch.manual_seed(seed)
    scores = torch.randn(1, units, units).masked_fill(torch.ones(units, units).tril(-1).bool(), -torch.inf)
    gold = (torch.rand(1, units, units) < 0.3) & scores.isfinite()
    wrong = right = 1.0
    for i, j in itertools.product(range(units), repeat=2):
        s = float(scores[0, i, j])
        if gold[0, i, j]:
            right += math.exp(-s)
        else:
            wrong += math.exp(s)
    loss = span.span_loss(scores, gold)
    assert loss.tolist() == [pytest.approx(math.log(wrong) + math.log(right), rel=1e-4, abs=1e-5)]


def test_without_gold_all_spans_sink_and_with_gold_they_rise() -> None:
    scores = torch.zeros(1, 2, 2, requires_grad=True)
    gold = torch.tensor([[[False, True], [False, False]]])
    (by_gold,) = torch.autograd.grad(span.span_loss(scores, gold).sum(), scores)
    assert by_gold[0, 0, 1] < 0 < by_gold[0, 0, 0]
    (by_none,) = torch.autograd.grad(span.span_loss(scores, torch.zeros_like(gold)).sum(), scores)
    assert (by_none > 0).all()


PRODUCT = attributes.Example(
    id="p",
    text="Shirt M, blue shirt",
    asked=("kind", "size", "colour", "fit", "seam"),
    gold=attributes.Answer(values={"kind": ("shirt",), "size": ("XL", "M"), "colour": (), "fit": ("slim",)}),
)


def product_text(source: str) -> Text:
    """Each word or mark is one unit."""
    import re

    spans = tuple(m.span() for m in re.finditer(r"\w+|[^\w\s]", source))
    return Text(tuple((1,) for _ in spans), spans, tuple(0 for _ in spans))


def test_gold_spans_of_attributes() -> None:
    units = product_text(PRODUCT.text)  # Shirt | M | , | blue | shirt
    find = lambda label: span.gold_spans(PRODUCT, label, units)
    assert find("kind") == ([(0, 0), (4, 4)], {})  # every place, whatever the case
    assert find("size") == ([(1, 1)], {})  # one alternative stands in the text
    assert find("colour") == ([], {})  # absent: something to learn
    assert find("fit") == (None, {"values_not_in_text": 1})
    assert find("seam") == (None, {"attributes_without_gold": 1})


def test_places_survive_case_folding() -> None:
    assert span.places("ß", "İ ß ß") == [2, 4]
    assert span.places("AA", "aaa") == [0, 1]
    assert span.places("", "abc") == []


@pytest.fixture(scope="module")
def bert(tiny_bert: str) -> text.TextEncoder:
    return text.load(tiny_bert).eval()


@pytest.fixture(scope="module")
def gemma(tiny_gemma: str) -> text.TextEncoder:
    return text.load(tiny_gemma).eval()


QUERIES = {"PER": ("which names", "who is it"), "LOC": ("which places",), "size": ("which size",)}


def test_span_scores_by_hand(bert: text.TextEncoder) -> None:
    """Scores of one row against start, end, pair and null computed one by one."""
    torch.manual_seed(1)
    head = span.SpanHead(bert.hidden, 0.0, QUERIES).eval()
    post = example("to Oakland with Kawhi Leonard", (16, 29, "PER"))
    tensors, _ = head.collate([Item(0, post, ("PER",))], Layout(bert), View(), False)
    reading = Plain(bert)
    states = reading.states(tensors)[0]
    loss, scores = head(reading, tensors)
    (row,), _ = Layout(bert).rows(Layout(bert).read(post), "t", question="which names")
    assert tensors["gold"].tolist() == [[0, 3, 4]]
    assert bert.sub_tokens.tokenizer.convert_ids_to_tokens([row.ids[row.null]]) == ["[CLS]"]
    for i, j in itertools.product(range(5), repeat=2):
        if j < i:
            assert scores["span"][0, i, j] == -torch.inf
            continue
        first, last, null = states[row.at[i][0]], states[row.at[j][1]], states[0]
        q, k = head.pair(first)[:64], head.pair(last)[64:]
        expected = head.ends(first)[0] + head.ends(last)[1] + q @ k / 8 - head.ends(null).sum()
        torch.testing.assert_close(scores["span"][0, i, j], expected, rtol=1e-4, atol=1e-4)
    gold = torch.zeros(1, 5, 5, dtype=torch.bool)
    gold[0, 3, 4] = True
    torch.testing.assert_close(loss, span.span_loss(scores["span"], gold).mean())


def test_span_answers_do_not_overlap_and_keep_the_threshold(bert: text.TextEncoder) -> None:
    head = span.SpanHead(bert.hidden, 0.0, QUERIES, threshold=0.5)
    post = example("to Oakland with Kawhi Leonard")
    items = [Item(0, post, ("PER",)), Item(0, post, ("LOC",))]
    tensors = {"item": torch.tensor([0, 1]), "offset": torch.tensor([0, 0])}
    scores = torch.full((2, 5, 5), -9.0)
    scores[0, 3, 4], scores[0, 4, 4] = 3.0, 2.0  # Kawhi Leonard, and Leonard alone
    scores[1, 1, 1], scores[1, 3, 3], scores[0, 0, 0] = 1.0, 2.5, 0.4  # Oakland, Kawhi as a place, below
    people, places = head.answers(items, Layout(bert), {"span": scores}, tensors)
    assert [(e.text, e.type) for e, _ in people] == [("Kawhi Leonard", "PER")]
    assert [(e.text, e.start, e.end) for e, _ in places] == [("Oakland", 3, 10)]
    assert people[0][1] == pytest.approx(1 / (1 + math.exp(-3)))


def test_wordings_vary_in_training_alone() -> None:
    torch.manual_seed(0)
    assert {span.wording(QUERIES, "PER", True) for _ in range(30)} == set(QUERIES["PER"])
    assert {span.wording(QUERIES, "PER", False) for _ in range(30)} == {"which names"}


SCHEMA = attributes.Schema(
    attributes=(
        attributes.Attribute(name="colour", type="one_of", options=("red", "green", "blue")),
        attributes.Attribute(name="sleeve", type="one_of", options=("long", "short")),
    )
)


def shirt(**gold: tuple[str, ...]) -> attributes.Example:
    return attributes.Example(id="s", text="shirt", asked=tuple(gold), gold=attributes.Answer(values=gold))


def test_ranking_scores_by_hand(bert: text.TextEncoder) -> None:
    torch.manual_seed(0)
    head = ranking.RankingHead(bert.hidden, None, 0.0, SCHEMA).eval()
    items = [Item(0, shirt(colour=("Blue",)), ("colour",)), Item(1, shirt(sleeve=()), ("sleeve",))]
    tensors, _ = head.collate(items, Layout(bert), View(), False)
    assert tensors["targets"].tolist() == [2, 2], "the third option, and absent behind two"
    assert tensors["choices"].tolist() == [[0, 1, 2], [3, 4, -1]]
    loss, scores = head(Plain(bert), tensors)
    logs = scores["ranking"]

    def vector(*parts: str) -> Tensor:
        sub = bert.sub_tokens
        ids = [sub.first]
        for part in parts:
            ids += [*sub.text(part), sub.separator]
        segments = [0] * len(ids)
        if len(parts) > 1:
            segments = [0] * (len(sub.text(parts[0])) + 2) + [1] * (len(sub.text(parts[1])) + 1)
        one = torch.ones(1, len(ids), dtype=torch.long)
        return bert(torch.tensor([ids]), one, torch.tensor([segments]))[0].mean(0)

    product = vector("sleeve", "shirt")
    cosines = [torch.cosine_similarity(product, vector(t), dim=0) / 0.07 for t in ("sleeve: long", "sleeve: short")]
    expected = torch.stack([*cosines, torch.tensor(0.0)]).log_softmax(0)
    torch.testing.assert_close(logs[1, [0, 1, 3]], expected, rtol=1e-3, atol=1e-3)
    assert logs[1, 2] == -torch.inf
    torch.testing.assert_close(loss, -(logs[0, 2] + logs[1, 3]) / 2)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(2))


def test_ranking_targets(bert: text.TextEncoder) -> None:
    head = ranking.RankingHead(bert.hidden, None, 0.0, SCHEMA)
    unlabelled = shirt(colour=()).model_copy(update={"gold": None})
    tensors, _ = head.collate([Item(0, unlabelled, ("colour",))], Layout(bert), View(), False)
    assert head(Plain(bert), tensors)[0] is None
    with pytest.raises(DataFault, match=r"colour: 'pink' is not among its options.*red, green, blue"):
        head.collate([Item(0, shirt(colour=("pink",)), ("colour",))], Layout(bert), View(), False)
    other = Item(0, shirt(sleeve=("long",)), ("colour",))
    assert head.collate([other], Layout(bert), View(), False)[1] == {"attributes_without_gold": 1}


def test_a_picture_changes_only_the_product_that_has_it(bert: text.TextEncoder) -> None:
    torch.manual_seed(0)
    head = ranking.RankingHead(bert.hidden, 6, 0.0, SCHEMA).eval()
    items = [Item(i, shirt(colour=("red",)), ("colour",)) for i in range(3)]
    tensors, _ = head.collate(items, Layout(bert), View(images=True), False)
    blind = head(Plain(bert), tensors)[1]["ranking"]
    seen = head(Plain(bert, torch.randn(3, 6)), tensors)[1]["ranking"]
    assert torch.equal(blind[1], seen[1])
    assert not torch.allclose(blind[0], seen[0])
    assert not torch.allclose(seen[0], seen[2])


def test_generative_labels_cover_exactly_the_answer(gemma: text.TextEncoder, ner_schema: ner.Schema) -> None:
    head = generative.GenerativeHead({"ner": ner_schema}, 20)
    long = example("to Oakland", (3, 10, "LOC"))
    short = example("nothing here at all to find in this text")
    tensors, _ = head.collate([Item(0, long), Item(1, short)], Layout(gemma), View(), True)
    decode = gemma.sub_tokens.tokenizer.decode
    answers = [
        '{"entities": [{"text": "Oakland", "type": "LOC"}]}<eos>',
        '{"entities": []}<eos>',
    ]
    for row, answer in enumerate(answers):
        known = tensors["labels"][row] != generative.IGNORED
        assert decode(tensors["labels"][row][known]) == answer
        assert torch.equal(tensors["labels"][row][known], tensors["input_ids"][row][known])
        asked = generative.questions_alone(tensors)["attention_mask"][row].bool()
        assert not (asked & known).any()
        assert torch.equal(asked | known, tensors["attention_mask"][row].bool())
        assert decode(tensors["input_ids"][row][asked]).endswith(("to Oakland\n", "this text\n"))


def test_language_loss_equals_that_of_transformers(gemma: text.TextEncoder, ner_schema: ner.Schema) -> None:
    head = generative.GenerativeHead({"ner": ner_schema}, 20)
    items = [Item(0, example("to Oakland", (3, 10, "LOC"))), Item(1, example("nothing here"))]
    tensors, _ = head.collate(items, Layout(gemma), View(), True)
    ours, _ = head(Plain(gemma), tensors)
    theirs = gemma.plain(tensors["input_ids"], attention_mask=tensors["attention_mask"], labels=tensors["labels"]).loss
    torch.testing.assert_close(ours, theirs)


def test_products_are_asked_what_is_left_to_this_head(gemma: text.TextEncoder) -> None:
    head = generative.GenerativeHead({"attributes": SCHEMA}, 20)
    item = Item(0, shirt(colour=("red",), sleeve=()), ("sleeve", "colour"))
    tensors, _ = head.collate([item], Layout(gemma), View(), True)
    said = gemma.sub_tokens.tokenizer.decode(tensors["input_ids"][0])
    assert "sleeve (long | short); colour (red | green | blue).\nshirt\n" in said
    assert said.endswith('{"sleeve": null, "colour": "red"}<eos>')


def test_what_cannot_be_read_is_counted(gemma: text.TextEncoder, ner_schema: ner.Schema) -> None:
    head = generative.GenerativeHead({"ner": ner_schema}, 6)
    items = [Item(0, example("to Oakland"))]
    tensors, _ = head.collate(items, Layout(gemma), View(), False)
    found, counts = head.answer_all(Plain(gemma), items, Layout(gemma), tensors)  # random weights: random words
    assert found == [[]]
    assert sum(counts.values()) == 1
    assert all(name.startswith("unreadable_") for name in counts)


def test_an_encoder_fills_in_a_share_of_the_rationale(bert: text.TextEncoder) -> None:
    torch.manual_seed(0)
    head = rationale.RationaleHead(bert, 0.5)
    said = "Kawhi Leonard and the Toronto Raptors play"
    post = ner.Example(id="t", text="Kawhi", words=("Kawhi",), context={"why": said, "note": "the text"})
    bare = post.model_copy(update={"context": {}})
    view = View(explain="why", context=("note",))
    tensors, counts = head.collate([Item(0, post), Item(1, bare)], Layout(bert, lead="explain:"), view, True)
    assert counts == {"rationale_missing": 1}
    sub = bert.sub_tokens
    target = list(sub.text(said))
    ids, labels = tensors["input_ids"][0].tolist(), tensors["labels"][0].tolist()
    hidden = [at for at, label in enumerate(labels) if label != generative.IGNORED]
    assert len(hidden) == round(0.5 * len(target))
    assert all(ids[at] == sub.mask for at in hidden)
    assert ids.count(sub.mask) == len(hidden)
    restored = [label if label != generative.IGNORED else i for i, label in zip(ids, labels, strict=True)]
    assert restored == [
        sub.first,
        *sub.text("explain:"),
        *sub.text("Kawhi"),
        sub.separator,
        *sub.text("the text"),
        sub.separator,
        *target,
        sub.separator,
    ]
    loss, _ = head(Plain(bert), tensors)
    assert loss.isfinite()
    assert head.collate([Item(1, bare)], Layout(bert), view, True)[0] == {}


def test_a_decoder_writes_the_rationale(gemma: text.TextEncoder) -> None:
    head = rationale.RationaleHead(gemma, 0.5)
    post = ner.Example(id="t", text="Kawhi", words=("Kawhi",), context={"why": "a player"})
    tensors, _ = head.collate([Item(0, post)], Layout(gemma, lead="explain:"), View(explain="why"), True)
    decode = gemma.sub_tokens.tokenizer.decode
    known = tensors["labels"][0] != generative.IGNORED
    assert decode(tensors["input_ids"][0][~known]) == "<bos>explain:Kawhi\n"
    assert decode(tensors["labels"][0][known]) == "a player<eos>"


def test_read_keeps_the_blank_mark_with_its_word(gemma: text.TextEncoder) -> None:
    units = read(gemma.sub_tokens, "M 東京", [(0, 1), (2, 4)], split=True)
    assert all(b > a for a, b in units.spans)
    ids = [i for piece in units.pieces for i in piece]
    assert gemma.sub_tokens.tokenizer.decode(ids) == "M 東京"
