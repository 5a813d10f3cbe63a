"""The run: what stops it, what goes on, what is paid for once, and that the counts add up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from magister.cli import app
from magister.tasks import attributes
from magister.tasks.dataset import Dataset
from magister.tasks.images import Image, ImageFault
from magister.tasks.ner import TASK
from magister.tasks.readers import jsonl
from magister.tasks.task import DataFault
from magister.teachers.generation.budget import Budget
from magister.teachers.generation.generate import FAILURES, Interrupted, Stopped, generate
from magister.teachers.generation.plan import Pool
from magister.teachers.generation.run import retry, verify
from magister.teachers.generation.summary import Miscount, Summary
from magister.teachers.knowledge import corpus
from magister.teachers.knowledge.verify import REASONS
from magister.teachers.ledger import ledger
from magister.teachers.ledger.lock import LedgerBusy
from magister.teachers.teacher import Reply, Usage
from PIL import Image as Pillow
from typer.testing import CliRunner

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from fake_teacher import SCHEMA, FakeTeacher, example, right  # noqa: E402

EXAMPLES = [example(i) for i in range(6)]


def run(teacher, out, examples=EXAMPLES, prompts=("zero_shot",), **options):
    return generate(TASK, examples, SCHEMA, teacher, list(prompts), out, **options)


def picture(path: Path, colour: str = "red") -> Image:
    Pillow.new("RGB", (8, 8), colour).save(path)
    return Image(source=str(path))


# --- the plain run ---


def test_a_run_makes_a_corpus_and_a_second_one_asks_nothing(tmp_path):
    teacher = FakeTeacher()
    first = run(teacher, tmp_path / "c", prompts=("zero_shot", "queries"))
    assert (first.asked, first.kept, first.to_ask, first.replies, first.resumed) == (12, 12, 12, 12, 0)
    assert (first.prompt_tokens, first.completion_tokens) == (120, 60)
    rows = list(corpus.rows(tmp_path / "c"))
    assert [(r["id"], r["prompt"]) for r in rows[:3]] == [
        ("e0", "ner/zero_shot.v1"),
        ("e0", "ner/queries.v1"),
        ("e1", "ner/zero_shot.v1"),
    ]
    assert {r["agreement"] for r in rows} == {1.0}
    assert {r["teacher"] for r in rows} == {"fake"}
    second = run(teacher, tmp_path / "c", prompts=("zero_shot", "queries"))
    assert (second.to_ask, second.replies, second.resumed, second.kept) == (0, 0, 12, 12)
    assert len(teacher.asked) == 12
    assert list(corpus.rows(tmp_path / "c")) == rows


def test_every_outcome_is_counted_and_none_stops_the_others(tmp_path):
    def says(request):
        number = int(request.example[1:])
        if number < len(FAILURES) - 2:
            return Reply(key=request.key, finish="error", failure=FAILURES[number], detail="so it is")
        return {7: "no JSON here", 8: "", 9: '{"entities": [{"text": "Zoe", "type": "PER"}]}'}.get(
            number, right(request)
        )

    summary = run(FakeTeacher(says), tmp_path / "c", [example(i) for i in range(12)])
    failed = dict.fromkeys(FAILURES[:-2], 1)
    assert summary.failed == failed
    assert summary.quarantined == {"not_json": 1, "empty": 1, "ungrounded": 1}
    assert summary.asked == 12 == summary.kept + 3 + len(failed)
    stats = corpus.stats(tmp_path / "c")
    assert stats["failed"] == failed
    assert {r["reason"] for r in corpus.rows(tmp_path / "c")} <= {None, *REASONS, *FAILURES}
    assert next(corpus.rows(tmp_path / "c", status="failed"))["detail"] == "so it is"


def test_the_summary_in_words(tmp_path):
    reply = lambda r: right(r) if r.example in ("e0", "e1") else "no"
    summary = run(FakeTeacher(reply), tmp_path / "c", EXAMPLES[:4])
    first, second, third, fourth = str(summary).splitlines()
    assert first == "4 rows = 2 kept + 2 quarantined (not_json 2)"
    assert second == "4 requests to ask, 4 replies, 0 settled before"
    assert third.startswith("40 tokens read, 20 written in ")
    assert fourth == "spent so far: 60 tokens, price unknown (give --price-in and --price-out)"
    assert json.loads(json.dumps(summary.as_dict()))["quarantined"] == {"not_json": 2}
    assert "pending" in str(run(FakeTeacher(), tmp_path / "d", dry_run=True))


def test_a_broken_picture_fails_its_example_only(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    examples = [
        example(0, images=(picture(tmp_path / "a.png"),)),
        example(1, images=(Image(source=str(tmp_path / "nowhere.png"), example="e1"),)),
        example(2, images=(Image(source=str(tmp_path / "broken.png")),)),
        example(3),
    ]
    summary = run(FakeTeacher(), tmp_path / "c", examples)
    assert (summary.kept, summary.failed) == (2, {"image": 2})
    details = [r["detail"] for r in corpus.rows(tmp_path / "c", status="failed")]
    assert "there is no such file" in details[0]
    assert "the file is empty" in details[1]
    picture(tmp_path / "nowhere.png")
    again = run(FakeTeacher(), tmp_path / "c", examples)  # mended: asked without being told to
    assert (again.kept, again.replies, again.failed) == (3, 1, {"image": 1})


def test_an_example_that_lacks_what_a_template_needs_fails_alone(tmp_path):
    bare = EXAMPLES[1].model_copy(update={"gold": None})
    summary = run(FakeTeacher(lambda r: "some words"), tmp_path / "c", [EXAMPLES[0], bare], ["rationale.style"])
    assert (summary.kept, summary.failed) == (1, {"render": 1})
    with pytest.raises(DataFault, match=r"rationale\.style\.v1: it cannot be asked of any example.*gold"):
        run(FakeTeacher(), tmp_path / "d", [bare], ["rationale.style"])
    assert not (tmp_path / "d").exists()


def test_failures_are_asked_again_only_when_told(tmp_path):
    def flaky(request):
        return (
            Reply(key=request.key, finish="error", failure="transport") if request.example == "e2" else right(request)
        )

    assert run(FakeTeacher(flaky), tmp_path / "c").failed == {"transport": 1}
    patient = FakeTeacher()
    still = run(patient, tmp_path / "c")
    assert (still.failed, still.notes) == ({"transport": 1}, {"failed_before_and_not_asked_again": 1})
    assert patient.asked == []
    assert run(patient, tmp_path / "c", retry_failed=True).kept == 6
    assert [r.example for r in patient.asked] == ["e2"]


def test_raising_max_tokens_asks_again_only_what_met_the_limit(tmp_path):
    def says(request):
        cut = request.example in ("e1", "e4") and request.prompt.max_tokens < 50
        return Reply(key=request.key, text=right(request)[: 20 if cut else None], finish="length" if cut else "stop")

    assert run(FakeTeacher(says), tmp_path / "c", max_tokens=20).quarantined == {"length": 2}
    higher = FakeTeacher(says)
    assert run(higher, tmp_path / "c", max_tokens=80).kept == 6
    assert [r.example for r in higher.asked] == ["e1", "e4"]
    lower = FakeTeacher(says)
    assert run(lower, tmp_path / "c", max_tokens=10).kept == 6
    assert lower.asked == []


def test_verification_can_change_without_asking(tmp_path):
    teacher = FakeTeacher(lambda r: '{"entities": [{"text": "Rome", "type": "LOC"}]}')
    assert run(teacher, tmp_path / "c").kept == 6
    assert run(teacher, tmp_path / "c", min_agreement=0.9).quarantined == {"disagrees": 6}
    assert run(teacher, tmp_path / "c", min_agreement=0.5).kept == 6
    assert len(teacher.asked) == 6


def test_two_examples_that_ask_the_same_share_a_reply(tmp_path):
    twin = EXAMPLES[0].model_copy(update={"id": "twin"})
    teacher = FakeTeacher()
    summary = run(teacher, tmp_path / "c", [EXAMPLES[0], twin])
    assert (summary.kept, summary.replies, summary.notes) == (2, 1, {"rows_that_share_a_reply": 1})
    assert corpus.stats(tmp_path / "c")["prompt_tokens"] == 10  # paid once, counted once


def test_samples_and_votes(tmp_path):
    def says(request):
        return right(request) if request.sample < 2 else '{"entities": []}'

    teacher = FakeTeacher(says)
    with pytest.raises(DataFault, match="3 samples at temperature 0"):
        run(teacher, tmp_path / "c", samples=3)
    run(teacher, tmp_path / "c", EXAMPLES[:1], samples=3, temperature=0.7)
    votes = [r["vote"] for r in corpus.rows(tmp_path / "c")]
    assert votes == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert run(teacher, tmp_path / "d", EXAMPLES[:1], ["queries"], samples=3).asked == 3  # three wordings
    assert len({r.prompt.messages for r in teacher.asked[-3:]}) == 3


def test_one_question_an_entity(tmp_path):
    teacher = FakeTeacher(lambda r: "Bea")
    summary = run(teacher, tmp_path / "c", [EXAMPLES[0], example(1, "nobody here")], ["rationale.entity"])
    assert (summary.kept, summary.notes) == (2, {"examples_without_what_a_template_asks_about": 1})
    assert [r["about"] for r in corpus.rows(tmp_path / "c")] == ["Ann0", "Rome"]


def test_requests_come_by_template_then_picture(tmp_path):
    red, blue = picture(tmp_path / "r.png"), picture(tmp_path / "b.png", "blue")
    examples = [example(i, images=(image,)) for i, image in enumerate((red, blue, red, blue))]
    teacher = FakeTeacher()
    run(teacher, tmp_path / "c", examples, ["zero_shot", "queries"])
    assert [(r.prompt.template.split("/")[1], r.example) for r in teacher.asked] == [
        (mode, e) for mode in ("zero_shot.v1", "queries.v1") for e in ("e0", "e2", "e1", "e3")
    ]


def test_a_dry_run_asks_and_writes_nothing(tmp_path):
    teacher = FakeTeacher()
    summary = run(teacher, tmp_path / "c", dry_run=True, limit=4)
    assert (summary.asked, summary.pending, summary.to_ask) == (4, 4, 4)
    assert teacher.asked == []
    assert not (tmp_path / "c").exists()
    run(teacher, tmp_path / "c", limit=4)
    rest = run(teacher, tmp_path / "c", dry_run=True)
    assert (rest.asked, rest.pending, rest.to_ask, rest.resumed) == (6, 6, 2, 4)


def test_a_dry_run_shows_the_first_prompt_whole_and_what_is_held(tmp_path):
    run(FakeTeacher(), tmp_path / "c", limit=4)
    teacher = FakeTeacher()
    said = str(run(teacher, tmp_path / "c", dry_run=True))
    run(teacher, tmp_path / "d", limit=1)
    for message in teacher.asked[0].prompt.messages:
        assert f"--- {message.role}\n{message.text}\n" in said
    assert "the ledger holds 4 replies" in said
    assert "2 requests to ask, 0 replies, 4 settled before" in said
    assert "estimate: 2 requests read about" in said
    assert json.loads(json.dumps(run(teacher, tmp_path / "c", dry_run=True).as_dict()))["estimate"]["requests"] == 2


# --- what is to come, what is asked again, what is only looked at again ---


def test_what_is_pending_is_not_written_and_is_asked_again(tmp_path):
    def later(request):
        waits = request.example in ("e1", "e2")
        return Reply(key=request.key, finish="error", failure="pending") if waits else right(request)

    summary = run(FakeTeacher(later), tmp_path / "c")
    assert (summary.kept, summary.pending, summary.failed, summary.replies) == (4, 2, {}, 4)
    assert summary.asked == summary.kept + summary.pending
    assert "2 rows wait for their replies; the same command asks for them again" in str(summary)
    assert len(list(ledger.read(tmp_path / "c" / "ledger.jsonl"))) == 4
    assert corpus.stats(tmp_path / "c")["rows"] == 4
    assert "replies_still_to_come: 2" in (tmp_path / "c" / "README.md").read_text()
    rest = FakeTeacher()
    done = run(rest, tmp_path / "c")
    assert (done.kept, done.pending, [r.example for r in rest.asked]) == (6, 0, ["e1", "e2"])


def test_everything_may_be_pending(tmp_path):
    later = FakeTeacher(lambda r: Reply(key=r.key, finish="error", failure="pending"))
    assert run(later, tmp_path / "c").pending == 6
    assert list(corpus.rows(tmp_path / "c")) == []


def test_only_the_reasons_named_are_asked_again(tmp_path):
    said = {
        "e0": "no JSON here",
        "e1": Reply(key="", finish="error", failure="refused"),
        "e2": Reply(key="", text="{", finish="length"),
        "e3": Reply(key="", finish="error", failure="transport"),
    }

    def says(request):
        found = said.get(request.example, right(request))
        return found.model_copy(update={"key": request.key}) if isinstance(found, Reply) else found

    first = run(FakeTeacher(says), tmp_path / "c")
    assert (first.kept, first.failed) == (2, {"refused": 1, "transport": 1})
    assert first.quarantined == {"not_json": 1, "length": 1}
    again = FakeTeacher()
    summary = run(again, tmp_path / "c", only=("not_json", "length", "refused"))
    assert sorted(r.example for r in again.asked) == ["e0", "e1", "e2"]
    assert (summary.kept, summary.failed, summary.quarantined) == (5, {"transport": 1}, {})
    worse = FakeTeacher(lambda r: Reply(key=r.key, finish="error", failure="transport"))
    assert run(worse, tmp_path / "c", only=("transport",)).failed == {"transport": 1}
    assert run(worse, tmp_path / "c").kept == 5  # a failed retry hides no answer
    with pytest.raises(DataFault, match="the reason 'lenght': there is none of that name"):
        run(worse, tmp_path / "c", only=("lenght",))


def test_a_retry_asks_nothing_new(tmp_path):
    run(FakeTeacher(lambda r: "no"), tmp_path / "c", limit=2)
    teacher = FakeTeacher()
    summary = run(teacher, tmp_path / "c", only=("not_json",))
    assert ([r.example for r in teacher.asked], summary.kept, summary.pending) == (["e0", "e1"], 2, 4)


def test_verified_again_without_asking(tmp_path):
    run(FakeTeacher(lambda r: '{"entities": [{"text": "Rome", "type": "LOC"}]}'), tmp_path / "c")
    deaf = FakeTeacher()
    again = run(deaf, tmp_path / "c", only=(), min_agreement=0.9)
    assert (again.quarantined, again.to_ask, deaf.asked) == ({"disagrees": 6}, 0, [])
    assert run(deaf, tmp_path / "c", only=()).kept == 6
    others = [e.model_copy(update={"text": e.text + "!"}) for e in EXAMPLES]
    with pytest.raises(DataFault, match="its ledger answers other questions"):
        run(deaf, tmp_path / "c", others, only=())


def test_what_was_never_asked_stays_a_row_when_the_others_are_verified_again(tmp_path):
    first = run(FakeTeacher(), tmp_path / "c", budget=Budget(tokens=700))
    assert 0 < first.failed["over_budget"] < 6
    for only in ((), ("loop",)):
        again = run(FakeTeacher(), tmp_path / "c", only=only)
        assert (again.failed, again.kept, again.pending) == (first.failed, first.kept, 0)
    assert corpus.stats(tmp_path / "c")["rows"] == 6
    assert run(FakeTeacher(), tmp_path / "c", only=("over_budget",)).kept == 6


def test_a_kept_row_whose_picture_is_gone_is_not_lost_by_verifying_again(tmp_path):
    examples = [example(0, images=(picture(tmp_path / "a.png"),)), example(1)]
    run(FakeTeacher(), tmp_path / "c", examples)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataFault, match=r"kept row for example e0 .* cannot be asked any more"):
        run(FakeTeacher(), tmp_path / "c", examples, only=())
    assert [row["status"] for row in corpus.rows(tmp_path / "c")] == ["kept", "kept"]


def test_a_probe_that_failed_is_retried_too(tmp_path):
    def says(request):
        if any(m.images for m in request.prompt.messages):
            return right(request)
        return Reply(key=request.key, finish="error", failure="transport")

    examples = [example(0, images=(picture(tmp_path / "a.png"),))]
    run(FakeTeacher(says), tmp_path / "c", examples, probe=True)
    assert next(corpus.rows(tmp_path / "c"))["answer_changed"] is None
    teacher = FakeTeacher()
    run(teacher, tmp_path / "c", examples, probe=True, only=("transport",))
    assert len(teacher.asked) == 1
    assert next(corpus.rows(tmp_path / "c"))["answer_changed"] is False


def test_a_miscount_is_an_error_of_its_own():
    with pytest.raises(Miscount, match="3 rows were asked for, 2 came out"):
        Summary(asked=3, kept=1, failed={"refused": 1})


# --- what stands in the rows ---


def test_thoughts_and_cached_tokens_reach_the_corpus(tmp_path):
    usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=8)
    thinks = FakeTeacher(lambda r: Reply(key=r.key, text=right(r), reasoning="Rome is a place", usage=usage))
    summary = run(thinks, tmp_path / "c")
    row = next(corpus.rows(tmp_path / "c"))
    assert (row["reasoning"], row["cached_tokens"], row["hinted"]) == ("Rome is a place", 8, False)
    assert row["time"]
    assert row["teacher_digest"]
    assert "60 tokens read (80% of them cached)" in str(summary)
    assert "cached" not in str(run(FakeTeacher(), tmp_path / "d"))


def test_near_duplicates_and_shared_pictures_are_marked(tmp_path):
    image = picture(tmp_path / "a.png")
    long = "Ann0 sees Rome and then a very long walk by the river until it gets dark"
    examples = [example(0, long, images=(image,)), example(1, f"{long} https://x.y"), example(2, images=(image,))]
    run(FakeTeacher(lambda r: '{"entities": []}'), tmp_path / "c", examples)
    rows = {r["id"]: r for r in corpus.rows(tmp_path / "c")}
    assert [rows[e]["duplicate_of"] for e in ("e0", "e1", "e2")] == [None, "e0", None]
    assert [rows[e]["image_duplicate_of"] for e in ("e0", "e1", "e2")] == [None, None, "e0"]
    assert rows["e0"]["images"] == rows["e2"]["images"] == [image.sha256()]


def test_the_picture_is_taken_away_once_more_and_what_changes_is_kept(tmp_path):
    """With the picture the teacher is right; without it, it sees nobody. One example has no picture to miss."""

    def says(request):
        return right(request) if any(m.images for m in request.prompt.messages) else '{"entities": []}'

    examples = [example(0, images=(picture(tmp_path / "a.png"),)), example(1)]
    teacher = FakeTeacher(says)
    summary = run(teacher, tmp_path / "c", examples, probe=True)
    assert (summary.asked, summary.kept, summary.replies) == (2, 2, 3)
    assert summary.notes["probes_without_the_picture"] == 1
    with_picture, without = corpus.rows(tmp_path / "c")
    assert (with_picture["agreement"], with_picture["agreement_without_image"]) == (1.0, 0.0)
    assert (with_picture["image_delta"], with_picture["answer_changed"]) == (1.0, True)
    assert without["image_delta"] is without["answer_changed"] is None
    assert run(teacher, tmp_path / "c", examples).notes["replies_in_the_ledger_to_other_requests"] == 1
    assert len(teacher.asked) == 3


# --- teachers that cannot see ---


class Words:
    """What `describe.Description` has."""

    tags, colours, ocr = (), ("red",), ("HELLO",)


def test_pictures_are_put_into_words_once_each(tmp_path):
    described = []

    def describe(image):
        described.append(image)
        if "bad" in image.source:
            raise ImageFault("e1", image.source, "broken")
        return Words()

    image = picture(tmp_path / "a.png")
    examples = [example(0, images=(image,)), example(1, images=(Image(source="bad.png"),)), example(2)]
    teacher = FakeTeacher(sees_images=False)
    summary = run(teacher, tmp_path / "c", examples, ["zero_shot", "queries"], describe=describe)
    assert (summary.kept, summary.failed) == (4, {"image": 2})
    assert described.count(image) == 1
    asked = teacher.asked[0].prompt
    assert all(message.images == () for message in asked.messages)
    for words in ("nothing recognised", "red", "HELLO"):
        assert words in asked.messages[-1].text


def test_pictures_left_out_are_counted(tmp_path):
    examples = [example(0, images=(picture(tmp_path / "a.png"),)), example(1)]
    summary = run(FakeTeacher(sees_images=False), tmp_path / "c", examples, ["zero_shot", "queries"])
    assert summary.notes == {"examples_whose_pictures_the_teacher_cannot_see": 1}


# --- demonstrations ---


def test_demonstrations_are_similar_but_never_the_example_or_nearly_it(tmp_path):
    pool = [
        example(1, "Ann1 sees Rome"),  # the example itself
        example(2, "Rome sees Ann1 !"),  # nearly it
        example(3, "Ann3 sees Rome and eats there"),
        example(4, "an evening of football"),
        example(5, "Ann5 sees a film in Rome"),
        example(6, "Ann3 sees Rome and eats there"),  # the same text twice
    ]
    chosen = Pool(pool, 2).nearest(example(1))
    assert {e.id for e in chosen} == {"e3", "e5"}
    assert Pool(pool, 9).nearest(example(1))[0].id == "e4"  # the least similar first
    assert [e.id for e in Pool(pool, 2).nearest(example(1))] == [e.id for e in chosen]
    teacher = FakeTeacher()
    with pytest.raises(DataFault, match="shows worked examples, and there are none"):
        run(teacher, tmp_path / "c", prompts=["few_shot"])
    run(teacher, tmp_path / "c", EXAMPLES[:1], ["few_shot"], demonstrations=pool, shots=2)
    text = "".join(message.text for message in teacher.asked[0].prompt.messages)
    assert "a film in Rome" in text or "eats there" in text
    with pytest.raises(DataFault, match=r"example e1.*needs its gold"):
        Pool([example(1).model_copy(update={"gold": None})], 1)


# --- what stops a run ---


def test_ctrl_c_says_what_is_saved_and_the_same_command_goes_on(tmp_path):
    def says(request):
        if request.example == "e3":
            raise KeyboardInterrupt
        return right(request)

    with pytest.raises(Interrupted, match=r"3 of 6 answers are saved in .*ledger\.jsonl; the same command goes on"):
        run(FakeTeacher(says), tmp_path / "c")
    rest = FakeTeacher()
    assert run(rest, tmp_path / "c").kept == 6
    assert [r.example for r in rest.asked] == ["e3", "e4", "e5"]


def test_a_dying_engine_loses_nothing(tmp_path):
    def says(request):
        if request.example == "e4":
            raise RuntimeError("CUDA out of memory")
        return right(request)

    with pytest.raises(Stopped, match=r"RuntimeError: CUDA out of memory: 4 of 6 answers are saved"):
        run(FakeTeacher(says), tmp_path / "c")
    assert run(FakeTeacher(), tmp_path / "c").replies == 2


def test_an_engine_that_answers_something_else_is_stopped(tmp_path):
    with pytest.raises(Stopped, match="what it was not asked"):
        run(FakeTeacher(lambda r: Reply(key="other")), tmp_path / "c")


def test_an_engine_that_ends_early_is_counted(tmp_path):
    class Lazy(FakeTeacher):
        def generate(self, requests):
            return list(super().generate(requests))[:4].__iter__()

    summary = run(Lazy(), tmp_path / "c")
    assert (summary.kept, summary.failed, summary.to_ask, summary.replies) == (4, {"no_reply": 2}, 6, 4)
    assert run(FakeTeacher(), tmp_path / "c").kept == 6


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from fake_teacher import SCHEMA, FakeTeacher, example, right
from magister.tasks.ner import TASK
from magister.teachers.generation.budget import Budget
from magister.teachers.generation.generate import generate

def slow(request):
    time.sleep(0.01)
    return right(request)

teacher = FakeTeacher(slow, calls=Path({calls!r}))
generate(TASK, [example(i) for i in range(200)], SCHEMA, teacher, ["zero_shot"], Path({out!r}))
"""


