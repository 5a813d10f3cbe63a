"""The budget: estimated before, counted live, never overspent, right after a resume."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.prompts.messages import Message, Part, Prompt
from magister.tasks.images import Image
from magister.tasks.ner import TASK
from magister.tasks.task import DataFault
from magister.teachers.generation.budget import TOKENS_A_PICTURE, Budget, Meter, count_tokens
from magister.teachers.generation.generate import generate
from magister.teachers.knowledge import corpus
from magister.teachers.teacher import Reply, Request, Usage

sys.path.insert(0, str(Path(__file__).parent))
from fake_teacher import SCHEMA, FakeTeacher, example, right


class Paid(FakeTeacher):
    """Answers of a known price: 100 tokens read, ``written`` written. It has ``ahead`` requests under way at once."""

    def __init__(self, written=20, ahead=1, **options) -> None:
        super().__init__(self.reply, **options)
        self.written, self.ahead, self.most = written, ahead, 0

    def reply(self, request):
        usage = Usage(prompt_tokens=100, completion_tokens=self.written)
        return Reply(key=request.key, text=right(request), usage=usage)

    def count_tokens(self, request) -> int:
        return 100

    def generate(self, requests):
        requests, held = iter(requests), []
        while True:
            held += [r for _, r in zip(range(self.ahead - len(held)), requests, strict=False)]
            if not held:
                return
            self.most = max(self.most, len(held))
            yield from super().generate([held.pop(0)])


def run(teacher, out, count=10, **options):
    return generate(TASK, [example(i) for i in range(count)], SCHEMA, teacher, ["zero_shot"], out, **options)


def request(text="", images=(), max_tokens=50) -> Request:
    parts = (Part(text=text), *(Part(image=image) for image in images))
    prompt = Prompt(template="t", digest="d", messages=(Message(role="user", parts=parts),), max_tokens=max_tokens)
    return Request(example="e", prompt=prompt, key=text)


def test_the_stated_rule():
    assert count_tokens(request("12345678")) == 2
    assert count_tokens(request("123456789")) == 3
    assert count_tokens(request("汉字汉字")) == 3  # a Chinese sign is about a token, and three bytes
    assert count_tokens(request("1234", [Image(source="a.png")] * 2)) == 1 + 2 * TOKENS_A_PICTURE


def test_money_is_exact():
    budget = Budget(price_in=Decimal("0.15"), price_out=Decimal("0.6"))
    assert budget.cost(1_000_000, 500_000) == Decimal("0.45")
    assert budget.cost(1, 1) == Decimal("0.00000075")
    assert Budget(price_in=Decimal(1)).cost(1, 1) is None
    assert sum((budget.cost(1, 0) for _ in range(10)), Decimal(0)) == budget.cost(10, 0)  # no float would say so


def test_a_budget_in_dollars_needs_prices(tmp_path):
    with pytest.raises(DataFault, match=r"price is unknown.*--price-in and --price-out"):
        run(Paid(), tmp_path / "c", budget=Budget(usd=Decimal(1), price_in=Decimal(1)))
    assert not (tmp_path / "c").exists()
    for wrong in ({"tokens": -1}, {"usd": Decimal("NaN")}, {"price_in": Decimal(-1)}):
        with pytest.raises(ValueError, match=r"greater than or equal|finite"):
            Budget(**wrong)


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_a_budget_is_a_hard_stop_and_everything_is_saved(tmp_path, ahead):
    """An answer may be 30 tokens long, and is 20: the seventh question fits only when shorter ones have come in."""
    teacher = Paid(ahead=ahead)
    options = {"budget": Budget(tokens=900), "max_tokens": 30}
    summary = run(teacher, tmp_path / "c", **options)
    assert (summary.kept, summary.failed, summary.replies) == (7, {"over_budget": 3}, 7)
    assert len(teacher.asked) == 7
    assert teacher.most == min(ahead, 6)  # 6 x 130 is what fits at once
    assert "840 of 900 tokens" in summary.spent
    rows = list(corpus.rows(tmp_path / "c", status="failed"))
    assert {r["reason"] for r in rows} == {"over_budget"}
    assert rows[0]["detail"] == "never asked: the budget was spent"

    again = run(Paid(), tmp_path / "c", **options)  # a resume knows what was spent
    assert (again.replies, again.failed) == (0, {"over_budget": 3})
    assert "840 of 900 tokens" in again.spent
    more = run(Paid(), tmp_path / "c", **(options | {"budget": Budget(tokens=1100)}))
    assert (more.replies, more.kept) == (2, 9)
    rest = run(Paid(), tmp_path / "c", max_tokens=30)
    assert (rest.replies, rest.kept, rest.failed) == (1, 10, {})


@settings(deadline=None, max_examples=60)
@given(
    limit=st.integers(0, 3000),
    ahead=st.integers(1, 12),
    written=st.lists(st.integers(0, 40), min_size=20, max_size=20),
    usd=st.booleans(),
)
def test_no_budget_is_ever_overspent(limit, ahead, written, usd, tmp_path_factory):
    """Whatever answers cost up to their limit, and however many are under way; and what fits is asked."""
    teacher = Paid(ahead=ahead)
    teacher.says = lambda r: Reply(
        key=r.key, text="x", usage=Usage(prompt_tokens=100, completion_tokens=written[int(r.example[1:])])
    )
    prices = {"price_in": Decimal(1_000_000), "price_out": Decimal(1_000_000)}
    budget = Budget(usd=Decimal(limit), **prices) if usd else Budget(tokens=limit)
    folder = tmp_path_factory.mktemp("b") / "c"
    summary = run(teacher, folder, 20, budget=budget, max_tokens=40)
    spent = summary.prompt_tokens + summary.completion_tokens
    assert spent <= limit
    assert summary.failed.get("over_budget", 0) == 20 - len(teacher.asked)
    assert len(teacher.asked) == 20 or spent + 140 > limit  # it stopped because the next one might not have fitted
    assert [r.example for r in teacher.asked] == [f"e{n}" for n in range(len(teacher.asked))]


def test_failed_and_superseded_replies_were_paid_too(tmp_path):
    """A retry costs again: the ledger's rows of one key both count."""

    def cut(request):
        usage = Usage(prompt_tokens=100, completion_tokens=request.prompt.max_tokens)
        return Reply(key=request.key, text=right(request), finish="length", usage=usage)

    first = run(FakeTeacher(cut), tmp_path / "c", 2, max_tokens=10)
    assert "220 tokens" in first.spent
    assert "460 tokens" in run(FakeTeacher(cut), tmp_path / "c", 2, max_tokens=20).spent


