"""What a student learns from: each objective a pure function of a student and some examples.

An objective gives a `Loss`: a mean, how many units it is the mean of, its named parts for the log, and what
was given up on the way. The unit is that of the student's own loss (a word in tagging), so label losses and
distillation are of one scale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..students.collate import group
from ..students.student import Batch, Output, View
from .recipe import Recipe


@dataclass
class Loss:
    """What is to be minimised.

    Attributes:
        total: a scalar, the mean over ``weight`` units.
        weight: how many units; the means of two batches are joined in proportion to it.
        parts: detached scalars by name, for the log.
        counts: ``context_tokens_cut``, ``image_missing``, ...
    """

    total: Tensor
    weight: float
    parts: dict[str, Tensor]
    counts: Counter[str]


def text_view(recipe: Recipe) -> View:
    """What the student sees, in training and later."""
    prompt = recipe.objective == "prompt_distillation" and getattr(recipe.settings, "prompt_length", 0) > 0
    return View(text=recipe.text, context=recipe.context, images=recipe.images, prompt=prompt)


def knowledge_view(recipe: Recipe) -> View:
    """What the knowledge-reading branch sees: the teacher's texts beside the text, and no prompt."""
    return View(context=recipe.teacher_context, images=recipe.images)


def compute(
    student: Any,
    examples: Sequence[Any],
    recipe: Recipe,
    beta: float = 0.0,
    teacher: Mapping[str, Tensor] | None = None,
) -> Loss:
    """The recipe's objective. ``beta``: the weight of distillation at this step (`beta_at`); ``teacher``:
    posteriors.
    """
    if recipe.objective == "two_prefix":
        return two_prefix(student, examples, recipe)
    if recipe.objective == "prompt_distillation":
        if teacher is not None:
            return offline_distillation(student, examples, recipe, beta, teacher)
        return prompt_distillation(student, examples, recipe, beta)
    if recipe.objective == "cross_view":
        return cross_view(student, examples, recipe, beta)
    return gold(student, examples, recipe)


def gold(student: Any, examples: Sequence[Any], recipe: Recipe) -> Loss:
    """``L = NLL(gold | view)``: the student's own loss under the recipe's view.

    With ``objective: queries`` the same, the student's span head being asked its machine-reading queries:
    one (query, text) pair an entity type or attribute, "nothing" an answer (MRC-MNER, Jia et al. 2022, eq.
    1-4).
    """
    batch, output, counts = _forward(student, examples, text_view(recipe))
    return Loss(_loss(output), units(batch), _detached(output, "label"), counts)


def two_prefix(student: Any, examples: Sequence[Any], recipe: Recipe) -> Loss:
    """``L = alpha * L_label + (1 - alpha) * L_rationale``, two forward passes with shared weights.

    The label pass answers the task; the rationale pass produces the teacher's text from the same input.
    Examples without a rationale take part in the label pass alone (their share of the rationale loss is 0).
    Source: Hsieh et al. 2023, Distilling step-by-step, eq. 3-4.
    """
    view = text_view(recipe)
    batch, output, counts = _forward(student, examples, view)
    label, weight = _loss(output), units(batch)
    explained = [e for e in examples if e.context.get("knowledge")]
    parts = {"label": label.detach()}
    total = recipe.alpha * label
    if explained:
        explain = replace(view, explain="knowledge")
        _, output, more = _forward(student, explained, explain)
        counts += more
        if output.loss is not None:
            rationale = output.loss * (len(explained) / len(examples))
            parts["rationale"] = rationale.detach()
            total = total + (1 - recipe.alpha) * rationale
    return Loss(total, weight, parts, counts)


def prompt_distillation(student: Any, examples: Sequence[Any], recipe: Recipe, beta: float) -> Loss:
    """``L = L_k + alpha * L_t + beta * D``: a branch that reads knowledge teaches one that sees the text
    alone.

    Both branches are the same weights; the text branch has the learnable prompt in place of the knowledge.
    ``D`` is what sets the branches `apart`; unless ``kd_direction`` is ``both``, no gradient reaches the
    knowledge branch through it. Examples without gold take part in ``D`` alone.
    Source: Chen and Feng 2023 (chain-of-thought prompt distillation), with the label-level KL of Wang et al.
    2022 (ITA).
    """
    labelled = examples[0].gold is not None
    learns = labelled or recipe.kd_direction == "both"
    shown = [thinned(e, recipe.modality_dropout) for e in examples] if student.training else examples
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        seen, rich, counts = _forward(student, shown, knowledge_view(recipe))
    batch, poor, more = _forward(student, examples, text_view(recipe))
    counts += more
    parts = apart(student, (seen, rich), (batch, poor), recipe)
    total = beta * torch.stack(list(parts.values())).sum()
    parts = {name: part.detach() for name, part in parts.items()}
    if labelled:
        parts |= {"knowledge_label": _loss(rich).detach(), "label": _loss(poor).detach()}
        total = _loss(rich) + recipe.alpha * _loss(poor) + total
    return Loss(total, units(batch), parts, counts)


