"""M-JAVE on a tiny random backbone: its equations, its gates, what it reads, what it refuses."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from magister import students
from magister.distill.recipe import RecipeFault, check
from magister.students.attributes.mjave import MJAVE, MJAVEConfig, bernoulli_kl, implied
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.student import View
from magister.students.system import UnsupportedView
from magister.tasks import attributes
from magister.tasks.images import Image, ImageFault
from magister.tasks.task import DataFault

LEVELS = [(4, 8), (1, 6)]
SEES = View(images=True)
SCHEMA = attributes.Schema(
    attributes=(
        attributes.Attribute(name="size"),
        attributes.Attribute(name="colour"),
        attributes.Attribute(name="fit"),
    )
)


def product(id: str, text: str, *sources: str, asked: Sequence[str] = (), **gold: str) -> attributes.Example:
    values = {name: (value,) if value else () for name, value in gold.items()}
    pictures = tuple(Image(source=source) for source in sources)
    return attributes.Example(
        id=id, text=text, asked=tuple(asked or gold), gold=attributes.Answer(values=values), images=pictures
    )


PRODUCTS = [
    product("p", "Blue cotton shirt size M", "1", size="M", colour="Blue"),
    product("q", "Red shirt, 42cm machine wash", size="42cm", colour="Red"),
    product("r", "green cotton shirt", "333", size="", colour="green"),
    product("s", "shirt", "4444", size="", colour=""),
]


def pictures(images: Sequence[Image]) -> list[torch.Tensor]:
    """Features drawn from each picture's source; ``broken`` cannot be used."""
    for image in images:
        if image.source == "broken":
            raise ImageFault(image.example, image.source, "broken picture")
    draw = lambda image, level: torch.randn(*level, generator=torch.Generator().manual_seed(len(image.source)))
    return [torch.stack([draw(image, level) for image in images]) for level in LEVELS]


def build(backbone: str, levels: Any = LEVELS, **settings: Any) -> MJAVE:
    torch.manual_seed(0)
    settings = {"lora_rank": 0, "dropout": 0.0, "width": 16} | settings
    student = MJAVE.create(MJAVEConfig(backbone=backbone, **settings), {"attributes": SCHEMA})
    if levels:
        student = MJAVE(student.config, student.schemas, student.encoder, levels)
        student.features = pictures
    return student.eval()


def learn(student: MJAVE, examples: Sequence[Any], view: View, steps: int, rate: float = 0.01) -> None:
    optimizer = torch.optim.AdamW(student.parameter_groups(rate, rate), weight_decay=0.0)
    student.train()
    batch = student.collate(examples, view)
    for _ in range(steps):
        loss = student(batch).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    student.eval()


def gold(examples: Sequence[Any]) -> list[Any]:
    return [e.gold for e in examples]


# --- the equations ---


