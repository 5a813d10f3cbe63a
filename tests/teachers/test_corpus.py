"""The corpus folder: opened by the tools of the field, whole or not at all, and what students read."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.tasks.task import DataFault
from magister.teachers.knowledge import corpus
from magister.teachers.knowledge.card import Card
from magister.teachers.ledger import jsonl

DATA = Path(os.environ.get("MAGISTER_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def row(example: str, text: str = "it is so", prompt: str = "ner/rationale.noun.v1", **fields) -> dict:
    return {
        "id": example,
        "task": "ner",
        "prompt": prompt,
        "sample": 0,
        "text": text,
        "status": "kept",
    } | fields


ROWS = [
    row("a", "a noun"),
    row("a", '{"entities": []}', "ner/zero_shot.v1", answer='{"entities": []}', agreement=0.5, prompt_tokens=3),
    row("a", "a sentence", "ner/rationale.sentence.v1"),
    row("a", "another post", "ner/rationale.style.v1"),
    row("b", "as the given answer says", status="quarantined", reason="leak"),
    row("b", "b sentence", "ner/rationale.sentence.v1", repaired=True),
    row("c", "", status="failed", reason="image", detail="no such file"),
]


@pytest.fixture
def folder(tmp_path):
    corpus.build(tmp_path / "c", ROWS, Card(name="test", templates={"ner/rationale.noun.v1": "f00d"}))
    return tmp_path / "c"


def test_stats_add_up(folder):
    counts = corpus.stats(folder)
    assert counts["rows"] == len(ROWS) == sum(counts["status"].values())
    assert counts["examples"] == 3
    assert counts["status"] == {"kept": 5, "quarantined": 1, "failed": 1}
    assert (counts["quarantined"], counts["failed"]) == ({"leak": 1}, {"image": 1})
    assert counts["prompts"]["ner/rationale.noun.v1"] == {"kept": 1, "quarantined": 1, "failed": 1}
    assert (counts["agreement"], counts["prompt_tokens"], counts["repaired"]) == (0.5, 3, 1)


def test_the_hub_library_and_pyarrow_open_it(folder, tmp_path, monkeypatch):
    (folder / "ledger.jsonl").write_text('{"not": "a row"}\n')  # what else lies there does not get in
    (folder / "run.json").write_text("{}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"].column_names == [name for name, *_ in corpus.COLUMNS]
    assert loaded["train"][0]["text"] == "a noun"
    from pyarrow import parquet

    assert parquet.read_table(folder / "data" / "train.parquet").num_rows == len(ROWS)


def test_columns_keep_their_types_where_all_is_null(tmp_path):
    corpus.build(tmp_path / "c", [row("a")], Card(name="x"))
    from pyarrow import parquet

    schema = parquet.read_schema(tmp_path / "c" / "data" / "train.parquet")
    assert str(schema.field("agreement").type) == "float"
    assert str(schema.field("grounded").type) == "string"
    assert str(schema.field("answer_changed").type) == "bool"
    assert str(schema.field("images").type).startswith("list<")
    assert str(schema.field("vote").type) == "float"


def test_the_card_claims_no_licence_that_was_not_given(folder, tmp_path):
    def header(path: Path) -> dict:
        return yaml.safe_load(path.read_text().split("---\n")[1])

    text = (folder / "README.md").read_text()
    assert "license" not in header(folder / "README.md")
    assert "No licence is stated" in text
    assert "7 rows on 3 examples = 5 kept + 1 quarantined + 1 failed." in text
    assert "| ner/rationale.noun.v1 | 1 | 1 | 1 | f00d |" in text
    card = Card(name="y", license="cc-by-4.0", command="magister generate ner X", settings={"seed": 1})
    corpus.build(tmp_path / "d", ROWS, card)
    text = (tmp_path / "d" / "README.md").read_text()
    assert header(tmp_path / "d" / "README.md")["license"] == "cc-by-4.0"
    assert "magister generate ner X" in text
    assert '"seed": 1' in text


def test_rows_by_status_and_prompt(folder):
    assert [r["id"] for r in corpus.rows(folder)] == [r["id"] for r in ROWS]
    assert [r["reason"] for r in corpus.rows(folder, status="quarantined")] == ["leak"]
    for name in ("ner/rationale.sentence.v1", "ner/rationale.sentence", "rationale.sentence"):
        assert [r["id"] for r in corpus.rows(folder, prompt=name)] == ["a", "b"]
    with pytest.raises(DataFault, match=r"no rows of the prompt 'x'.*ner/zero_shot\.v1"):
        list(corpus.rows(folder, prompt="x"))
    with pytest.raises(DataFault, match="no status 'good'"):
        list(corpus.rows(folder, status="good"))


@pytest.mark.parametrize("bad", [{"colour": 1}, {"status": "fine"}, {"status": "failed"}, {"reason": "leak"}], ids=str)
def test_a_wrong_row_is_refused_and_the_old_corpus_stays(folder, bad):
    before = (folder / "data" / "train.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"row|column"):
        corpus.build(folder, [row("z") | bad], Card(name="x"))
    assert (folder / "data" / "train.parquet").read_bytes() == before
    assert [p.name for p in (folder / "data").iterdir()] == ["train.parquet"]


def test_half_characters_do_not_stop_it(tmp_path):
    corpus.build(tmp_path / "c", [row("a", "broken \ud83d, whole \U0001f600")], Card(name="x"))
    assert next(corpus.rows(tmp_path / "c"))["text"] == "broken \ufffd, whole \U0001f600"


def test_a_folder_that_is_no_corpus_is_named(tmp_path):
    with pytest.raises(DataFault, match="is no corpus"):
        corpus.stats(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataFault, match="cannot be read"):
        corpus.stats(tmp_path)


def test_without_pyarrow_the_message_says_what_to_install(tmp_path):
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from magister.teachers.knowledge import corpus\n"
        f"corpus.stats({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'magister[train]'" in done.stderr


# --- texts ---


def test_students_read_kept_knowledge_only(folder):
    assert corpus.texts(folder) == {"a": "a noun\na sentence", "b": "b sentence"}
    assert corpus.texts(folder, "rationale.noun") == {"a": "a noun"}
    assert corpus.texts(folder, ["rationale.sentence", "rationale.noun"]) == {
        "a": "a sentence\na noun",
        "b": "b sentence",
    }
    assert corpus.texts(folder, "zero_shot") == {"a": '{"entities": []}'}
    assert corpus.texts(folder, "rationale.style") == {"a": "another post"}
    with pytest.raises(DataFault, match=r"no kept row of the prompt 'queries'.*zero_shot\.v1 \(1 kept\)"):
        corpus.texts(folder, "queries")


def test_the_most_voted_sample_is_read(tmp_path):
    voted = [row("a", f"s{i}", sample=i, vote=vote) for i, vote in enumerate((0.25, 0.5, 0.5))]
    voted += [row("b", f"s{i}", sample=i) for i in range(2)]
    voted += [row("c", "one", about="x"), row("c", "two", about="y")]
    corpus.build(tmp_path / "c", voted, Card(name="x"))
    assert corpus.texts(tmp_path / "c") == {"a": "s1", "b": "s0", "c": "one\ntwo"}


def test_a_corpus_without_knowledge_says_so(tmp_path):
    corpus.build(tmp_path / "c", ROWS[-1:], Card(name="x"))
    with pytest.raises(DataFault, match=r"no kept row of knowledge in free text.*noun\.v1 \(0 kept\)"):
        corpus.texts(tmp_path / "c")


# --- import ---


def lines(path: Path, *data) -> Path:
    text = "\n".join(d if isinstance(d, str) else json.dumps(d) for d in data) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["k.jsonl", "k.jsonl.gz"])
def test_import_names_faults_and_counts_the_rest(tmp_path, name):
    file = lines(
        tmp_path / name,
        {"image_id": "1", "knowledge": "one"},
        "not json",
        "",
        {"image_id": 2, "knowledge": "two"},
        {"image_id": "1", "knowledge": "one"},
        {"image_id": "1", "knowledge": "other"},
        {"image_id": "3", "knowledge": None},
        {"image_id": "3"},
        ["3", "three"],
        {"image_id": "4", "knowledge": "  "},
        {"image_id": "5", "knowledge": "I'm sorry, but I can't help with that."},
        {"image_id": True, "knowledge": "x"},
    )
    found = corpus.import_texts(file, tmp_path / "c")
    assert found.lines == 11
    assert found.lines == len(found.texts) + len(found.faults) + found.repeated + found.contradicted
    assert (found.repeated, found.contradicted) == (1, 1)
    assert [f.where.rpartition(" ")[2] for f in found.faults] == ["2", "7", "8", "9", "12"]
    assert "no JSON" in str(found.faults[0])
    assert "NoneType" in str(found.faults[1])
    assert corpus.stats(tmp_path / "c")["quarantined"] == {"empty": 1, "refused": 1}
    assert corpus.texts(tmp_path / "c") == {"1": "one", "2": "two"}
    card = (tmp_path / "c" / "README.md").read_text()
    assert "lines_unreadable: 5" in card
    assert "lines_contradicted: 1" in card
    with pytest.raises(DataFault, match=r"5 of 11 lines.*line 2"):
        corpus.texts(file)


def test_a_byte_that_is_no_utf8_spoils_its_line_only(tmp_path):
    file = tmp_path / "k.jsonl"
    file.write_bytes(
        '\ufeff{"id": "1", "text": "汉"}\n{"id": "2", "text": "\udcff"}\n'.encode("utf-8", "surrogateescape")
    )
    found = jsonl.read(file)
    assert found.texts == {"1": "汉"}
    assert len(found.faults) == 1


def test_texts_of_a_file_say_what_is_left_out(tmp_path):
    file = lines(tmp_path / "k.jsonl", {"id": "1", "text": "one "}, {"id": "1", "text": "no"}, {"id": "2", "text": ""})
    with pytest.warns(UserWarning, match=r"1 lines contradict.* 1 texts are blank"):
        assert corpus.texts(file) == {"1": "one"}
    with pytest.raises(DataFault, match="no prompts"):
        corpus.texts(file, "noun")


def test_fields_can_be_named(tmp_path):
    file = lines(tmp_path / "k.jsonl", {"nr": "1", "said": "one", "id": "x", "text": "y"})
    assert jsonl.read(file, "nr", "said").texts == {"1": "one"}
    file = lines(tmp_path / "l.jsonl", {"nr": "1", "said": "one"})
    with pytest.raises(DataFault, match=r"none of the fields id, image_id.*id_field: nr, said"):
        corpus.import_texts(file, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_import_refuses_a_folder_in_use_and_broken_files(tmp_path, folder):
    file = lines(tmp_path / "k.jsonl", {"id": "1", "text": "one"})
    with pytest.raises(DataFault, match="in use"):
        corpus.import_texts(file, folder)
    torn = tmp_path / "t.jsonl.gz"
    torn.write_bytes(gzip.compress(file.read_bytes() * 50)[:-10])
    for bad in (torn, tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(DataFault, match="cannot be read"):
            corpus.import_texts(bad, tmp_path / "new")
    empty = lines(tmp_path / "e.jsonl", "")
    with pytest.raises(DataFault, match="not one of its 0 lines"):
        corpus.import_texts(empty, tmp_path / "new")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.sampled_from(["id", "text", "x"]), json_values) | json_values, max_size=8))
def test_any_lines_are_counted(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "k.jsonl"
    lines(file, *map(json.dumps, data), json.dumps({"id": "last", "text": "so that there is one"}))
    found = jsonl.read(file)
    assert found.lines == len(data) + 1
    assert found.lines == len(found.texts) + len(found.faults) + found.repeated + found.contradicted


@pytest.mark.parametrize(("name", "count"), [("twitter2017", 4719), ("twitter2015", 8104)])
def test_real_knowledge(tmp_path, name, count):
    """The ChatGPT knowledge beside the Twitter sets: all lines are read, folder and file agree."""
    file = DATA / "mner" / name / "knowledge_chatgpt.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"{file.name} of {name} is not here (MAGISTER_DATA)")
    found = corpus.import_texts(file, tmp_path / "c", task="ner")
    assert (found.lines, len(found.texts), found.faults) == (count, count, [])
    assert (found.repeated, found.contradicted) == (0, 0)
    texts = corpus.texts(tmp_path / "c")
    assert texts == corpus.texts(file)
    assert len(texts) == count
    assert corpus.stats(tmp_path / "c")["status"] == {"kept": count, "quarantined": 0, "failed": 0}
