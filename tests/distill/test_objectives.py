"""The objectives against references computed apart, and where gradients may and may not go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from magister.distill import batches, objectives
from magister.distill.recipe import check
from magister.distill.train import build, seed_all
from magister.students.student import Output, View
from torch import Tensor

from .conftest import SCHEMA, examples

K = 5  # O and B-, I- of two types


def logs(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_divergence_is_that_of_torch_and_0_for_equal_views() -> None:
    teacher, student = logs(3, 4, K), logs(3, 4, K, seed=1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    expected = torch.nn.functional.kl_div(student[mask], teacher[mask], log_target=True, reduction="batchmean")
    assert objectives.divergence(teacher, student, mask, 3.0) == pytest.approx(9 * expected.item(), rel=1e-5)
    assert objectives.divergence(teacher, teacher, mask, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_divergence_by_hand_and_with_impossible_labels() -> None:
    half, mask = torch.tensor([[[0.5, 0.5]]]).log(), torch.ones(1, 1).bool()
    quarter, sure = torch.tensor([[[0.25, 0.75]]]).log(), torch.tensor([[[1.0, 0.0]]]).log()
    by_hand = 0.5 * torch.log(torch.tensor(0.5 / 0.25)) + 0.5 * torch.log(torch.tensor(0.5 / 0.75))
    assert objectives.divergence(half, quarter, mask, 1.0) == pytest.approx(by_hand.item())
    assert objectives.divergence(sure, half, mask, 1.0) == pytest.approx(torch.tensor(2.0).log().item())


def test_no_gradient_reaches_the_teacher_through_the_divergence() -> None:
    teacher, student = logs(2, 3, K).requires_grad_(), logs(2, 3, K, seed=1).requires_grad_()
    objectives.divergence(teacher, student, torch.ones(2, 3).bool(), 2.0).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


class Fake(torch.nn.Module):
    """Gives each view a loss and emissions of its own: knowledge-reading, prompted, explaining."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))
        self.seen: list[View] = []

    def collate(self, examples: Any, view: View) -> Any:
        from magister.students.student import Batch

        self.seen.append(view)
        words = {"tagging.units": torch.tensor([2 * len(examples)])}
        return Batch(words, examples, view, {"context_tokens_cut": 1})

    def forward(self, batch: Any) -> Output:
        worth = 5.0 if batch.view.explain else 2.0 if "knowledge" in batch.view.context else 3.0
        labelled = batch.examples[0].gold is not None
        return Output(self.weight * worth if labelled else None, {}, {"worth": torch.tensor(worth)})


def with_knowledge(count: int) -> list[Any]:
    joined, _ = batches.join(examples(count), {f"e{i}": "said" for i in range(count)}, "k")
    return list(joined)


def test_two_prefix_weighs_label_and_rationale() -> None:
    student = Fake()
    recipe = check({"task": "ner", "data": "d", "objective": "two_prefix", "knowledge": "k", "alpha": 0.25})
    loss = objectives.compute(student, with_knowledge(4), recipe)
    assert loss.total.item() == pytest.approx(0.25 * 3 + 0.75 * 5)
    assert student.seen == [View(), View(explain="knowledge")]
    assert loss.counts["context_tokens_cut"] == 2
    half = [*with_knowledge(2), *examples(2, seed=9)]
    assert objectives.compute(student, half, recipe).total.item() == pytest.approx(0.25 * 3 + 0.75 * 5 / 2)
    none = objectives.compute(student, examples(2, seed=9), recipe)
    assert none.total.item() == pytest.approx(0.25 * 3)
    assert "rationale" not in none.parts


def distilling(**more: Any) -> Any:
    base = {
        "task": "ner",
        "data": "d",
        "objective": "prompt_distillation",
        "knowledge": "k",
        "prompt_length": 2,
    }
    return check({**base, **more})