def child(tmp_path: Path) -> list[str]:
    script = CHILD.format(here=str(HERE), calls=str(tmp_path / "calls"), out=str(tmp_path / "c"))
    return [sys.executable, "-c", script]


def wait_for_lines(path: Path, count: int) -> None:
    for _ in range(600):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not reach {count} lines")


def test_kill_9_loses_nothing_and_pays_nothing_twice(tmp_path):
    """Killed twice in mid-run, a last line torn: every answer is there, and no saved one was asked again."""
    file = tmp_path / "c" / "ledger.jsonl"
    for target in (20, 60):
        process = subprocess.Popen(child(tmp_path))
        wait_for_lines(file, target)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open(file, "ab") as torn:
        torn.write(b'{"v": 1, "key": "')
    saved = [row.key for row in ledger.read(file)]
    assert len(saved) == len(set(saved)) >= 60
    teacher = FakeTeacher(calls=tmp_path / "calls")
    examples = [example(i) for i in range(200)]
    summary = run(teacher, tmp_path / "c", examples)
    assert (summary.kept, summary.resumed, summary.notes) == (200, len(saved), {"torn_last_lines_dropped": 1})
    calls = Counter((tmp_path / "calls").read_text().split())
    assert len(calls) == 200
    assert sum(calls.values()) <= 202  # each kill may cost the one answer that was under way
    assert not {request.key for request in teacher.asked} & set(saved)
    assert len(list(ledger.read(file))) == 200


