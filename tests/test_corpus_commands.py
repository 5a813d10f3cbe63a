"""The corpus commands on a hostile endpoint and on our own posts: what a user of the README types, and what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from magister.tasks.dataset import Dataset
from magister.tasks.task import DataFault
from magister.teachers.generation.call import Call, command, stored

sys.path.insert(0, str(Path(__file__).parent))
from stub_server import StubServer

ROOT = Path(__file__).parents[1]

#: Posts that make the endpoint behave so, each with what becomes of its row.
MOODS = {"": "kept", "[length]": "length", "[wrong-schema]": "unknown_label", "[refusal]": "refused",
         "[500-once]": "kept", "[loop]": "loop"}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer() as running:
        yield running


@pytest.fixture(scope="module")
def corpus(server: StubServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of hostile answers, and beside it its data with a line that is refused."""
    folder = tmp_path_factory.mktemp("run")
    head = (ROOT / "demo" / "posts.jsonl").read_text(encoding="utf-8").splitlines()[0]
    rows = [{"id": f"e{n}", "split": "train", "text": f"Ann in Rome, {n} {mood}", "gold": {"entities": []}}
            for n, mood in enumerate(MOODS)]  # fmt: skip
    (folder / "posts.jsonl").write_text("\n".join([head, *map(json.dumps, rows), "{"]), encoding="utf-8")
    done = magister(folder, "generate ner posts.jsonl --prompts zero_shot --out c --concurrency 2 --rpm 9000",
                    "--teacher", f"openai:x@{server.url}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "refused: posts.jsonl, line 8: not JSON" in done.stderr
    assert "6 rows = 2 kept + 3 quarantined (length 1, loop 1, unknown_label 1) + 1 failed (refused 1)" in done.stdout
    return folder / "c"


def magister(folder: Path, line: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "magister.cli", *shlex.split(line), *more]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)


def test_show_says_what_became_of_each_row(corpus: Path) -> None:
    done = magister(corpus.parent, "corpus show c --status quarantined --limit 2")
    assert done.stdout.splitlines()[0] == "--- e1  ner/zero_shot.v1  #0"
    assert "quarantined: length (cut after 14 characters" in done.stdout
    assert "e5" not in done.stdout
    assert "there are more: --limit N" in done.stderr
    assert magister(corpus.parent, "corpus show c --limit 6").stderr == ""


def test_a_page_has_texts_of_the_data_that_the_corpus_was_made_of(corpus: Path) -> None:
    done = magister(corpus.parent, "corpus show c --page p.html --status kept")
    assert "examples 2, pictures 0" in done.stdout
    assert "without source 0" in done.stdout
    page = (corpus.parent / "p.html").read_text(encoding="utf-8")
    assert "Ann in Rome, 0" in page
    assert "Ann in Rome, 1" not in page


def test_an_imported_corpus_takes_its_texts_from_data(corpus: Path) -> None:
    (corpus.parent / "k.jsonl").write_text('{"id": "e0", "text": "A known person."}\n')
    assert magister(corpus.parent, "corpus import k.jsonl --out imported").returncode == 0
    done = magister(corpus.parent, "corpus show imported --page i.html")
    assert "without source 1" in done.stdout
    assert "--data can name" in done.stderr
    assert "without source 0" in magister(corpus.parent, "corpus show imported --page i.html --data posts.jsonl").stdout


def test_filters_count_what_they_leave_out(corpus: Path) -> None:
    counts = json.loads(magister(corpus.parent, "corpus stats c --min-agreement 0.5").stdout)
    assert (counts["rows"], counts["left_out"]) == (2, {"min_agreement": 4})
    assert "left_out" not in json.loads(magister(corpus.parent, "corpus stats c").stdout)
    done = magister(corpus.parent, "corpus export c out.jsonl --min-vote 0.5")
    assert "6 rows = 0 written + 4 left out by status or prompt + 2 left out by min vote" in done.stdout


