"""MAE on a tiny random text encoder: its equations, its pictures, what it keeps, what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.distill.recipe import RecipeFault, check
from magister.eval import value_ranking
from magister.students.attributes.mae import MAE, MAEConfig
from magister.students.saving import CheckpointError
from magister.students.student import View
from magister.students.system import UnsupportedView
from magister.tasks.attributes import Answer, Attribute, Example, Schema
from magister.tasks.images import Image, ImageFault
from magister.tasks.task import DataFault

LEVELS = [(1, 4), (1, 6)]
BOTH, PHOTO = View(images=True), View(images=True, text=False)
SCHEMA = Schema(
    attributes=(
        Attribute(name="size"),
        Attribute(name="colour", type="one_of", options=("red", "green", "blue")),
        Attribute(name="sleeve", type="one_of", options=("long", "short")),
    )
)


def product(id: str, text: str, *sources: str, category: str = "shirt", **gold: tuple[str, ...]) -> Example:
    return Example(
        id=id,
        text=text,
        category=category,
        asked=tuple(gold),
        gold=Answer(values=dict(gold)),
        images=tuple(Image(source=source) for source in sources),
        context={"knowledge": f"it is {gold['colour'][0]}"} if gold.get("colour") else {},
    )


PRODUCTS = [
    product("p", "Blue cotton shirt size M", "1", "22", size=("M",), colour=("blue",), sleeve=("long",)),
    product("q", "Red shirt, 42cm machine wash", "333", size=("42cm",), colour=("red",), sleeve=("short",)),
    product("r", "green cotton", size=(), colour=("green",), sleeve=("short",), category="card"),
]
#: The same text for all: only the pictures can tell.
ALIKE = [
    product(str(n), "a shirt", *sources, colour=(colour,))
    for n, (sources, colour) in enumerate([(("1",), "red"), (("22", "1"), "green"), (("4444", "333"), "blue")])
]


def pictures(images: Sequence[Image]) -> list[torch.Tensor]:
    """Features drawn from each picture's source; ``broken`` cannot be used."""
    for image in images:
        if image.source == "broken":
            raise ImageFault(image.example, image.source, "broken picture")
    draw = lambda image, level: torch.randn(*level, generator=torch.Generator().manual_seed(len(image.source)))
    return [torch.stack([draw(image, level) for image in images]) for level in LEVELS]


def build(encoder: str, examples: Sequence[Example] = PRODUCTS, sees: bool = True, **settings: Any) -> MAE:
    """A student whose pictures come from `pictures` instead of an image encoder."""
    torch.manual_seed(0)
    small = {"width": 16, "filters": 12, "dropout": 0.0, "negatives": 4, "category": True}
    config = MAEConfig(text_encoder=encoder, **(small | settings))
    made = MAE.create(config, {"attributes": SCHEMA}, examples)
    student = MAE(made.config, made.schemas, None, LEVELS if sees else None, made.vocabulary).eval()
    student.features = pictures
    return student


def gold_of(examples: Sequence[Example]) -> list[Any]:
    return [e.gold for e in examples]


def scores(student: MAE, example: Example, view: View) -> dict[str, dict[str, float]]:
    return student.rank([example], view)[0]