def cross_view(student: Any, examples: Sequence[Any], recipe: Recipe, beta: float) -> Loss:
    """``L = (1 - beta) * L_c + beta * D + alpha * L_t`` for a text with side texts, ``L_t`` for one without.

    ``L_c`` is the label loss of the view with the side texts (``context``), ``L_t`` that of the text alone, ``D`` what
    sets the second `apart` from the first. The paper trains on every sentence twice, with its side texts and as text
    alone: that is ``alpha`` 1; with 0 the text view learns from the other alone. Its posteriors are tempered as they
    stand, ``softmax(log q / T)``, and not the emissions below them.
    Source: Wang et al. 2022 (ITA), cross-view alignment, with ``beta`` 0.5.
    """
    view = text_view(recipe)
    bare = replace(view, context=())
    told = [e for e in examples if any(e.context.get(name, "").strip() for name in view.context)]
    plain = [e for e in examples if not any(e.context.get(name, "").strip() for name in view.context)]
    counts, parts, total, weight = Counter[str](), dict[str, Tensor](), torch.zeros(()), 0.0
    if told:
        seen, rich, more = _forward(student, told, view)
        batch, poor, again = _forward(student, told, bare)
        counts += more + again
        found = apart(student, (seen, rich), (batch, poor), recipe, tempered=True)
        weight = units(batch)
        total = beta * torch.stack(list(found.values())).sum()
        total = (1 - beta) * _loss(rich) + recipe.alpha * _loss(poor) + total
        parts |= {name: part.detach() for name, part in found.items()}
        parts |= {"context_label": _loss(rich).detach(), "label": _loss(poor).detach()}
    if plain:
        batch, poor, more = _forward(student, plain, bare)
        counts += more
        own = units(batch)
        parts["text_label"] = _loss(poor).detach()
        total = (weight * total.to(_loss(poor).device) + own * _loss(poor)) / (weight + own)
        weight += own
    return Loss(total, weight, parts, counts)


def offline_distillation(
    student: Any, examples: Sequence[Any], recipe: Recipe, beta: float, teacher: Mapping[str, Tensor]
) -> Loss:
    """``L = alpha * L_t + beta * D`` with a finished teacher's stored posteriors: one forward pass a step.

    Args:
        teacher: log posteriors ``[positions, labels]`` by example id, at the recipe's temperature (`stored`).
    """
    batch, poor, counts = _forward(student, examples, text_view(recipe))
    q_student, mask = posteriors(student, batch, poor, recipe.temperature, recipe.kd_level)
    q_teacher = torch.full_like(q_student, -torch.inf)
    for row, example in enumerate(examples):
        known = teacher[example.id].to(q_student)
        q_teacher[row, : known.shape[0], : known.shape[1]] = known
    found = divergence(q_teacher, q_student, mask, recipe.temperature)
    parts = {"divergence": found.detach()}
    total = beta * found
    if examples[0].gold is not None:
        parts["label"] = _loss(poor).detach()
        total = recipe.alpha * _loss(poor) + total
    return Loss(total, units(batch), parts, counts)


#: A pass through the student: what it was given and what it said.
Pass = tuple[Batch, Output]


