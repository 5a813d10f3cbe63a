"""A corpus for others: exported, pushed to a stubbed hub, and shown as text and as a page."""

from __future__ import annotations

import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from magister.tasks import attributes
from magister.tasks.images import Image
from magister.tasks.task import DataFault
from magister.teachers.knowledge import corpus, shards, show
from magister.teachers.knowledge.card import Card
from magister.teachers.knowledge.columns import Filters
from magister.teachers.knowledge.share import export, push
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parent))
from fake_teacher import example


def row(id: str, text: str = "it is so", prompt: str = "ner/rationale.noun.v1", **fields) -> dict:
    return {"id": id, "task": "ner", "prompt": prompt, "sample": 0, "text": text, "status": "kept"} | fields


ROWS = [
    row("e0", "a noun", hinted=True),
    row("e0", "{}", "ner/zero_shot.v1", answer=example(0).gold.model_dump_json(), agreement=1.0, grounded="text"),
    row("e1", "{}", "ner/zero_shot.v1", answer='{"entities": []}', agreement=0.0, duplicate_of="e0", vote=0.5),
    row("e1", "as the given answer says", status="quarantined", reason="leak", detail="it speaks of a key"),
    row("e2", "{}", "ner/zero_shot.v1", answer='{"entities": []}', grounded="picture_text", answer_changed=True,
        image_delta=0.5),
    row("e3", "", status="failed", reason="image", detail="no such file", image_duplicate_of="e1"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    corpus.build(tmp_path / "c", ROWS, Card(name="test"))
    (tmp_path / "c" / "ledger.jsonl").write_text("{}\n")
    return tmp_path / "c"


# --- filters ---


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (Filters(), ["e0", "e0", "e1", "e2"]),
        (Filters(unhinted=True), ["e0", "e1", "e2"]),
        (Filters(unique=True), ["e0", "e0", "e2"]),
        (Filters(grounded="text"), ["e0", "e0", "e1"]),
        (Filters(grounded="picture_text"), ["e0", "e0", "e1", "e2"]),
        (Filters(needs_image=True), ["e2"]),
        (Filters(min_agreement=0.5), ["e0"]),
        (Filters(min_vote=0.5), ["e1"]),
        (Filters(unique_images=True), ["e0", "e0", "e1", "e2"]),
    ],
    ids=lambda f: "+".join(f.as_dict()) if isinstance(f, Filters) else "",
)
def test_filters_choose_rows_and_what_they_leave_out_is_counted(folder, tmp_path, filters, ids):
    assert [r["id"] for r in corpus.rows(folder, "kept", filters=filters)] == ids
    counts = export(folder, tmp_path / "x.jsonl", filters=filters)
    assert counts["written"] == len(ids)
    assert counts["rows"] == len(ROWS) == counts["written"] + sum(counts["left_out"].values())
    assert set(counts["left_out"]) <= {"status_or_prompt", *filters.as_dict()}


def test_a_wrong_flag_is_refused():
    with pytest.raises(ValueError, match="text or picture_text, not 'inferred'"):
        Filters(grounded="inferred")


def test_students_read_what_the_filters_want(folder):
    assert corpus.texts(folder) == {"e0": "a noun"}
    with pytest.raises(DataFault, match="no kept row"):
        corpus.texts(folder, filters=Filters(unhinted=True))


# --- export ---


def test_export_as_lines_and_as_parquet(folder, tmp_path):
    counts = export(folder, tmp_path / "all.jsonl", status=None)
    assert counts == {"rows": 6, "written": 6, "left_out": {}}
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert lines == list(corpus.rows(folder))
    assert export(folder, tmp_path / "kept.parquet", prompt="zero_shot")["written"] == 3
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "kept.parquet")
    assert table.column_names == [name for name, *_ in corpus.COLUMNS]
    assert table.to_pylist() == list(corpus.rows(folder, "kept", "zero_shot"))


