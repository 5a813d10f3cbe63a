"""CoT prompt distillation: what the text view sees and does not, its prompt, its switches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from magister.distill import objectives
from magister.distill.recipe import check
from magister.students.ner.cot_prompt import CoTPrompt, CoTPromptConfig
from magister.students.student import View
from magister.students.system import UnsupportedView

TEXT, FULL = View(prompt=True), View(context=("caption", "knowledge"))


@pytest.fixture
def schemas(ner_schema: Any, relation_schema: Any) -> dict[str, Any]:
    return {"ner": ner_schema, "relations": relation_schema}


def build(backbone: str, schemas: dict[str, Any], task: str = "ner", **settings: Any) -> CoTPrompt:
    torch.manual_seed(0)
    settings = {"lora_rank": 4, "dropout": 0.0, "prompt_length": 3} | settings
    return CoTPrompt.create(CoTPromptConfig(backbone=backbone, **settings), {task: schemas[task]}).eval()


def scores(student: CoTPrompt, examples: Any, view: View) -> torch.Tensor:
    with torch.no_grad():
        found = student(student.collate(examples, view)).scores
    return found["emissions" if "emissions" in found else "pair"]


def told(examples: Any, **texts: str) -> list[Any]:
    return [e.model_copy(update={"context": texts}) for e in examples]


@pytest.mark.parametrize("task", ["ner", "relations"])
def test_the_text_view_depends_on_neither_caption_nor_knowledge(
    task: str, tiny_bert: str, schemas: Any, posts: Any, pairs: Any
) -> None:
    some = posts if task == "ner" else pairs
    student = build(tiny_bert, schemas, task)
    one, other = told(some, caption="blue shirt", knowledge="names"), told(some, caption="red", knowledge="see Toronto")
    assert torch.equal(scores(student, one, TEXT), scores(student, other, TEXT))
    assert torch.equal(scores(student, one, TEXT), scores(student, told(some), TEXT))
    assert not torch.allclose(scores(student, one, FULL), scores(student, other, FULL))


def test_one_checkpoint_reads_what_there_is(tiny_bert: str, schemas: Any, posts: Any) -> None:
    """A side text that is not there is left out, not read as an empty one."""
    student = build(tiny_bert, schemas)
    caption = told(posts, caption="blue shirt")
    assert torch.equal(scores(student, caption, FULL), scores(student, caption, View(context=("caption",))))
    assert torch.equal(scores(student, told(posts), FULL), scores(student, posts, View()))


def test_the_explanations_are_cut_before_the_caption_and_the_text_never(
    tiny_bert: str, schemas: Any, posts: Any
) -> None:
    student = build(tiny_bert, schemas, context_tokens=6)
    whole = told(posts, caption="blue cotton shirt", knowledge="text in the text in the text")
    less = told(posts, caption="blue cotton shirt", knowledge="text and more of it")
    assert torch.equal(scores(student, whole, FULL), scores(student, less, FULL))
    batch = student.collate(whole, FULL)
    assert batch.counts["context_tokens_cut"] > 0
    assert batch.tensors["word_mask"].sum(1).tolist() == [len(e.words) for e in posts]


def test_the_prompt_stands_before_the_text_at_no_position(tiny_bert: str, schemas: Any, posts: Any) -> None:
    """As the backbone says it when the row is put together by hand: the words' positions stay."""
    student = build(tiny_bert, schemas, word_shapes=True)
    batch = student.collate(posts[:1], TEXT)
    rows, encoder = batch.tensors, student.encoder
    with torch.no_grad():
        words = encoder.embeddings(rows["input_ids"])
        prompt = student.prompt(words, rows["text"])
        length = words.shape[1]
        states = encoder.body(
            inputs_embeds=torch.cat([prompt, words + student.shapes(rows["shapes"])], 1),
            attention_mask=torch.ones(1, 3 + length),
            token_type_ids=torch.zeros(1, 3 + length).long(),
            position_ids=torch.tensor([[0, 0, 0, *range(length)]]),
        ).last_hidden_state[:, 3:]
        found = student.fuse(rows, None).states
    torch.testing.assert_close(found, states, rtol=1e-4, atol=1e-5)


def test_a_static_prompt_is_the_same_before_every_text(tiny_bert: str, schemas: Any, posts: Any) -> None:
    def prompts(student: CoTPrompt) -> torch.Tensor:
        rows = student.collate(posts, TEXT).tensors
        words = student.encoder.embeddings(rows["input_ids"])
        found = student.prompt(words, rows["text"]).detach()
        return found / found.square().mean((1, 2), keepdim=True).sqrt()  # its size follows the words'

    static, conditional = (build(tiny_bert, schemas, prompt_conditional=on) for on in (False, True))
    torch.testing.assert_close(prompts(static)[0], prompts(static)[1])
    assert not torch.allclose(prompts(conditional)[0], prompts(conditional)[1], atol=1e-3)
    assert not any("attention" in name for name, _ in static.prompt.named_parameters())


def test_without_a_prompt_there_is_no_such_view(tiny_bert: str, schemas: Any, posts: Any) -> None:
    student = build(tiny_bert, schemas, prompt_length=0)
    with pytest.raises(UnsupportedView, match="no prompt"):
        student.predict(posts, TEXT)
    assert len(student.predict(posts, View())) == len(posts)


@pytest.mark.parametrize("task", ["ner", "relations"])
@pytest.mark.parametrize("direction", ["teacher_detached", "both"])
def test_the_divergence_alone_moves_the_prompt_and_trains_both_tasks(
    task: str, direction: str, tiny_bert: str, schemas: Any, posts: Any, pairs: Any
) -> None:
    some = [e.model_copy(update={"gold": None}) for e in (posts if task == "ner" else pairs)]
    student = build(tiny_bert, schemas, task)
    recipe = check(
        {"task": task, "data": "d", "student": "cot_prompt", "objective": "prompt_distillation", "knowledge": "k"}
        | {"kd_target": "both", "kd_direction": direction, "backbone": tiny_bert, "prompt_length": 3}
    )
    loss = objectives.compute(student, some, recipe, beta=1.0)
    assert set(loss.parts) == {"divergence", "hidden"}
    loss.total.backward()
    assert student.prompt is not None
    assert student.prompt.vectors.grad is not None
    assert student.prompt.vectors.grad.any()


def test_a_pair_is_trusted_by_the_probability_of_its_relation(tiny_bert: str, schemas: Any, pairs: Any) -> None:
    student = build(tiny_bert, schemas, "relations")
    some = [*pairs, pairs[0].model_copy(update={"gold": None})]
    batch = student.collate(some, FULL)
    output = student(batch)
    labels = [student.head.labels.index(e.gold.relation) for e in pairs]
    sure = output.scores["pair"].softmax(-1)[range(len(pairs)), labels]
    found = objectives.trusted(student, batch, output)
    torch.testing.assert_close(found[:-1], sure.detach())
    assert found[-1] == 1