def apart(student: Any, teacher: Pass, pupil: Pass, recipe: Recipe, tempered: bool = False) -> dict[str, Tensor]:
    """What sets two views of the same examples apart, by name: ``divergence`` of what they say, ``hidden`` of their
    states (`strangeness`), or both, as ``kd_target`` asks.

    With ``trust`` every example counts by how much of the gold the teacher's view knows (`trusted`).

    Args:
        teacher, pupil: the view that knows more, and the one that is to follow.
        tempered: whether the temperature is that of finished posteriors, ``softmax(log q / T)``.
    """
    detached = recipe.kd_direction == "teacher_detached"
    weights = trusted(student, *teacher) if recipe.trust else None
    found: dict[str, Tensor] = {}
    if recipe.kd_target in ("label", "both"):
        degree = 1.0 if tempered else recipe.temperature
        q_teacher, mask = posteriors(student, *teacher, degree, recipe.kd_level)
        q_pupil, _ = posteriors(student, *pupil, degree, recipe.kd_level)
        if tempered:
            q_teacher, q_pupil = ((q / recipe.temperature).log_softmax(-1) for q in (q_teacher, q_pupil))
        found["divergence"] = divergence(q_teacher, q_pupil, mask, recipe.temperature, weights, detached)
    if recipe.kd_target in ("hidden", "both"):
        if "states" not in teacher[1].scores:
            raise TypeError("kd_target hidden compares states of a tagging or a pair head; this student has none")
        states = teacher[1].scores["states"]
        mask = teacher[1].scores.get("word_mask", states.new_ones(states.shape[:2], dtype=torch.bool))
        found["hidden"] = strangeness(states, pupil[1].scores["states"], mask, weights, detached)
    return found


def strangeness(
    teacher: Tensor, pupil: Tensor, mask: Tensor, weights: Tensor | None = None, detached: bool = True
) -> Tensor:
    """``mean_i (1 - cos(sg(h_teacher,i), h_pupil,i))`` of states ``[B, N, d]`` where ``mask [B, N]`` is true; 0 to 2.

    Where only the direction counts, no view can win by growing.
    """
    teacher = teacher.detach() if detached else teacher
    pointwise = 1 - F.cosine_similarity(teacher.float(), pupil.float(), dim=-1)
    return _mean(pointwise, mask, weights)


@torch.no_grad()
def trusted(student: Any, batch: Batch, output: Output) -> Tensor:
    """How much of each example's gold a pass knows, ``[B]`` in 0..1; 1 for one without gold.

    Of a pair the probability of its relation; of a text ``p(y | x)^(1 / words)``, the geometric mean over its words,
    since that of a whole tag sequence falls with every word. Source: SCANNER (NAACL 2024), trust your teacher.
    """
    tensors = group(batch.tensors, "tagging") or group(batch.tensors, "pair") or batch.tensors
    if "emissions" in output.scores:
        mask = output.scores["word_mask"]
        nll = student.crf.nll(output.scores["emissions"], tensors["tags"], mask) / mask.sum(1)
        return (-nll).exp().masked_fill(~tensors["gold"], 1.0)
    if "pair" in output.scores:
        gold = tensors["relation"]
        sure = output.scores["pair"].float().softmax(-1).gather(1, gold.clamp(min=0)[:, None])[:, 0]
        return sure.masked_fill(gold < 0, 1.0)
    raise TypeError("trust weighs a tagging or a pair head; this student has neither")


def thinned(example: Any, share: float) -> Any:
    """The example, or with probability ``share`` a poorer one: half of these keep the caption and other side texts and
    lose the knowledge (and their pictures stay), half keep the knowledge alone.

    So one checkpoint learns to read ``{x, I, c}``, ``{x, I}`` and ``{x, c}``: 0.5, 0.25 and 0.25 of the time at 0.5.
    """
    drawn = torch.rand(()).item() if share else 1.0
    if drawn >= share or not example.context.get("knowledge"):
        return example
    if drawn < share / 2:
        return example.model_copy(update={"context": {k: v for k, v in example.context.items() if k != "knowledge"}})
    return example.model_copy(update={"context": {"knowledge": example.context["knowledge"]}, "images": ()})


def divergence(
    teacher: Tensor,
    student: Tensor,
    mask: Tensor,
    temperature: float,
    weights: Tensor | None = None,
    detached: bool = True,
) -> Tensor:
    """``D = T^2 * mean_i w * KL(sg(q_teacher,i) || q_student,i)`` over the positions of the batch: 0 if both say
    the same.

    Args:
        teacher, student: log posteriors ``[B, N, K]``, already at the temperature.
        mask: ``[B, N]``, true at the positions that count.
        weights: ``[B]``, what each example counts; 1 if left out.
        detached: whether no gradient reaches the teacher.
    """
    teacher = teacher.detach() if detached else teacher
    # Filled before it is multiplied: 0 * inf would have a gradient that is no number.
    further = (teacher - student).masked_fill(teacher == -torch.inf, 0)
    return temperature**2 * _mean((teacher.exp() * further).sum(-1), mask, weights)