def test_an_engine_that_counts_nothing_is_estimated_also_after_a_resume(tmp_path):
    teacher = FakeTeacher(lambda r: Reply(key=r.key, text=right(r)))
    summary = run(teacher, tmp_path / "c", 4, max_tokens=30)
    assert summary.notes["answers_whose_tokens_were_estimated"] == 4
    estimated = sum(count_tokens(r) + -(-len(right(r)) // 4) for r in teacher.asked)
    assert f"{estimated:,} tokens" in summary.spent
    assert run(teacher, tmp_path / "c", 4, max_tokens=30).spent == summary.spent
    stopped = run(teacher, tmp_path / "d", 4, max_tokens=30, budget=Budget(tokens=estimated * 2 // 3))
    assert 0 < stopped.failed["over_budget"] < 4


def test_the_estimate_before_the_first_call(tmp_path):
    said = []
    budget = Budget(price_in=Decimal("1.5"), price_out=Decimal(6))
    run(Paid(), tmp_path / "c", say=lambda line: said.append(line), max_tokens=30, budget=budget)
    assert said == [
        "to ask: 10 requests read about 1,000 tokens (by the teacher's own tokenizer) and write at most 300; "
        "at most $0.0033; spent so far: 0 tokens, $0.0000"
    ]
    dry = run(Paid(), tmp_path / "d", dry_run=True, max_tokens=30)
    assert (dry.estimate.prompt_tokens, dry.estimate.completion_tokens, dry.estimate.usd) == (1000, 300, None)
    assert "price unknown" in str(dry)
    assert "4 bytes a token, 1,000 tokens a picture" in str(run(FakeTeacher(), tmp_path / "d", dry_run=True))


def test_what_is_pending_stays_reserved():
    """A batch that was handed in will be paid: its requests leave no room for others."""
    meter = Meter(Budget(tokens=130), Paid())
    assert meter.fits(request("a", max_tokens=30))
    meter.start(request("a", max_tokens=30))
    assert not meter.fits(request("b", max_tokens=1))
    meter.settle(request("a", max_tokens=30), Reply(key="a", finish="error", failure="transport"))
    assert meter.fits(request("b", max_tokens=30))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": "four"}, 1),
        ({"text": "", "reasoning": "long thought"}, 3),
        ({"text": ""}, 0),
        ({"text": "half an answer", "finish": "error", "failure": "transport"}, 4),
        ({"text": "", "reasoning": "hmm.", "finish": "error", "failure": "refused"}, 1),
        ({"text": "", "finish": "error", "failure": "transport"}, None),
        ({"text": "", "finish": "error"}, None),
    ],
)
def test_without_counts_the_same_is_estimated_live_and_after_a_resume(tmp_path, fields, words):
    """The prompt and all words, where there are words or no failure; a request that failed in silence costs nothing."""
    teacher = FakeTeacher(lambda r: Reply(key=r.key, **fields))
    first = run(teacher, tmp_path / "c", 3)
    expected = 0 if words is None else sum(count_tokens(r) + words for r in teacher.asked)
    assert first.spent.startswith(f"{expected:,} tokens")
    assert run(teacher, tmp_path / "c", 3).spent == first.spent
    assert len(teacher.asked) == 3


def test_superseded_replies_without_counts_are_estimated_by_their_own_words(tmp_path):
    cut = FakeTeacher(lambda r: Reply(key=r.key, text="x" * 400, finish="length"))
    run(cut, tmp_path / "c", 1, max_tokens=100)
    whole = FakeTeacher(lambda r: Reply(key=r.key, text=right(r)))
    spent = run(whole, tmp_path / "c", 1, max_tokens=200).spent
    expected = 2 * count_tokens(cut.asked[0]) + 100 + -(-len(right(cut.asked[0])) // 4)
    assert spent.startswith(f"{expected:,} tokens")
    assert run(whole, tmp_path / "c", 1, max_tokens=200).spent == spent
