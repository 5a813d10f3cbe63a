"""Bad rows of every format become faults that name file and line, and the rest is read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.tasks import ner
from magister.tasks.readers import conll, read
from magister.tasks.readers.mepave import GLOSSES
from magister.tasks.task import DataFault
from seqeval.scheme import IOB2, Entities

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@given(st.lists(st.tuples(st.text("abé😀", min_size=1, max_size=3), st.sampled_from(TAGS)), max_size=12))
def test_spans_are_those_of_seqeval_strict(pairs):
    words, tags = [w for w, _ in pairs], [t for _, t in pairs]
    entities, orphans = conll.spans(words, tags, ("PER", "LOC"))
    text = " ".join(words)
    assert all(text[e.start : e.end] == e.text for e in entities)
    starts = (
        {s: i for i, (s, _) in enumerate(ner.word_spans(ner.Example(id="x", text=text, words=tuple(words))))}
        if words
        else {}
    )
    found = [(e.type, starts[e.start], starts[e.start] + len(e.text.split(" "))) for e in entities]
    expected = [(e.tag, e.start, e.end) for e in Entities([tags], IOB2).entities[0]] if tags else []
    assert found == expected
    chunks = sum(tag[2:] != before[2:] for before, tag in zip(["O", *tags], tags, strict=False) if tag[0] == "I")
    assert orphans == chunks


def test_spans_refuse_unknown_tags():
    for tag in ("B-FOO", "I-", "X", "B", "E-PER"):
        with pytest.raises(ValueError, match="unknown tag"):
            conll.spans(["a"], [tag], ("PER",))
    with pytest.raises(ValueError, match="2 words but 1 tags"):
        conll.spans(["a", "b"], ["O"], ("PER",))


TWEETS = """IMGID:1
Ann\tB-PER
Lee\tI-PER
sings\tO

IMGID:2
broken line

IMGID:3
Rome\tB-CITY

IMGID:4

IMGID:
word\tO

IMGID:1
again\tO

stray\tO

IMGID:5
a\tO\tO