def _mean(pointwise: Tensor, mask: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of ``[B, N]`` where the mask is true, each example counted by its weight."""
    if weights is not None:
        pointwise = pointwise * weights[:, None]
    return pointwise.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def beta_at(recipe: Recipe, epoch: float) -> float:
    """The weight of distillation: rises linearly from 0 to beta over the first epochs (an untrained teacher
    is noise).

    A finished teacher (``teacher_run``) needs no warm-up.
    """
    if recipe.teacher_run or not recipe.beta_warmup_epochs:
        return recipe.beta
    return recipe.beta * min(1.0, epoch / recipe.beta_warmup_epochs)


def posteriors(
    student: Any, batch: Batch, output: Output, temperature: float, level: str = "crf_marginal"
) -> tuple[Tensor, Tensor]:
    """Label posteriors of a pass: log probabilities ``[B, N, K]`` and which positions count, ``[B, N]``.

    Tagging: the emissions are scaled by ``1 / temperature``; then by ``level``: ``crf_marginal`` a position a word and
    the CRF's marginals there, ``emission`` the same without the CRF, ``crf_pairwise`` a position a move, start and end
    among them (`CRF.pair_marginals`), with ``K`` the pairs of tags. A given pair: one position. Ranking: a position an
    attribute asked, ``absent`` and the options, ``-inf`` behind the last one.
    """
    if "emissions" in output.scores:
        emissions, mask = output.scores["emissions"].float(), output.scores["word_mask"]
        if level == "emission":
            return (emissions / temperature).log_softmax(-1), mask
        if level == "crf_pairwise":
            moves, there = student.crf.pair_marginals(emissions / temperature, mask)
            return moves.flatten(2), there
        return student.crf.marginals(emissions / temperature, mask), mask
    if "pair" in output.scores:
        logs = (output.scores["pair"].float() / temperature).log_softmax(-1)[:, None]
        return logs, logs.new_ones(logs.shape[:2], dtype=torch.bool)
    if "ranking" in output.scores:
        items = (output.scores["ranking"].float() / temperature).log_softmax(-1).roll(1, -1)
        owners = batch.tensors["ranking.item_example"].tolist()
        places = [owners[:i].count(owner) for i, owner in enumerate(owners)]
        logs = items.new_zeros(len(batch.examples), max(places) + 1, items.shape[1])
        logs[owners, places] = items
        mask = torch.zeros(logs.shape[:2], dtype=torch.bool, device=logs.device)
        mask[owners, places] = True
        return logs, mask
    raise TypeError(
        f"distillation compares a tagging, a pair or a ranking head; this student has: {', '.join(output.scores)}"
    )


@torch.no_grad()
def stored(
    teacher: Any, examples: Sequence[Any], view: View, temperature: float, size: int, level: str = "crf_marginal"
) -> dict[str, Tensor]:
    """A finished teacher's log posteriors ``[positions, labels]`` by example id, dropout off."""
    teacher.eval()
    found: dict[str, Tensor] = {}
    by_length = sorted(examples, key=lambda e: len(e.text))
    for start in range(0, len(by_length), size):
        chunk = [e.model_copy(update={"gold": None}) for e in by_length[start : start + size]]
        batch, output, _ = _forward(teacher, chunk, view)
        logs, mask = posteriors(teacher, batch, output, temperature, level)
        for example, log, own in zip(chunk, logs, mask, strict=True):
            found[example.id] = log[own].float().cpu()
    return found


def units(batch: Batch) -> float:
    """How many units the loss of a batch is the mean of: words, rows of questions, attributes or sub-tokens.

    Of a student with several heads those of the first; its losses are then joined nearly, not exactly, alike.
    """
    counted = {
        "units": lambda own: own.sum(),
        "tagging.units": lambda own: own.sum(),
        "pair.units": lambda own: own.sum(),
        "span.learn": lambda learn: learn.sum(),
        "ranking.targets": lambda targets: (targets >= 0).sum() or len(targets),
        "generative.labels": lambda labels: (labels >= 0).sum(),
    }
    for name, count in counted.items():
        if name in batch.tensors:
            return max(1.0, float(count(batch.tensors[name])))
    return float(len(batch.examples))


def _forward(student: Any, examples: Sequence[Any], view: View) -> tuple[Batch, Output, Counter[str]]:
    batch = student.collate(examples, view).to(next(student.parameters()).device)
    return batch, student(batch), Counter(batch.counts)


def _loss(output: Output) -> Tensor:
    if output.loss is None:
        raise ValueError("examples without gold cannot be learned from under this objective")
    return output.loss


def _detached(output: Output, name: str) -> dict[str, Tensor]:
    parts = {k: v.detach() for k, v in output.losses.items()}
    return parts or {name: _loss(output).detach()}