def test_prompt_distillation_adds_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    student, recipe = Fake(), distilling(alpha=0.5)
    by_worth, mask = {2.0: logs(4, 2, K), 3.0: logs(4, 2, K, seed=1)}, torch.ones(4, 2).bool()
    said = lambda student, batch, output, temperature: (by_worth[output.scores["worth"].item()], mask)
    monkeypatch.setattr(objectives, "posteriors", said)
    apart = objectives.divergence(by_worth[2.0], by_worth[3.0], mask, 2.0).item()
    loss = objectives.compute(student, with_knowledge(4), recipe, beta=0.3)
    assert loss.total.item() == pytest.approx(2 + 0.5 * 3 + 0.3 * apart)
    assert student.seen == [View(context=("knowledge",)), View(prompt=True)]
    assert loss.weight == 8


def test_beta_warms_up_and_a_finished_teacher_needs_none() -> None:
    recipe = distilling(beta=2.0, beta_warmup_epochs=2)
    assert [objectives.beta_at(recipe, e) for e in (0, 0.5, 1, 2, 5)] == [0, 0.5, 1, 2, 2]
    assert objectives.beta_at(distilling(beta=2.0, teacher_run="r"), 0) == 2.0


@pytest.fixture
def student(settings: dict[str, Any]) -> Any:
    seed_all(0)
    recipe = check(
        settings
        | {
            "objective": "prompt_distillation",
            "knowledge": "k",
            "prompt_length": 3,
            "dropout": 0,
            "lora_dropout": 0,
        }
    )
    return build(recipe, SCHEMA), recipe


def test_posteriors_are_the_marginals_of_all_tag_sequences(student: Any) -> None:
    model, _ = student
    model.eval()
    chosen = [examples(1)[0], min(examples(20, seed=2), key=lambda e: len(e.words))]
    short = chosen[1:]
    batch = model.collate(short, View())
    output = model(batch)
    found, mask = objectives.posteriors(model, batch, output, 2.0)
    emissions, crf = output.scores["emissions"][0] / 2.0, model.heads["tagging"].crf
    words = len(short[0].words)
    assert words <= 4, "short enough to go through all sequences"
    expected = torch.zeros(words, K)
    for tags in itertools.product(range(K), repeat=words):
        score = crf.start_transitions[tags[0]] + crf.end_transitions[tags[-1]]
        score = score + sum(emissions[i, t] for i, t in enumerate(tags))
        score = score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(tags))
        for i, t in enumerate(tags):
            expected[i, t] += score.exp()
    expected = (expected / expected.sum(-1, keepdim=True)).log()
    assert torch.allclose(found[0, :words], expected, atol=1e-4)
    assert mask.sum() == words


def test_unlabelled_examples_teach_through_the_divergence_alone(student: Any) -> None:
    model, recipe = student
    model.eval()
    loss = objectives.compute(model, batches.without_gold(with_knowledge(4)), recipe, beta=1.0)
    assert set(loss.parts) == {"divergence"}
    assert loss.total.item() > 0
    loss.total.backward()
    assert model.prompt is not None
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.prompt.parameters())


def test_offline_equals_joint_divergence_when_the_teacher_is_the_student_itself(student: Any) -> None:
    model, recipe = student
    chosen = with_knowledge(5)
    known = objectives.stored(model, chosen, objectives.knowledge_view(recipe), recipe.temperature, 2)
    assert all(known[e.id].shape == (len(e.words), K) for e in chosen)
    model.eval()
    offline = objectives.offline_distillation(model, chosen, recipe, 1.0, known)
    joint = objectives.prompt_distillation(model, chosen, recipe, 1.0)
    assert offline.parts["divergence"].item() == pytest.approx(joint.parts["divergence"].item(), rel=1e-4)
    same = objectives.stored(model, chosen, objectives.text_view(recipe), recipe.temperature, 2)
    assert objectives.offline_distillation(model, chosen, recipe, 1.0, same).parts["divergence"].item() < 1e-5