IMGID:6
Oslo\tB-LOC
IMGID:7
\u00a0\tO
last\tO"""


@pytest.fixture
def tweets(tmp_path):
    (tmp_path / "train.txt").write_text(TWEETS, encoding="utf-8")
    return tmp_path


def test_conll_faults_name_file_and_line(tweets):
    dataset = read(f"twitter2015:{tweets}")
    assert [e.id for e in dataset.split("train")] == [
        "1",
        "6",
        "7",
    ]  # 6 has no blank line, 7 no line after it
    assert dataset.split("train")[0].text == "Ann Lee sings"
    said = [(fault.where.removeprefix(f"{tweets}/train.txt, line "), fault.problem) for fault in dataset.faults]
    assert [line for line, _ in said] == ["7", "9", "12", "14", "17", "20", "23"]
    for part, (_, problem) in zip(
        (
            "word<TAB>tag",
            "'B-CITY'",
            "4 has no words",
            "without an id",
            "'1' is used twice",
            "before",
            "word<TAB>tag",
        ),
        said,
        strict=True,
    ):
        assert part in problem
    assert "PER, LOC, ORG, OTHER" in str(dataset.faults[1])
    assert dataset.notes == {"without_caption.train": 3}


def test_conll_windows_line_ends_and_byte_order_mark(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfIMGID:1\r\nParis\tB-LOC\r\n\r\nIMGID:2\r\nhi\tO")
    dataset = read(str(tmp_path))
    assert [e.text for e in dataset.split("train")] == ["Paris", "hi"]
    assert dataset.split("train")[0].gold.entities[0].text == "Paris"


def test_not_utf8_is_refused_by_line(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"IMGID:1\nParis\tO\n\xff\xfe\tO\n")
    with pytest.raises(DataFault, match=r"train\.txt, line 3: not UTF-8"):
        read(f"twitter2017:{tmp_path}")


def test_empty_folder(tmp_path):
    with pytest.raises(DataFault, match=r"no train\.txt"):
        read(f"twitter2017:{tmp_path}")
    with pytest.raises(DataFault, match=r"no train\.jsonl"):
        read(f"oamine:{tmp_path}")


def test_titles(tmp_path):
    good = {"input": " Red tea ", "category": "Tea", "target_scores": {"Color": {" Red": 1, "n/a": 1}}}
    lines = [json.dumps(good), "{", json.dumps({**good, "more": 1}), json.dumps({**good, "input": " "}), "7"]
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    dataset = read(str(tmp_path))
    assert dataset.name == "oamine"
    (example,) = dataset.split("train")
    assert (example.text, example.gold.values) == ("Red tea", {"Color": ("Red",)})
    assert dataset.notes["absent_and_value.train"] >= 1
    assert sorted(fault.where.rpartition(" ")[2] for fault in dataset.faults) == ["2", "3", "4", "5"]


@pytest.fixture
def implicitave(tmp_path):
    (tmp_path / "image_text").mkdir()
    for name in ("Clothing_Shoes_and_Jewelry", "Food", "Home"):
        (tmp_path / f"options_{name}.json").write_text(json.dumps({"Material": ["Glass", "Gold"]}))
    return tmp_path


def test_implicitave_rows(implicitave):
    rows = [
        "domain\tid\timages\tcategory\ttexts\tattribute_names\tattribute_values",
        'Home\tA\tA.jpg\tVases\t"[Title] A ""fine"" vase"\tMaterial\tGlass',
        "Home\tB\tB.jpg\tVases\t[Title] B",
        "Moon\tC\tC.jpg\tVases\t[Title] C\tMaterial\tGlass",
        'Home\tD\tD.jpg\tVases\t"[Title] D\tMaterial\tGlass',
        "Home\tE\tE.jpg\tVases\t[Title] E\tMaterial\tClay",
        "Home\tF\tF.jpg\tVases\t[Title] F\tSmell\tGlass",
        "Home\tG\tG.jpg\tVases\t[Title] G\tMaterial\tGold",
    ]
    (implicitave / "image_text" / "train.tsv").write_text("\n".join(rows), encoding="utf-8")
    dataset = read(str(implicitave))
    assert [e.text for e in dataset.split("train")] == ['A "fine" vase', "G"]
    said = "\n".join(map(str, dataset.faults))
    for part in (
        "line 3: 5 columns",
        "line 4: unknown domain 'Moon'",
        "line 5: broken quoting",
        "line 6",
        "line 7",
    ):
        assert part in said
    assert "'Clay' is none of its options" in said
    assert "unknown attribute 'Smell'" in said


def test_implicitave_header(implicitave):
    (implicitave / "image_text" / "train.tsv").write_text("id\ttexts\n", encoding="utf-8")
    with pytest.raises(DataFault, match="unknown columns: id, texts"):
        read(str(implicitave))


def test_mepave(tmp_path):
    (tmp_path / "vocab.label").write_text("[PAD]\n[UNK]\n" + "\n".join(GLOSSES), encoding="utf-8")
    rows = [
        "c_1\ts_1\t红色裙\t<颜色>红色</颜色>裙",
        "c_2\ts_2\t红色裙\t<颜色>红</颜色>裙",
        "c_3\ts_3\t红裙\t<味道>红</味道>裙",
        "c_4\ts_4\t红裙",
        "c_5\ts_5\t红裙\t<颜色>红裙",
    ]
    (tmp_path / "jdai.jave.fashion.train.sample").write_text("\n".join(rows), encoding="utf-8")
    dataset = read(str(tmp_path))
    assert [e.id for e in dataset.split("train")] == ["s_1"]
    said = [str(fault) for fault in dataset.faults]
    assert all(f"line {n}" in text for n, text in enumerate(said, 2))
    assert "s_2: without its marks" in said[0]
    assert "'味道'" in said[1]
    assert "3 columns" in said[2]
    assert "s_5: without its marks" in said[3]