def test_a_retry_keeps_the_limits_and_says_where_it_cannot_help(corpus: Path) -> None:
    assert stored(corpus).limits == {"concurrency": 2, "rpm": 9000.0, "tpm": None}
    done = magister(corpus.parent, "corpus retry c --reason unknown_label,refused,length --max-tokens 900")
    assert "3 requests to ask, 3 replies, 3 settled before" in done.stdout
    assert "unknown_label: the same words are asked with the same seed" in done.stderr
    assert (stored(corpus).limits["concurrency"], stored(corpus).max_tokens) == (2, 900)
    assert "same seed" not in magister(corpus.parent, "corpus retry c --reason refused").stderr


def test_what_needs_the_data_says_so_elsewhere(corpus: Path, tmp_path: Path) -> None:
    done = magister(tmp_path, f"corpus verify {corpus}")
    assert done.returncode == 1
    assert "go to where the generate command was run" in done.stderr


def test_an_audit_ends_with_1_when_gold_leaks(corpus: Path, server: StubServer) -> None:
    done = magister(corpus.parent, "corpus audit c")
    assert (done.returncode, "leaks: none" in done.stdout) == (0, True)
    head = {"name": "shops", "task": "linking", "schema": {"knowledge_base": "shops"}}
    mention = {"text": "Mews", "type": "LOC", "start": 7, "end": 11}
    row = {"split": "train", "mention": mention, "candidates": [{"id": "a"}, {"id": "b"}], "gold": {"ranking": ["a"]}}
    rows = [row | {"id": f"e{n}", "text": f"Ann at Mews {n}"} for n in range(20)]
    (corpus.parent / "told.jsonl").write_text("\n".join(map(json.dumps, [head, *rows])))
    made = magister(corpus.parent, f"generate linking told.jsonl --out told --teacher openai:x@{server.url}")
    assert made.returncode == 0, made.stderr
    done = magister(corpus.parent, "corpus audit told")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "gold always at place 1: 20" in done.stdout


def test_nothing_is_pushed_while_offline(corpus: Path) -> None:
    done = magister(corpus.parent, "corpus push c me/knowledge")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE" in done.stderr


def test_the_command_on_the_card_has_the_limits() -> None:
    call = Call(task="ner", data="d", teacher="openai:x@u", prompts=("zero_shot",), concurrency=4, tpm=1e6)
    assert command(call, Path("c")).endswith("--concurrency 4 --tpm 1000000.0")


def test_many_faults_are_counted_by_problem() -> None:
    faults = [DataFault("f", f"the mention {name!r} is not in line {n}") for n, name in enumerate(["a", "it's", 'x"y'])]
    faults += [DataFault("f", "no text")] * 2
    lines = Dataset("d", "ner", None, {}, tuple(faults)).refused(2)
    assert lines[:2] == [f"refused: {fault}" for fault in faults[:2]]
    assert lines[2:5] == ["refused: 5 rows in all", "  3: the mention … is not in line …", "  2: no text"]
    assert Dataset("d", "ner", None, {}, tuple(faults)).refused(5) == [f"refused: {fault}" for fault in faults]


def test_the_commands_of_the_readme_run(server: StubServer, tmp_path: Path) -> None:
    """The block in the section Teachers, as it stands there but for the endpoint."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Teachers\n")[1].split("\n## ")[0]
    [block] = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    lines = block.replace("openai:qwen3@http://localhost:8000/v1", f"openai:qwen3@{server.url}").splitlines()
    assert len(lines) >= 8
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    for line in lines:
        done = magister(tmp_path, line.removeprefix("magister "))
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip() or "--status" in line, line
    assert (tmp_path / "corpus.html").stat().st_size > 10_000
    assert (tmp_path / "corpus.jsonl").exists()


def test_ctrl_c_says_what_is_saved(tmp_path: Path) -> None:
    with StubServer(latency=0.3) as slow:
        words = f"generate ner {ROOT / 'demo' / 'posts.jsonl'} --out c --concurrency 1 --teacher openai:x@{slow.url}"
        process = subprocess.Popen(
            [sys.executable, "-m", "magister.cli", *shlex.split(words)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and not (tmp_path / "c" / "ledger.jsonl").exists():
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in said
    assert "the same command goes on" in said