def test_two_processes_on_one_folder(tmp_path):
    process = subprocess.Popen(child(tmp_path))
    try:
        wait_for_lines(tmp_path / "c" / "ledger.jsonl", 5)
        teacher = FakeTeacher()
        with pytest.raises(LedgerBusy, match=f"in use by process {process.pid} on "):
            run(teacher, tmp_path / "c", [example(i) for i in range(200)])
        assert teacher.asked == []
    finally:
        process.kill()
        process.wait()


def test_many_processes_at_once_cannot_harm_a_folder(tmp_path):
    """All started together: one at a time writes, the others are refused by name, nothing is asked twice."""
    processes = [subprocess.Popen(child(tmp_path), stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert 0 in [process.returncode for process in processes]
    for process, words in zip(processes, said, strict=True):
        assert process.returncode == 0 or "in use by" in words.strip().splitlines()[-1]
    calls = (tmp_path / "calls").read_text().split()
    assert len(calls) == len(set(calls)) == 200
    assert corpus.stats(tmp_path / "c")["status"]["kept"] == 200


def test_ctrl_c_of_a_real_process(tmp_path):
    # A background job's children ignore Ctrl-C; this one must not.
    heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(child(tmp_path), stderr=subprocess.PIPE, text=True, preexec_fn=heeds)
    wait_for_lines(tmp_path / "c" / "ledger.jsonl", 10)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    saved = len(list(ledger.read(tmp_path / "c" / "ledger.jsonl")))
    assert f"stopped by Ctrl-C: {saved} of 200 answers are saved" in said


# --- folders and settings ---


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("mine")
    teacher = FakeTeacher()
    for out in (tmp_path / "c", tmp_path / "c" / "thesis.txt"):
        with pytest.raises(DataFault, match="in use by something else"):
            run(teacher, out)
    assert teacher.asked == []
    (tmp_path / "d" / "descriptions").mkdir(parents=True)  # of a run that was stopped before its first reply
    assert run(teacher, tmp_path / "d").kept == 6


def test_a_run_with_other_settings_is_told_what_differs(tmp_path):
    run(FakeTeacher(), tmp_path / "c", EXAMPLES[:4], prompts=("zero_shot", "queries"))
    both = ("zero_shot", "queries")
    other = SCHEMA.model_copy(update={"types": SCHEMA.types[:1]})
    for change, said in (
        ({"teacher": FakeTeacher(name="other")}, r'teacher was {"model": "fake"}, is {"model": "other"}'),
        ({"temperature": 0.5}, r"temperature was 0\.0, is 0\.5"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"prompts": both[:1]}, r"the prompt ner/queries\.v1 is missing"),
        ({"examples": EXAMPLES[:3]}, "there were 4 examples, now 3"),
        ({"examples": EXAMPLES[::-1]}, "the first 4 examples are others"),
    ):
        options = {"teacher": FakeTeacher(), "examples": EXAMPLES[:4], "prompts": both} | change
        with pytest.raises(DataFault, match=said):
            run(options.pop("teacher"), tmp_path / "c", **options)
    with pytest.raises(DataFault, match="schema was"):
        generate(TASK, EXAMPLES[:4], other, FakeTeacher(), list(both), tmp_path / "c")
    with pytest.raises(DataFault, match="already holds replies"):
        run(FakeTeacher(), tmp_path / "c", EXAMPLES[:4], both, resume=False)


def test_a_run_may_grow(tmp_path):
    teacher = FakeTeacher()
    run(teacher, tmp_path / "c", limit=2)
    grown = run(teacher, tmp_path / "c", prompts=("zero_shot", "queries"))
    assert (grown.asked, grown.resumed, grown.replies) == (12, 2, 10)


def test_a_run_may_grow_by_a_template_that_shows_worked_examples(tmp_path):
    teacher, shown = FakeTeacher(), [example(9, "words of Rome")]
    run(teacher, tmp_path / "c")
    grown = run(teacher, tmp_path / "c", prompts=("zero_shot", "few_shot"), demonstrations=shown)
    assert (grown.asked, grown.resumed, grown.replies) == (12, 6, 6)
    with pytest.raises(DataFault, match="demonstrations was"):
        run(teacher, tmp_path / "c", prompts=("zero_shot", "few_shot"), demonstrations=[example(8, "seen Rome")])


def test_replies_to_questions_that_changed_are_said(tmp_path):
    teacher = FakeTeacher(lambda r: '{"entities": []}')
    run(teacher, tmp_path / "c")
    changed = [EXAMPLES[0].model_copy(update={"text": "Ann0 sees Rome!"}), *EXAMPLES[1:]]
    assert run(teacher, tmp_path / "c", changed).notes == {"replies_in_the_ledger_to_other_requests": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"examples": []}, "nothing to ask"),
        ({"examples": [EXAMPLES[0], EXAMPLES[0]]}, "1 ids stand twice"),
        ({"prompts": ("zero_shot", "ner/zero_shot.v1")}, "named twice"),
        ({"prompts": ("attributes/zero_shot",)}, "is a prompt of 'attributes', not of 'ner'"),
        ({"prompts": ("judge",)}, "asks about a given answer"),
        ({"prompts": ("queries",), "samples": 4}, "4 samples at temperature 0 ask the very same .3 wordings"),
    ],
)
def test_what_cannot_be_run_is_refused_first(tmp_path, options, said):
    teacher = FakeTeacher()
    with pytest.raises(DataFault, match=said):
        run(teacher, tmp_path / "c", **options)
    assert teacher.asked == []
    assert not (tmp_path / "c").exists()