def plainly(student: MJAVE, words: np.ndarray, whole: np.ndarray, picture: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tag and attribute probabilities of one text without padding, token by token, as the sheet writes them."""
    w = {name: value.numpy().astype(np.float64) for name, value in student.state_dict().items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    softmax = lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    wide = np.sqrt(student.config.width)
    fused, taken = [], []
    for h in words:
        alpha = softmax(np.array([(w["reread.query.weight"] @ h) @ (w["reread.key.weight"] @ o) for o in words]) / wide)
        s = sum(a * (w["reread.value.weight"] @ o) for a, o in zip(alpha, words, strict=True))
        if picture is not None:
            regions, vector = picture
            beta = softmax(
                np.array([(w["look.query.weight"] @ h) @ (w["look.key.weight"] @ v) for v in regions]) / wide
            )
            x = sum(b * (w["look.value.weight"] @ v) for b, v in zip(beta, regions, strict=True))
            pushed = w["global_gate.token.weight"][0] @ h + w["global_gate.token.bias"][0]
            s = s + sigmoid(pushed + w["global_gate.picture.weight"][0] @ vector) * x
            taken.append(beta)
        fused.append(s)
    w3, w4, w5 = (w[f"attribute_parts.{n}.weight"] for n in range(3))
    w8, w9, w10 = (w[f"tag_parts.{n}.weight"] for n in range(3))
    inner = w3 @ sum(words) + w4 @ sum(fused) + w5 @ whole
    y = sigmoid(w["attribute.weight"] @ inner + w["attribute.bias"])
    tags = []
    for i, h in enumerate(words):
        inner = w8 @ h + w9 @ fused[i] + w10 @ y
        if picture is not None:
            for k, v in enumerate(regions):
                if student.config.region_gate == "scalar":
                    pushed = w["region_gate.label.weight"][0] @ y
                else:
                    pushed = v @ w["region_gate.label.weight"] @ y
                r = sigmoid(pushed + w["region_gate.region.weight"][0] @ v + w["region_gate.region.bias"][0])
                inner = inner + taken[i][k] * r * (w["look.value.weight"] @ v)
        tags.append(softmax(w["tag.weight"] @ inner + w["tag.bias"]))
    return np.array(tags), y


@pytest.mark.parametrize("gate", ["scalar", "bilinear"])
def test_equations_and_losses_are_those_of_a_plain_reading(tiny_bert: str, gate: str) -> None:
    student = build(tiny_bert, region_gate=gate)
    batch = student.collate(PRODUCTS, SEES)
    with torch.no_grad():
        output = student(batch)
    nll, bce, kl, count = 0.0, 0.0, 0.0, 0
    for example in PRODUCTS:
        alone = student.collate([example], SEES).tensors
        with torch.no_grad():
            states = student.encoder(alone["input_ids"], alone["attention_mask"], alone["token_type_ids"])[0].numpy()
        words = states[alone["word_at"][0].numpy()].astype(np.float64)
        picture = None
        if example.images:
            regions, vector = (level[0].numpy().astype(np.float64) for level in pictures(example.images))
            picture = regions, vector[0]
        tags, y = plainly(student, words, states[0].astype(np.float64), picture)
        at = PRODUCTS.index(example)
        np.testing.assert_allclose(output.scores["tags"][at, : len(words)].exp().numpy(), tags, atol=1e-5)
        np.testing.assert_allclose(output.scores["attributes"][at].numpy(), y, atol=1e-5)

        nll -= np.log([tags[i, t] for i, t in enumerate(alone["tags"][0].tolist())]).sum()
        count += len(words)
        for a, name in enumerate(("size", "colour", "fit")):
            there = bool(example.gold.values.get(name))
            bce -= np.log(y[a] if there else 1 - y[a]) / (3 * len(PRODUCTS))
            q = (tags[:, 1 + 2 * a].max() + tags[:, 2 + 2 * a].max()) / 2
            kl += (y[a] * np.log(y[a] / q) + (1 - y[a]) * np.log((1 - y[a]) / (1 - q))) / (3 * len(PRODUCTS))
    found = {name: float(value) for name, value in output.losses.items()}
    assert found == pytest.approx({"tags": nll / count, "attributes": bce, "kl": kl}, rel=1e-4)
    assert float(output.loss) == pytest.approx(nll / count + bce + 0.5 * kl, rel=1e-4)
    assert batch.tensors["units"].tolist() == [count]


def test_tags_imply_attributes() -> None:
    """Two attributes over three tokens, the last of which is padding."""
    tags = torch.tensor([[[0.1, 0.6, 0.1, 0.1, 0.1], [0.2, 0.1, 0.4, 0.2, 0.1], [0.0, 0.9, 0.9, 0.9, 0.9]]])
    found = implied(tags, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found, torch.tensor([[(0.6 + 0.4) / 2, (0.2 + 0.1) / 2]]))


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_divergence_is_that_of_torch_and_never_negative(p: float, q: float) -> None:
    first, second = torch.tensor([p], dtype=torch.float64), torch.tensor([q], dtype=torch.float64)
    found = float(bernoulli_kl(first, second))
    assert found >= -1e-12
    assert float(bernoulli_kl(first, first)) == 0
    if 0.001 < p < 0.999 and 0.001 < q < 0.999:
        made = [torch.distributions.Bernoulli(probs=x) for x in (first, second)]
        assert found == pytest.approx(float(torch.distributions.kl_divergence(*made)), abs=1e-9)


# --- gates and masks ---


@pytest.mark.parametrize("gate", ["scalar", "bilinear"])
def test_shut_gates_or_no_picture_are_the_text_only_model_bit_for_bit(tiny_bert: str, gate: str) -> None:
    student = build(tiny_bert, region_gate=gate)

    @torch.no_grad()
    def say(examples: Sequence[Any], view: View) -> tuple[torch.Tensor, torch.Tensor]:
        scores = student(student.collate(examples, view)).scores
        return scores["tags"], scores["attributes"]

    text, seen = say(PRODUCTS, View()), say(PRODUCTS, SEES)
    without = PRODUCTS.index(next(e for e in PRODUCTS if not e.images))
    for alone, both in zip(text, seen, strict=True):
        assert torch.equal(alone[without], both[without])  # the others of its batch have pictures
        assert not torch.allclose(alone[0], both[0], atol=1e-4)
    blind = [e.model_copy(update={"images": ()}) for e in PRODUCTS]
    assert all(torch.equal(a, b) for a, b in zip(text, say(blind, SEES), strict=True))
    with torch.no_grad():
        student.global_gate.token.bias.fill_(-1e4)
        student.region_gate.region.bias.fill_(-1e4)
    assert all(torch.equal(a, b) for a, b in zip(text, say(PRODUCTS, SEES), strict=True))


def test_either_gate_lets_the_picture_in(tiny_bert: str) -> None:
    for shut in ("global_gate.token", "region_gate.region"):
        student = build(tiny_bert)
        with torch.no_grad():
            student.get_submodule(shut).bias.fill_(-1e4)  # type: ignore[operator, union-attr]
            text, seen = (student(student.collate(PRODUCTS, view)).scores["tags"][0] for view in (View(), SEES))
        assert not torch.allclose(text, seen, atol=1e-4)


def test_padding_gets_no_attention_and_changes_nothing(tiny_bert: str) -> None:
    student = build(tiny_bert)
    batch = student.collate(PRODUCTS, SEES)
    weights: list[torch.Tensor] = []
    student.reread.register_forward_hook(lambda *call: weights.append(call[2][0]))
    with torch.no_grad():
        output = student(batch)
        alone = [student(student.collate([e], SEES)).scores for e in PRODUCTS]
    mask = batch.tensors["word_mask"]
    assert not mask.all()
    assert not weights[0].masked_select(~mask[:, None]).any()
    for at, scores in enumerate(alone):
        length = int(mask[at].sum())
        torch.testing.assert_close(output.scores["tags"][at, :length], scores["tags"][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.scores["attributes"][at], scores["attributes"][0], atol=1e-5, rtol=1e-4)
    assert student.predict(PRODUCTS, SEES, batch_size=1) == student.predict(PRODUCTS, SEES, batch_size=4)


# --- learning and answering ---


@pytest.mark.parametrize("view", [View(), SEES])
def test_overfits(tiny_bert: str, view: View) -> None:
    student = build(tiny_bert)
    learn(student, PRODUCTS, view, 120)
    assert student.predict(PRODUCTS, view) == gold(PRODUCTS)
    with torch.no_grad():
        batch = student.collate(PRODUCTS, view)
        said = student(batch).scores["attributes"] > 0.5
    assert torch.equal(said.float(), batch.tensors["attributes"])


def test_a_frozen_backbone_stays_what_it_was(tiny_bert: str) -> None:
    student = build(tiny_bert, frozen=True)
    before = {name: value.clone() for name, value in student.encoder.state_dict().items()}
    assert [group["name"] for group in student.parameter_groups(1.0, 1.0)] == ["heads"]
    learn(student, PRODUCTS, View(), 30)
    assert all(torch.equal(value, before[name]) for name, value in student.encoder.state_dict().items())
    student.train()
    assert student.training
    assert not student.encoder.training
    assert "(frozen)" in student.config.pretrained(images=False)


def test_knowledge_is_read_where_it_decides(tiny_bert: str) -> None:
    """Twins whose text is the same: only the teacher's words can tell."""
    twins = [
        product(c, "red green cotton shirt", colour=c).model_copy(update={"context": {"knowledge": f"{c} in the text"}})
        for c in ("red", "green")
    ]
    student = build(tiny_bert, None)
    view = View(context=("knowledge",))
    learn(student, twins, view, 150, rate=0.003)
    assert student.predict(twins, view) == gold(twins)
    blind = student.predict(twins)
    assert blind[0] == blind[1]


def test_only_what_is_asked_is_answered_with_its_probability(tiny_bert: str) -> None:
    student = build(tiny_bert)
    learn(student, PRODUCTS, View(), 60)
    ((answer, scores),) = student.predict([product("p", "Blue cotton shirt size M", size="M")], return_scores=True)
    assert answer.values == {"size": ("M",)}
    assert 0.5 < scores["size"] <= 1


def test_an_attribute_below_the_threshold_is_absent(tiny_bert: str) -> None:
    """An untrained student marks spans everywhere; half of its attributes are less probable than the threshold."""
    asking = [e.model_copy(update={"asked": ("size", "colour", "fit")}) for e in PRODUCTS]
    torch.manual_seed(0)
    lax = build(tiny_bert)
    with torch.no_grad():
        lax.tag.bias[0] -= 100.0  # no word is outside
        probable = lax(lax.collate(asking, View())).scores["attributes"]
    threshold = float(probable.flatten().sort().values[[5, 6]].mean())
    strict = build(tiny_bert, threshold=threshold)
    strict.load_state_dict(lax.state_dict())
    marked = 0
    for row, before, (after, scores) in zip(
        probable.tolist(), lax.predict(asking), strict.predict(asking, return_scores=True), strict=True
    ):
        for probability, name in zip(row, ("size", "colour", "fit"), strict=True):
            if probability < threshold:
                marked += bool(before.values[name])
                assert after.values[name] == ()
                assert scores[name] == pytest.approx(1 - probability, abs=1e-6)
            else:
                assert after.values[name] == before.values[name]
    assert marked


@pytest.mark.parametrize(
    "settings", [{"lora_rank": 4, "lora_alpha": 8.0}, {}, {"frozen": True, "region_gate": "bilinear"}]
)
def test_saved_and_loaded_answers_the_same(tiny_bert: str, settings: dict[str, Any], tmp_path: Path) -> None:
    student = build(tiny_bert, **settings)
    learn(student, PRODUCTS, SEES, 3)
    student.save_pretrained(tmp_path)
    again = students.load(tmp_path)
    again.features = pictures
    assert again.config == student.config
    assert again.predict(PRODUCTS, SEES, return_scores=True) == student.predict(PRODUCTS, SEES, return_scores=True)
    trained = lambda of: {name for name, p in of.named_parameters() if p.requires_grad}
    assert trained(again) == trained(student)


def test_a_picture_without_a_vector_of_its_own_has_the_mean_of_its_regions(tiny_bert: str) -> None:
    student = build(tiny_bert, LEVELS[:1])
    student.features = lambda images: pictures(images)[:1]
    batch = student.collate(PRODUCTS, SEES)
    seen = student._picture(batch.tensors)
    assert seen is not None
    torch.testing.assert_close(seen.whole, seen.regions.mean(1))
    assert student(batch).loss is not None


# --- what it says and what it refuses ---


def test_what_is_given_up_is_counted(tiny_bert: str) -> None:
    chinese = product("z", "黑色 shirt", "1", size="", colour="黑色")
    more = [chinese, product("y", "red shirt", "1", "22", size="XL", colour="red")]
    batch = build(tiny_bert).collate([*more, PRODUCTS[1]], SEES)
    assert batch.counts == {
        "unknown_sub_tokens": 2,  # each Chinese character is a unit of its own
        "values_not_in_text": 1,
        "image_missing": 1,
        "image_beyond_first": 1,
    }
    assert batch.tensors["tags"][0].tolist()[:2] == [3, 4]


def test_a_broken_picture_is_refused_or_counted(tiny_bert: str) -> None:
    student = build(tiny_bert)
    broken = product("b", "red shirt", "broken", colour="red")
    with pytest.raises(ImageFault, match="broken picture"):
        student.predict([broken], SEES)
    student.refuse_broken_images = False
    assert student.predict([broken], SEES) == student.predict([broken])


def test_what_cannot_be_is_refused(tiny_bert: str, tiny_gemma: str) -> None:
    student = build(tiny_bert, None)
    refused = {
        "cannot see": SEES,
        "nothing to tag": View(text=False),
        "no conditional prompt": View(prompt=True),
        "does not explain": View(explain="knowledge"),
    }
    for message, view in refused.items():
        with pytest.raises(UnsupportedView, match=message):
            student.predict(PRODUCTS, view)
    with pytest.raises(DataFault, match=r"example x: unknown attribute 'brand'"):
        student.predict([product("x", "red shirt", asked=("brand",))])
    with pytest.raises(DataFault, match="no words"):
        student.predict([product("x", " ", asked=("size",))])
    with pytest.raises(UnsupportedBackbone, match="take an encoder"):
        build(tiny_gemma)
    options = attributes.Attribute(name="sleeve", type="one_of", options=("long", "short"))
    student.schemas["attributes"] = attributes.Schema(attributes=(options,))
    with pytest.raises(UnsupportedView, match="sleeve is a one_of"):
        student.predict([product("x", "red shirt", asked=("sleeve",))])


def test_examples_without_gold_teach_nothing(tiny_bert: str) -> None:
    student = build(tiny_bert)
    blank = [e.model_copy(update={"gold": None}) for e in PRODUCTS]
    with torch.no_grad():
        assert student(student.collate(blank, SEES)).loss is None
        alone, mixed = (
            student(student.collate(some, SEES)).loss for some in (PRODUCTS[:2], [*PRODUCTS[:2], *blank[2:]])
        )
    torch.testing.assert_close(alone, mixed)


def test_a_recipe_that_contradicts_itself_is_refused() -> None:
    recipe = {"task": "attributes", "student": "mjave", "data": "oamine", "frozen": True, "text": False, "images": True}
    with pytest.raises(RecipeFault) as fault:
        check(recipe | {"image_encoder": "efficientnet-lite0"})
    assert "lora_rank: 0" in str(fault.value)
    assert "text: true" in str(fault.value)


# --- a picture must help where it decides ---

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 40), "blue": (40, 60, 220)}