def test_export_overwrites_nothing(folder, tmp_path):
    (tmp_path / "x.jsonl").write_text("mine")
    with pytest.raises(DataFault, match="is there already"):
        export(folder, tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text() == "mine"
    with pytest.raises(DataFault, match=r"cannot be written as \.csv"):
        export(folder, tmp_path / "x.csv")
    with pytest.raises(DataFault, match="no rows of the prompt"):
        export(folder, tmp_path / "y.jsonl", prompt="gone")
    assert not (tmp_path / "y.jsonl").exists()


# --- push ---


class Hub:
    """In place of huggingface_hub's HfApi."""

    calls: list

    def __init__(self, **options):
        assert options == {}  # no token of ours

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", repo_id, options))
        return f"https://hub/datasets/{repo_id}"

    def upload_folder(self, **options):
        self.calls.append(("upload", options))


def test_push_sends_card_and_shards_only(folder, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "HfApi", Hub)
    Hub.calls = []
    assert push(folder, "me/knowledge") == "https://hub/datasets/me/knowledge"
    (_, repo, options), (_, upload) = Hub.calls
    assert (repo, options["repo_type"], options["private"]) == ("me/knowledge", "dataset", True)
    sent = [p.relative_to(folder).as_posix() for pattern in upload["allow_patterns"] for p in folder.glob(pattern)]
    assert sent == ["README.md", "data/train.parquet"]
    assert upload["folder_path"] == str(folder)
    assert "token" not in upload
    assert upload["commit_message"] == "6 rows, 4 kept"


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_push_refuses_while_offline(folder, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(DataFault, match="HF_HUB_OFFLINE"):
        push(folder, "me/knowledge")


def test_push_refuses_what_is_no_corpus(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(DataFault, match="is no corpus"):
        push(tmp_path, "me/knowledge")
    (folder / "README.md").unlink()
    with pytest.raises(DataFault, match="without its card"):
        push(folder, "me/knowledge")


# --- shards ---


def test_a_large_corpus_is_cut_into_shards_and_read_as_one(tmp_path, monkeypatch):
    many = [row(f"e{i}", f"text {i}") for i in range(50)]
    monkeypatch.setattr(shards, "_ROWS", 10)
    counts = corpus.build(tmp_path / "c", many, Card(name="x"), shard_bytes=1)
    names = sorted(p.name for p in (tmp_path / "c" / "data").iterdir())
    assert names == [f"train-{n:05d}-of-00005.parquet" for n in range(5)]
    assert counts["rows"] == 50
    assert [r["text"] for r in corpus.rows(tmp_path / "c")] == [f"text {i}" for i in range(50)]
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = datasets.load_dataset(str(tmp_path / "c"), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded["id"][:] == [f"e{i}" for i in range(50)]
    corpus.build(tmp_path / "c", many[:3], Card(name="x"))
    assert [p.name for p in (tmp_path / "c" / "data").iterdir()] == ["train.parquet"]


def test_shards_of_two_builds_or_too_few_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_ROWS", 10)
    for name in ("a", "b"):
        corpus.build(tmp_path / name, [row(f"{name}{i}") for i in range(20)], Card(name="x"), shard_bytes=1)
    second = "data/train-00001-of-00002.parquet"
    (tmp_path / "b" / second).replace(tmp_path / "a" / second)  # as if the machine had stopped between two moves
    with pytest.raises(DataFault, match=r"2 shards of 2 builds.*asking nothing"):
        list(corpus.rows(tmp_path / "a"))
    with pytest.raises(DataFault, match="1 of its 2 shards are here"):
        corpus.stats(tmp_path / "b")


def test_an_older_corpus_is_read_and_its_missing_columns_are_null(tmp_path):
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "data").mkdir()
    old = {name: ["x"] for name in ("id", "task", "prompt", "text", "answer")} | {
        "sample": [0], "status": ["kept"], "reason": pyarrow.nulls(1, pyarrow.string())
    }  # fmt: skip
    parquet.write_table(pyarrow.table(old), tmp_path / "data" / "train.parquet")
    found = next(corpus.rows(tmp_path))
    assert (found["id"], found["duplicate_of"], found["hinted"]) == ("x", None, None)
    assert corpus.stats(tmp_path)["rows"] == 1


# --- show ---


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def picture() -> Image:
    buffer = io.BytesIO()
    Pillow.new("RGB", (640, 480), "red").save(buffer, "PNG")
    return Image.of_bytes(buffer.getvalue(), "e0")


def test_rows_for_a_terminal(folder):
    first, second, _, leaky, probed, failed = map(show.text, corpus.rows(folder))
    assert first.splitlines() == ["--- e0  ner/rationale.noun.v1  #0", "a noun", "    kept · hinted"]
    assert second.endswith("kept · grounded: text · agreement 1.00")
    assert leaky.endswith("quarantined: leak (it speaks of a key)")
    assert "another answer without the picture (+0.50)" in probed
    assert failed.splitlines()[1:] == ["no such file", "    failed: image (no such file) · image duplicate of e1"]


def test_the_page_shows_text_and_picture_side_by_side_within_its_limits(folder, tmp_path):
    examples = [example(i, images=(picture(), picture())) for i in range(3)]
    counts = show.page(folder, tmp_path / "p.html", examples, limit=3, pictures=3)
    assert counts == {
        "examples": 3, "pictures": 3, "examples_left_out": 1, "pictures_left_out": 3, "without_source": 0,
    }  # fmt: skip
    text = (tmp_path / "p.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == 3
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "3 examples and 3 pictures are shown; 1 more examples are left out; 3 more pictures are left out" in text
    assert "<mark>Ann0<small>PER</small></mark>" in text
    assert "quarantined: leak" in text
    assert len(text) < 60_000


def test_the_page_without_the_data_says_so_and_escapes(folder, tmp_path):
    corpus.build(tmp_path / "d", [row("<b>", "<script>x</script>", task="?")], Card(name="x"))
    assert show.page(tmp_path / "d", tmp_path / "p.html")["without_source"] == 1
    text = (tmp_path / "p.html").read_text()
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;" in text
    assert "1 examples are shown without text and pictures" in text


def test_other_tasks_are_shown_too(tmp_path):
    product = attributes.Example(
        id="p", text="Acme shoe", asked=("Brand",), gold=attributes.Answer(values={"Brand": ("Acme",)})
    )
    rows = [row("p", "{}", "attributes/zero_shot.v1", task="attributes", answer='{"values": {"Brand": ["Nike"]}}')]
    corpus.build(tmp_path / "c", rows, Card(name="x"))
    show.page(tmp_path / "c", tmp_path / "p.html", [product])
    text = (tmp_path / "p.html").read_text()
    for words in ("Acme shoe", "Brand: Acme", "Brand: Nike", 'class="line-of wrong"'):
        assert words in text
