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
    said = lambda student, batch, output, *_: (by_worth[output.scores["worth"].item()], mask)
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


def loud(model: Any) -> Any:
    """Weights of a size at which views differ by more than rounding."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.3)
    return model.eval()


def live(student: Any, recipe: Any, count: int = 4, **more: Any) -> objectives.Loss:
    student.eval()
    return objectives.compute(student, with_knowledge(count), recipe.model_copy(update=more), beta=1.0)


@pytest.mark.parametrize("level", ["emission", "crf_marginal", "crf_pairwise"])
def test_views_that_are_equal_are_not_apart_at_any_level(student: Any, level: str) -> None:
    model, recipe = student
    recipe = recipe.model_copy(update={"kd_level": level, "kd_target": "both"})
    loud(model)
    batch = model.collate(with_knowledge(3), View())
    same, other = (batch, model(batch)), model.collate(with_knowledge(3), View(prompt=True))
    for found in objectives.apart(model, same, same, recipe).values():
        assert found.item() == pytest.approx(0, abs=1e-5)
    for found in objectives.apart(model, same, (other, model(other)), recipe, tempered=True).values():
        assert found.item() > 1e-5


def test_levels_without_a_crf_are_a_softmax_and_moves_hold_the_marginals(student: Any) -> None:
    model, _ = student
    model.eval()
    batch = model.collate(with_knowledge(3), View())
    output = model(batch)
    plain, _ = objectives.posteriors(model, batch, output, 2.0, "emission")
    torch.testing.assert_close(plain, (output.scores["emissions"] / 2).log_softmax(-1))
    words, mask = objectives.posteriors(model, batch, output, 2.0)
    moves, there = objectives.posteriors(model, batch, output, 2.0, "crf_pairwise")
    into = moves.exp().unflatten(2, (K, K)).sum(2)[:, 2:]  # of every word but the first
    torch.testing.assert_close(into[mask[:, 1:]], words.exp()[:, 1:][mask[:, 1:]], rtol=1e-4, atol=1e-5)
    assert there.sum() == mask.sum() + 3


def test_what_is_apart_by_target(student: Any) -> None:
    model, recipe = student
    assert set(live(model, recipe).parts) == {"divergence", "label", "knowledge_label"}
    assert set(live(model, recipe, kd_target="hidden").parts) == {"hidden", "label", "knowledge_label"}
    both = live(model, recipe, kd_target="both")
    assert both.total.item() == pytest.approx(sum(part.item() for part in both.parts.values()), rel=1e-4)


def test_strangeness_is_one_less_the_cosine_by_hand() -> None:
    teacher = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]]).requires_grad_()
    pupil = torch.tensor([[[0.0, 2.0], [6.0, 8.0]]])
    mask = torch.tensor([[True, True]])
    assert objectives.strangeness(teacher, pupil, mask).item() == pytest.approx(0.5)
    assert objectives.strangeness(teacher, pupil, torch.tensor([[False, True]])).item() == pytest.approx(0, abs=1e-6)
    assert not objectives.strangeness(teacher, pupil, mask).requires_grad
    assert objectives.strangeness(teacher, pupil, mask, detached=False).requires_grad


def test_only_in_both_directions_does_the_divergence_move_the_teacher() -> None:
    teacher = torch.tensor([[[0.5, 0.5, 0.0]]]).log().requires_grad_()
    pupil = torch.tensor([[[0.25, 0.75, 0.0]]]).log().requires_grad_()
    mask = torch.ones(1, 1).bool()
    objectives.divergence(teacher, pupil, mask, 1.0).backward()
    assert teacher.grad is None
    objectives.divergence(teacher, pupil, mask, 1.0, detached=False).backward()
    assert teacher.grad is not None
    assert teacher.grad.isfinite().all()
    assert teacher.grad.any()


def test_trust_is_the_probability_of_the_gold(student: Any) -> None:
    model, recipe = student
    model.eval()
    chosen = [*with_knowledge(2), *batches.without_gold(with_knowledge(1))]
    batch = model.collate(chosen, View())
    found = objectives.trusted(model, batch, model(batch))
    for row, example in enumerate(chosen[:2]):
        per_word = model(model.collate([example], View())).loss  # the mean over the words of one text
        assert found[row].item() == pytest.approx((-per_word).exp().item(), rel=1e-4)
    assert found[2] == 1
    mask = torch.ones(2, 3).bool()
    teacher, pupil = logs(2, 3, K), logs(2, 3, K, seed=1)
    alone = [objectives.divergence(teacher[i : i + 1], pupil[i : i + 1], mask[:1], 1.0) for i in range(2)]
    weighed = objectives.divergence(teacher, pupil, mask, 1.0, torch.tensor([0.5, 0.25]))
    assert weighed.item() == pytest.approx((0.5 * alone[0] + 0.25 * alone[1]).item() / 2, rel=1e-5)
    assert live(model, recipe, trust=True).parts["divergence"] < live(model, recipe).parts["divergence"]


def test_a_thinned_view_reads_everything_the_caption_or_the_knowledge() -> None:
    seed_all(0)
    full = examples(1)[0].model_copy(update={"context": {"caption": "I", "knowledge": "c"}})
    kept = [frozenset(objectives.thinned(full, 0.5).context) for _ in range(4000)]
    shares = {names: kept.count(names) / len(kept) for names in set(kept)}
    assert shares[frozenset({"caption", "knowledge"})] == pytest.approx(0.5, abs=0.03)
    assert shares[frozenset({"caption"})] == pytest.approx(0.25, abs=0.03)
    assert shares[frozenset({"knowledge"})] == pytest.approx(0.25, abs=0.03)
    assert objectives.thinned(full, 0.0) is full
    without = full.model_copy(update={"context": {"caption": "I"}})
    assert all(objectives.thinned(without, 1.0) is without for _ in range(20))


def test_only_training_is_thinned(student: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recipe = student
    shares: list[float] = []

    def spied(example: Any, share: float) -> Any:
        shares.append(share)
        return example

    monkeypatch.setattr(objectives, "thinned", spied)
    live(model, recipe)
    assert shares == []
    model.train()
    objectives.compute(model, with_knowledge(2), recipe.model_copy(update={"modality_dropout": 0.5}), beta=1.0)
    assert shares == [0.5, 0.5]


def aligning(settings: dict[str, Any], **more: Any) -> Any:
    base = {"student": "ita", "objective": "cross_view", "context": ["caption"], "beta": 0.5, "dropout": 0}
    return check(settings | base | {"lora_dropout": 0, "word_dropout": 0, **more})


def told(count: int) -> list[Any]:
    return [e.model_copy(update={"context": {"caption": "the sea"}}) for e in examples(count)]


def test_cross_view_is_the_sum_of_its_parts(settings: dict[str, Any]) -> None:
    recipe = aligning(settings, alpha=0.25)
    model = loud(build(recipe, SCHEMA))
    loss = objectives.compute(model, told(4), recipe, beta=0.5)
    parts = {name: part.item() for name, part in loss.parts.items()}
    expected = 0.5 * parts["context_label"] + 0.5 * parts["divergence"] + 0.25 * parts["label"]
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    # The divergence is that of tempered posteriors, as published.
    rich, poor = (model.collate(told(4), view) for view in (View(context=("caption",)), View()))
    q, p = ((objectives.posteriors(model, b, model(b), 1.0)[0] / 2).softmax(-1) for b in (rich, poor))
    kl = (q * (q.log() - p.log())).sum(-1)[rich.tensors["word_mask"]].mean()
    assert parts["divergence"] == pytest.approx(4 * kl.item(), rel=1e-3)


def test_cross_view_learns_labels_alone_of_a_text_without_side_texts(settings: dict[str, Any]) -> None:
    recipe = aligning(settings)
    model = loud(build(recipe, SCHEMA))
    plain = objectives.compute(model, examples(3, seed=5), recipe, beta=0.5)
    assert set(plain.parts) == {"text_label"}
    assert plain.total.item() == pytest.approx(plain.parts["text_label"].item())
    rich = objectives.compute(model, told(4), recipe, beta=0.5)
    mixed = objectives.compute(model, [*told(4), *examples(3, seed=5)], recipe, beta=0.5)
    assert mixed.weight == plain.weight + rich.weight
    expected = (plain.weight * plain.total + rich.weight * rich.total) / mixed.weight
    assert mixed.total.item() == pytest.approx(expected.item(), rel=1e-4)