def square(colour: str, draw: random.Random) -> Image:
    """A square of a colour, of some size at some place, on some grey."""
    from PIL import Image as Pillow

    shade, side = draw.randrange(90, 160), draw.randrange(30, 70)
    x, y = draw.randrange(84 - side), draw.randrange(84 - side)
    made = Pillow.new("RGB", (84, 84), (shade, shade, shade))
    made.paste(COLOURS[colour], (x, y, x + side, y + side))
    file = io.BytesIO()
    made.save(file, "PNG")
    return Image.of_bytes(file.getvalue())


@cache
def cells(image: Image) -> torch.Tensor:
    """An eye that was never trained: the mean colour of each of 7 x 7 cells."""
    from PIL import Image as Pillow

    small = image.open().resize((7, 7), Pillow.Resampling.BOX)
    return (torch.tensor(np.asarray(small), dtype=torch.float32) / 64 - 2).view(49, 3)


@pytest.mark.parametrize("gate", ["scalar", "bilinear"])
def test_a_picture_decides_between_two_colours_in_the_text(tiny_bert: str, gate: str) -> None:
    """``red green shirt``: the value is the colour of the square. Judged on new squares; text alone can but guess."""
    draw = random.Random(0)

    def make(count: int) -> list[attributes.Example]:
        found = []
        for n in range(count):
            words = draw.sample(sorted(COLOURS), 2)
            right = draw.choice(words)
            made = product(str(n), f"{' '.join(words)} cotton shirt", colour=right)
            found.append(made.model_copy(update={"images": (square(right, draw),)}))
        return found

    train, test = make(128), make(48)
    right: dict[bool, float] = {}
    for view in (View(), SEES):
        student = build(tiny_bert, [(49, 3)], frozen=True, width=32, region_gate=gate)
        student.features = lambda images: [torch.stack([cells(image) for image in images])]
        learn(student, train, view, 260)
        said = student.predict(test, view)
        right[view.images] = sum(a == e.gold for a, e in zip(said, test, strict=True)) / len(test)
    assert right[False] < 0.7
    assert right[True] > 0.9

    other = [next(w for w in e.text.split()[:2] if (w,) != e.gold.values["colour"]) for e in test]
    swapped = [e.model_copy(update={"images": (square(c, draw),)}) for e, c in zip(test, other, strict=True)]
    said = [answer.values["colour"] for answer in student.predict(swapped, SEES)]
    assert np.mean([values == (c,) for values, c in zip(said, other, strict=True)]) > 0.9