@torch.no_grad()
def slow(student: MAE, example: Example, name: str) -> dict[str, float]:
    """The paper's way for one slot with concatenation: no batch, no padding, no mask."""
    words, relu = student.words, torch.relu
    coded = lambda text: [
        words.sub_tokens.first,
        *(i for piece in student.layout.words(text).pieces for i in piece),
        words.sub_tokens.separator,
    ]

    def read(text: str) -> torch.Tensor:
        ids = torch.tensor([coded(text)])
        return words({"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0})[0]

    linear = lambda layers: layers[1]
    query = student.queries.weight[[a.name for a in SCHEMA.attributes].index(name)]
    query = query + student.category(read(example.category).mean(0))
    vectors, heard = read(example.text), []
    for span, convolution in zip(student.config.windows, student.cnn.convolutions, strict=True):
        blank = torch.zeros(span - 1, vectors.shape[1])
        padded = torch.cat([blank, vectors, blank])
        each = [
            relu((convolution.weight * padded[at : at + span].T).sum((1, 2)) + convolution.bias)
            for at in range(len(padded) - span + 1)
        ]
        heard.append(torch.stack(each).amax(0))
    text = linear(student.asked_text)(torch.cat([query, relu(linear(student.read)(torch.cat(heard)))]))
    seen = torch.zeros(student.config.width)
    if example.images:
        found = [pictures([image])[1][0, 0] for image in example.images]
        looked = [relu(linear(student.look)(x / x.norm() * math.sqrt(len(x)))) for x in found]
        seen = linear(student.asked_pictures)(torch.cat([query, torch.stack(looked).amax(0)]))
    first, _, second = student.fusion.layers
    fused = second(relu(first(torch.cat([query, text, seen]))))
    names = [student.values.values[i] for i in student.values.candidates(example, name)]
    vector = lambda value: student.table.weight[student.values.values.index(value)]
    return {value: float(torch.cosine_similarity(fused, vector(value), dim=0)) for value in names}


@pytest.mark.parametrize("states", ["embeddings", "contextual"])
def test_scores_are_those_of_the_equations(tiny_bert: str, states: str) -> None:
    student = build(tiny_bert, text_states=states)
    for example, by_name in zip(PRODUCTS, student.rank(PRODUCTS, BOTH), strict=True):
        assert list(by_name) == list(example.asked)
        for name, by_value in by_name.items():
            assert by_value == pytest.approx(slow(student, example, name), abs=1e-5)


def test_the_loss_is_that_of_its_negatives(tiny_bert: str) -> None:
    student = build(tiny_bert)
    batch = student.collate(PRODUCTS, BOTH)
    everything = [slow(student, e, name) for e in PRODUCTS for name in e.asked]
    hinges = []
    for i, (example, name) in enumerate((e, n) for e in PRODUCTS for n in e.asked):
        assert example.gold is not None
        wanted = (example.gold.values[name] or ("",))[0]
        drawn = [student.values.values[v] for v in batch.tensors["negatives"][i]]
        assert wanted not in drawn
        known = {**slow_of_all(student, example, name), **everything[i]}
        hinges.append(sum(max(0.0, 1 - known[wanted] + known[v]) for v in drawn) / len(drawn))
    loss = student(batch).loss
    assert loss is not None
    assert loss.item() == pytest.approx(sum(hinges) / len(hinges), abs=1e-5)
    assert batch.tensors["units"].tolist() == [9]


def slow_of_all(student: MAE, example: Example, name: str) -> dict[str, float]:
    """`slow` as if every value were the attribute's own."""
    known = student.values.candidates
    student.values.candidates = lambda *_: tuple(range(len(student.values.values)))  # type: ignore[method-assign]
    try:
        return slow(student, example, name)
    finally:
        student.values.candidates = known  # type: ignore[method-assign]


@pytest.mark.parametrize("fusion", ["concat", "attention", "gmu"])
def test_overfits_text_and_pictures(tiny_bert: str, learn: Callable[..., Any], fusion: str) -> None:
    student = build(tiny_bert, fusion=fusion, text_states="embeddings", negatives=12)
    learn(student, PRODUCTS, 120, 0.01, BOTH)
    assert student.predict(PRODUCTS, BOTH) == gold_of(PRODUCTS)
    photos = build(tiny_bert, ALIKE, fusion=fusion, text_states="embeddings")
    learn(photos, ALIKE, 80, 0.01, PHOTO)
    assert photos.predict(ALIKE, PHOTO) == gold_of(ALIKE)


def test_the_softmax_loss_makes_probabilities(tiny_bert: str, learn: Callable[..., Any]) -> None:
    student = build(tiny_bert, loss="softmax", text_states="embeddings", sharpness=5.0)
    loss = student(student.collate(PRODUCTS, BOTH)).loss
    assert loss is not None
    surprises = []
    for example, by_name in zip(PRODUCTS, student.rank(PRODUCTS, BOTH), strict=True):
        for name, by_value in by_name.items():
            assert example.gold is not None
            gold = (example.gold.values[name] or ("",))[0]
            surprises.append(math.log(sum(math.exp(5 * (s - by_value[gold])) for s in by_value.values())))
    assert loss.item() == pytest.approx(sum(surprises) / len(surprises), abs=1e-5)
    learn(student, PRODUCTS, 60, 0.01, BOTH)
    assert student.predict(PRODUCTS, BOTH) == gold_of(PRODUCTS)


def test_absent_is_a_value_where_training_has_it(tiny_bert: str) -> None:
    student = build(tiny_bert)
    assert "" in scores(student, PRODUCTS[2], View())["size"]
    assert "" not in scores(student, PRODUCTS[0], View())["size"]  # no gold of that category is absent
    assert "" in scores(build(tiny_bert, candidates="attribute"), PRODUCTS[0], View())["size"]


def test_batches_and_padding_change_nothing(tiny_bert: str) -> None:
    student = build(tiny_bert)
    together = student.rank(PRODUCTS, BOTH)
    for example, found in zip(PRODUCTS, together, strict=True):
        for name, by_value in scores(student, example, BOTH).items():
            assert found[name] == pytest.approx(by_value, abs=1e-5)


def test_all_of_up_to_four_pictures_are_seen(tiny_bert: str) -> None:
    student = build(tiny_bert)
    many = product("m", "a shirt", *["1" * n for n in (1, 2, 3, 4, 5)], colour=("red",))
    four = many.model_copy(update={"images": many.images[:4]})
    assert scores(student, many, BOTH) == scores(student, four, BOTH)
    assert scores(student, four, BOTH) != scores(student, four.model_copy(update={"images": four.images[:3]}), BOTH)
    student.predict([many], BOTH)
    assert student.given_up == {"image_beyond_4": 1}
    without = PRODUCTS[2]
    assert scores(student, without, BOTH) == scores(student, without, View())
    student.predict([without], BOTH)
    assert student.given_up == {"image_missing": 1}


def test_a_broken_picture_is_refused_or_counted(tiny_bert: str) -> None:
    student = build(tiny_bert)
    broken = [product("b", "a shirt", "broken", "1", colour=("red",))]
    with pytest.raises(ImageFault):
        student.predict(broken, BOTH)
    student.refuse_broken_images = False
    student.predict(broken, BOTH)
    assert student.given_up == {"image_broken": 1}


def test_knowledge_is_read_where_asked(tiny_bert: str) -> None:
    student = build(tiny_bert)
    told = PRODUCTS[1].model_copy(update={"context": {"knowledge": "made of cotton in size M"}})
    reads = View(context=("knowledge",))
    assert scores(student, told, reads) != scores(student, PRODUCTS[1], reads)
    assert scores(student, told, View()) == scores(student, PRODUCTS[1], View())
    short = build(tiny_bert, context_tokens=2)
    short.predict([told], reads)
    assert short.given_up["context_tokens_cut"] > 0


def test_long_texts_are_read_in_windows(tiny_bert: str) -> None:
    student = build(tiny_bert)
    long = PRODUCTS[0].model_copy(update={"text": "cotton " * 100 + "Oakland"})
    other = PRODUCTS[0].model_copy(update={"text": "cotton " * 100 + "Toronto"})
    assert scores(student, long, View()) != scores(student, other, View())
    student.predict([long], View())
    assert student.given_up["windows"] > 1


@pytest.mark.parametrize("states", ["embeddings", "contextual"])
def test_is_kept_and_loaded(tiny_bert: str, tmp_path: Path, learn: Callable[..., Any], states: str) -> None:
    student = build(tiny_bert, text_states=states)
    learn(student, PRODUCTS, 5, 0.01, BOTH)
    student.save_pretrained(tmp_path)
    kept = students.load(tmp_path)
    kept.features = pictures
    assert kept.rank(PRODUCTS, BOTH) == student.rank(PRODUCTS, BOTH)
    assert kept.predict(PRODUCTS, BOTH, return_scores=True) == student.predict(PRODUCTS, BOTH, return_scores=True)
    files = {p.name for p in tmp_path.iterdir()}
    assert files == {"config.json", "model.safetensors", "README.md"}  # what is frozen is not kept
    json.loads((tmp_path / "config.json").read_text())


def test_vectors_of_a_file(tiny_bert: str, tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("cotton 1 0 0\nshirt 0 1 0\n, 0 0 1\nRed 9 9 9\nred 1 1 0\nunseen 1 2 3\n")
    config = {"text_encoder": None, "vectors": str(file), "windows": (2,)}
    torch.manual_seed(0)
    made = MAE.create(MAEConfig(width=8, filters=4, **config), {"attributes": SCHEMA}, PRODUCTS)
    batch = made.collate([PRODUCTS[1]])
    read = made.words({k: v for k, v in batch.tensors.items() if k == "input_ids"})[0]
    expected = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(read[:6] / read[0].max(), expected)
    made.save_pretrained(tmp_path / "kept")
    file.unlink()
    assert students.load(tmp_path / "kept").rank(PRODUCTS) == made.eval().rank(PRODUCTS)


def test_goes_on_from_another(tiny_bert: str, tmp_path: Path, learn: Callable[..., Any]) -> None:
    earlier = build(tiny_bert, PRODUCTS[:2], sees=False)
    learn(earlier, PRODUCTS[:2], 5, 0.01, View())
    earlier.save_pretrained(tmp_path / "best")
    config = earlier.config.model_copy(update={"start": str(tmp_path)})
    student = MAE.create(config, {"attributes": SCHEMA}, PRODUCTS).eval()
    for example in PRODUCTS[:2]:
        before, after = scores(earlier, example, View()), scores(student, example, View())
        for name, by_value in before.items():
            assert {v: after[name][v] for v in by_value} == pytest.approx(by_value, abs=1e-6)
    wider = config.model_copy(update={"width": 20})
    with pytest.raises(CheckpointError, match=r"differing: .*read\.1\.weight"):
        MAE.create(wider, {"attributes": SCHEMA}, PRODUCTS)


def test_its_ranks_are_reported(tiny_bert: str, learn: Callable[..., Any]) -> None:
    student = build(tiny_bert, text_states="embeddings", negatives=12)
    learn(student, PRODUCTS, 120, 0.01, BOTH)
    found = value_ranking.measure(PRODUCTS, student.rank(PRODUCTS, BOTH))
    assert found["hits@1"] == found["mrr_pessimistic"] == 1.0
    unseen = [product("u", "Red shirt", size=("XXL",), colour=("red",))]
    assert value_ranking.measure(unseen, student.rank(unseen, View()))["unranked"] == 1


def test_probabilities_follow_the_ranking(tiny_bert: str) -> None:
    student = build(tiny_bert)
    for (answer, likely), by_name in zip(
        student.predict(PRODUCTS, BOTH, return_scores=True), student.rank(PRODUCTS, BOTH), strict=True
    ):
        for name, by_value in by_name.items():
            best = max(by_value, key=lambda v: by_value[v])
            assert answer.values[name] == ((best,) if best else ())
            powers = {v: math.exp(student.config.sharpness * s) for v, s in by_value.items()}
            assert likely[name] == pytest.approx(powers[best] / sum(powers.values()), abs=1e-4)


def test_what_cannot_be_asked_is_refused(tiny_bert: str) -> None:
    student, blind = build(tiny_bert), build(tiny_bert, sees=False)
    with pytest.raises(UnsupportedView, match="cannot see"):
        blind.predict(PRODUCTS, BOTH)
    with pytest.raises(UnsupportedView, match="nothing is read"):
        student.predict(PRODUCTS, View(text=False))
    with pytest.raises(UnsupportedView, match="no prompt"):
        student.predict(PRODUCTS, View(prompt=True))
    with pytest.raises(DataFault, match="example n: asks no attribute"):
        student.predict([product("n", "a shirt")])
    with pytest.raises(DataFault, match="example w: unknown attribute 'price'"):
        student.predict([product("w", "a shirt", price=("1",))])
    with pytest.raises(DataFault, match="example v: colour: 'pink' is not among its options"):
        student.collate([product("v", "a shirt", colour=("pink",))])


def test_nothing_known_of_an_attribute_is_absent_and_counted(tiny_bert: str) -> None:
    student = build(tiny_bert, [product("x", "a shirt", colour=("red",))])
    asked = [product("y", "a shirt", size=("M",))]
    assert student.predict(asked, return_scores=True) == [(Answer(values={"size": ()}), {"size": None})]
    assert student.given_up == {"attributes_without_values": 1}
    batch = student.collate(asked)
    assert batch.counts["values_unknown"] == 1
    assert student(batch).loss is None


def test_recipes_name_its_mistakes() -> None:
    recipe = {"task": "attributes", "student": "mae", "data": "oamine"}
    assert check(recipe).settings.text_encoder == "minilm"
    with pytest.raises(RecipeFault, match="give one"):
        check({**recipe, "vectors": "glove.txt"})
    with pytest.raises(RecipeFault, match="give one"):
        check({**recipe, "text_encoder": None})
    with pytest.raises(RecipeFault, match="needs an image_encoder"):
        check({**recipe, "images": True})