def test_progress_is_told(tmp_path):
    seen = []
    run(FakeTeacher(), tmp_path / "c", limit=2)
    run(
        FakeTeacher(),
        tmp_path / "c",
        progress=lambda done, total, reply: seen.append((done, total, reply.usage)),
    )
    assert seen == [(n, 6, Usage(prompt_tokens=10, completion_tokens=5)) for n in (3, 4, 5, 6)]


def test_attributes_run_too(tmp_path):
    schema = attributes.Schema(attributes=(attributes.Attribute(name="Brand"),))
    products = [
        attributes.Example(
            id=f"p{i}",
            text=f"Acme{i} running shoe",
            asked=("Brand",),
            gold=attributes.Answer(values={"Brand": (f"Acme{i}",)}),
        )
        for i in range(3)
    ]
    teacher = FakeTeacher(lambda r: json.dumps({"Brand": "Acme1"}))
    summary = generate(attributes.TASK, products, schema, teacher, ["zero_shot"], tmp_path / "c")
    assert (summary.kept, summary.quarantined) == (1, {"ungrounded": 2})


def test_a_full_disk_while_the_corpus_is_built(tmp_path):
    """The replies are in the ledger by then; the old corpus stays whole."""
    import resource

    run(FakeTeacher(), tmp_path / "c", limit=2)
    before = (tmp_path / "c" / "data" / "train.parquet").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def last(done, total, reply):
        if done == total:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))

    try:
        with pytest.raises(OSError, match="could not be written"):
            run(FakeTeacher(), tmp_path / "c", progress=last)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "c" / "data" / "train.parquet").read_bytes() == before
    assert run(FakeTeacher(), tmp_path / "c").replies == 0
    assert os.listdir(tmp_path / "c" / "data") == ["train.parquet"]


