"""Near-duplicates: against comparing every pair, and by hand; the same picture under another name."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.tasks import attributes, completion, ner, relations
from magister.tasks.graph import Entity, Relation
from magister.tasks.images import Image
from magister.teachers.knowledge.duplicates import hashes, image_duplicates, jaccard, near, near_duplicates, shingles
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parent))
from fake_teacher import example

POST = "RT @ann: what a day in Rome with the whole team at the old harbour https://t.co/x1"


def test_a_post_with_another_link_and_case_is_a_near_duplicate():
    texts = {
        "a": POST,
        "b": POST.lower().replace("x1", "yy"),
        "c": "an evening of football",
        "d": POST.replace("Rome", "Oslo"),
        "e": POST.replace("day", "night").replace("old", "new"),
        "f": "an evening of football!",
    }
    assert near(texts) == {"b": "a", "d": "a", "f": "c"}
    assert near(texts, 1.0) == {"b": "a", "f": "c"}


def test_short_and_empty_texts():
    assert near({"a": "Nike", "b": "nike!", "c": "", "d": "...", "e": "Adidas"}) == {"b": "a"}


def test_signs_without_blanks_between_are_words():
    assert shingles("红色连衣裙") == {"红 色", "色 连", "连 衣", "衣 裙"}
    assert near({"a": "新款红色连衣裙夏季女装长裙", "b": "新款红色连衣裙夏季女装长裙子"}) == {"b": "a"}


def test_a_chain_of_small_changes_is_not_one_cluster():
    words = [f"w{i}" for i in range(20)]
    texts = {str(n): " ".join([*(f"x{i}" for i in range(n)), *words[n:]]) for n in range(6)}
    # of 19 pairs 18 (n = 1), 17 (n = 2), 16 (n = 3) are those of the first text: 18 / 20, 17 / 21, 16 / 22 are shared
    assert near(texts, 0.8) == {"1": "0", "2": "0", "4": "3"}


def test_a_likeness_is_a_share():
    with pytest.raises(ValueError, match="above 0"):
        near({}, 0.0)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), max_size=12),
    st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.8, 1.0]),
)
def test_against_comparing_every_pair(bags, likeness):
    texts = {str(i): " ".join(words) for i, words in enumerate(bags)}
    expected: dict[str, str] = {}
    for id, text in texts.items():
        originals = [o for o in texts if int(o) < int(id) and o not in expected]
        alike = [o for o in originals if jaccard(shingles(text), shingles(texts[o])) >= likeness]
        if alike:
            expected[id] = alike[0]
    assert near(texts, likeness) == expected


def test_only_the_same_question_is_compared():
    text = "Ann meets Bob in Rome on a day in the spring of the year"
    ann, bob, rome = (
        ner.Entity(text=w, type="", start=text.index(w), end=text.index(w) + len(w)) for w in ("Ann", "Bob", "Rome")
    )
    pairs = [
        relations.Example(id=i, text=text, pair=p)
        for i, p in (("1", (ann, bob)), ("2", (ann, rome)), ("3", (ann, bob)))
    ]
    assert near_duplicates(pairs) == {"3": "1"}
    products = [
        attributes.Example(id=i, text="Acme shoe", category=c, asked=a)
        for i, c, a in (("1", "x", ("B",)), ("2", "y", ("B",)), ("3", "x", ("C",)), ("4", "x", ("B",)))
    ]
    assert near_duplicates(products) == {"4": "1"}
    triples = [completion.Example(id=i, given=Entity(id="x"), relation=Relation(name="r")) for i in "12"]
    assert near_duplicates(triples) == {}


def test_pictures_by_their_content(tmp_path):
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        Pillow.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    red, again, blue = (Image(source=str(tmp_path / f"{name}.png")) for name in "abc")
    gone = Image(source=str(tmp_path / "gone.png"))
    examples = [example(i, images=some) for i, some in enumerate([(red,), (blue, gone), (gone,), (again,), (red, red)])]
    assert image_duplicates(examples) == {"e3": "e0", "e4": "e0"}
    assert len(hashes((red, gone, blue))) == 2


def test_pictures_are_compared_where_the_same_is_asked():
    red = (Image.of_bytes(b"red"),)
    ann, bob = Entity(id="ann", images=red), Entity(id="bob", images=red)
    asked = [("1", ann, "r", "tail"), ("2", ann, "s", "tail"), ("3", ann, "r", "head"), ("4", ann, "r", "tail")]
    asked += [("5", bob, "r", "tail"), ("6", bob, "t", "tail")]
    triples = [completion.Example(id=i, given=e, relation=Relation(name=r), asked=a) for i, e, r, a in asked]
    assert image_duplicates(triples) == {"5": "1"}
    text = "Ann meets Bob in Rome"
    a, b, c = (ner.Entity(text=w, type="", start=text.index(w), end=text.index(w) + len(w)) for w in text.split()[::2])
    pairs = [
        relations.Example(id=i, text=text, pair=p, images=red) for i, p in (("1", (a, b)), ("2", (a, c)), ("3", (a, b)))
    ]
    assert image_duplicates(pairs) == {"3": "1"}


def test_many_posts_are_compared_in_seconds():
    """10,000 posts that all begin alike; every tenth repeats an earlier one but for its last word."""
    rng = random.Random(0)
    vocabulary = [f"w{int(rng.paretovariate(0.3)) % 5_000}" for _ in range(50_000)]
    texts: dict[str, str] = {}
    for i in range(10_000):
        words = ["rt", "at", "the", *rng.choices(vocabulary, k=15)]
        if i % 10 == 9:
            words = [*texts[str(i - 5)].split()[:-1], "new"]
        texts[str(i)] = " ".join(words)
    started = time.process_time()
    found = near(texts)
    assert time.process_time() - started < 10
    assert found == {str(i): str(i - 5) for i in range(9, 10_000, 10)}