# --- by names ---


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A data file and a teacher of the name ``fake``; gives it, and a function that calls the command line."""
    jsonl.write(Dataset("mine", "ner", SCHEMA, {"train": EXAMPLES}), tmp_path / "d.jsonl")
    teacher = FakeTeacher()
    monkeypatch.setattr("magister.teachers.spec.teacher", lambda spec, **limits: teacher)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return teacher, call


def test_a_corpus_is_made_retried_verified_and_exported_by_its_folder_alone(named):
    teacher, call = named
    teacher.says = lambda r: "no" if r.example in ("e1", "e2") else '{"entities": [{"text": "Rome", "type": "LOC"}]}'
    made = call("generate", "ner", "d.jsonl", "--teacher", "fake", "--out", "c", "--price-in", "0.15", "--price-out", 1)
    assert "6 rows = 4 kept + 2 quarantined (not_json 2)" in made
    assert "spent so far: 90 tokens, $0.0000" in made
    assert "to ask: 6 requests read about" in made
    teacher.says = right
    assert "6 rows = 6 kept" in call("corpus", "retry", "c", "--reason", "not_json,transport")
    assert [r.example for r in teacher.asked[6:]] == ["e1", "e2"]
    verified = call("corpus", "verify", "c", "--min-agreement", "0.9")
    assert "6 rows = 2 kept + 4 quarantined (disagrees 4)" in verified
    assert "0 requests to ask" in verified
    assert "6 rows = 2 kept + 4 quarantined" in call("corpus", "verify", "c")  # what was set stays set
    assert len(teacher.asked) == 8
    assert "6 rows = 2 written + 4 left out" in call("corpus", "export", "c", "kept.jsonl")
    assert len(Path("kept.jsonl").read_text().splitlines()) == 2
    assert "Traceback" not in call("corpus", "show", "c", "--status", "quarantined")


def test_the_card_says_the_command_and_the_command_makes_it_again(named):
    teacher, call = named
    prompts = "ner/zero_shot.v1,ner/queries.v1"
    words = ["generate", "ner", "d.jsonl", "--teacher", "fake", "--prompts", prompts, "--out", "c",
             "--samples", "2", "--limit", "3", "--temperature", "0.5", "--budget-tokens", "900000"]  # fmt: skip
    call(*words)
    asked = len(teacher.asked)
    card = Path("c/README.md").read_text()
    said = card.split("## To make it again")[1].split("```")[1].split()
    assert said[:2] == ["magister", "generate"]
    assert sorted(said[1:]) == sorted(words)
    assert "0 requests to ask" in call(*said[1:])
    assert len(teacher.asked) == asked == 12


def test_a_folder_that_was_made_without_names_says_so(tmp_path):
    run(FakeTeacher(), tmp_path / "c")
    for again in (lambda: verify(tmp_path / "c"), lambda: retry(tmp_path / "c", ["length"])):
        with pytest.raises(DataFault, match=r"run\.json: does not say by which names it was called"):
            again()


def test_a_dry_run_by_names(named):
    teacher, call = named
    said = call("generate", "ner", "d.jsonl", "--teacher", "fake", "--out", "c", "--dry-run", "--price-in", "1")
    assert "Ann0 sees Rome" in said
    assert "price unknown" in said
    assert "6 rows = 0 kept + 6 pending" in said
    assert teacher.asked == []
    assert not Path("c").exists()
