"""The in-process teacher on tiny random LLMs: one request's answer is its own, whoever shares the batch."""

from __future__ import annotations

import json
import logging
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from magister.models.packaged import ModelNotFound
from magister.tasks.images import Image
from magister.teachers.engines import local
from magister.teachers.engines import transformers as engine
from magister.teachers.engines.decoding import Draw
from magister.teachers.engines.transformers import TransformersTeacher

sys.path.insert(0, str(Path(__file__).parent))
import tiny_llms
from asking import by_key, few_shot, picture, request, task_schemas, with_schema

POSTS = [
    "Anna",
    "a long walk in Oslo with Anna and all the others",
    "Bo!",
    "in Rome, people find places",
    "x y",
    "Oslo",
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return TransformersTeacher(tiny_llms.text_llm(tmp_path_factory.mktemp("llama")), dtype="float32", batch_size=4)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    folder = tiny_llms.text_llm(tmp_path_factory.mktemp("gemma"), sliding=24)
    return TransformersTeacher(folder, dtype="float32", batch_size=8)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return TransformersTeacher(tiny_llms.vision_llm(tmp_path_factory.mktemp("llava")), dtype="float32", batch_size=4)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return TransformersTeacher(tiny_llms.qwen2_vl(tmp_path_factory.mktemp("qwen")), dtype="float32", batch_size=4)


@pytest.fixture
def request_of_pytest(request):
    return request


def facts(reply):
    return (reply.text, reply.finish, reply.failure, reply.usage)


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_batched_answers_equal_single_answers(name, request_of_pytest, monkeypatch):
    teacher = request_of_pytest.getfixturevalue(name)
    asked = [few_shot(p, max_tokens=6 + i) for i, p in enumerate(POSTS)]
    used = []
    plain = engine.shared_prefix_cache
    monkeypatch.setattr(engine, "shared_prefix_cache", lambda *a: used.append(plain(*a)) or used[-1])
    together = by_key(teacher, asked)
    assert any(cache is not None for cache in used), "the shared start was not used"
    for one in asked:
        assert facts(by_key(teacher, [one])[one.key]) == facts(together[one.key])
    assert all(r.failure is None for r in together.values())
    assert len({r.text for r in together.values()}) > 1


def test_the_answer_is_the_one_that_the_model_gives_by_itself(llama):
    asked = few_shot("Anna", max_tokens=8)
    reply = by_key(llama, [asked])["Anna"]
    ids = torch.tensor([[llama.tokenizer.bos_token_id, *llama.tokenizer(asked.prompt.messages[0].text)["input_ids"]]])
    assert reply.usage.prompt_tokens == ids.shape[1]
    for _ in range(reply.usage.completion_tokens):
        best = llama._model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, best.view(1, 1)], 1)
    said = llama.tokenizer.decode(ids[0, reply.usage.prompt_tokens :], skip_special_tokens=True)
    assert reply.text == said.lstrip().split("\n\n")[0].split("\nText:")[0].rstrip()


def test_limits_hold_for_each_request(llama):
    replies = by_key(llama, [few_shot("Anna", max_tokens=3, key="3"), few_shot("Anna", max_tokens=9, key="9")])
    assert replies["3"].usage.completion_tokens <= 3 < replies["9"].usage.completion_tokens
    assert replies["3"].finish == "length"


def test_stop_strings_end_a_row_and_its_text(llama, monkeypatch):
    whole = by_key(llama, [few_shot("Anna", max_tokens=12)])["Anna"]
    stop = whole.text[len(whole.text) // 2 :][:2]
    monkeypatch.setattr(local, "demonstration_stops", lambda text: (stop,))
    cut = by_key(llama, [few_shot("Anna", max_tokens=12), few_shot("Bo", max_tokens=12)])["Anna"]
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)].strip()
    assert cut.usage.completion_tokens < whole.usage.completion_tokens


def test_the_prompts_own_stop_strings_hold_in_a_chat(tmp_path):
    teacher = TransformersTeacher(tiny_llms.text_llm(tmp_path, chat=True), dtype="float32")
    whole = by_key(teacher, [request("hi")])["k"]
    stop = whole.text[len(whole.text) // 2 :][:2]
    cut = by_key(teacher, [request("hi", stop=(stop,))])["k"]
    assert (cut.finish, cut.text) == ("stop", whole.text[: whole.text.index(stop)].strip())


def test_a_prompt_longer_than_the_context_fails_alone(llama):
    replies = by_key(llama, [few_shot("Anna"), request("long " * 400, key="long"), few_shot("Bo")])
    assert replies["long"].failure == "too_long"
    assert "256" in replies["long"].detail
    assert replies["Anna"].failure is replies["Bo"].failure is None


def test_samples_follow_their_own_seed_whatever_the_batch(llama):
    warm = [few_shot("Anna", temperature=1.0, sample=i, key=str(i)) for i in range(3)]
    together = by_key(llama, [*warm, few_shot("Bo")])
    again = by_key(llama, [warm[1]])
    assert together["1"].text == again["1"].text
    assert len({together[str(i)].text for i in range(3)}) == 3
    other = by_key(llama, [warm[1].model_copy(update={"seed": 5})])
    assert other["1"].text != again["1"].text
    assert facts(together["Bo"]) == facts(by_key(llama, [few_shot("Bo")])["Bo"])


def test_sampling_draws_from_the_softmax_at_the_temperature():
    scores, temperature, n = torch.tensor([[0.0, 1.0, 2.0]]), 0.5, 4000
    draw = Draw([few_shot("x", temperature=temperature, seed=3)])
    counts = torch.bincount(torch.cat([draw(None, scores).argmax(-1) for _ in range(n)]), minlength=3) / n
    expected = (scores[0] / temperature).softmax(-1)
    assert all(
        abs(a - b) < 4 * math.sqrt(b * (1 - b) / n) for a, b in zip(counts.tolist(), expected.tolist(), strict=True)
    )


def test_a_failing_batch_is_asked_one_by_one(llama, monkeypatch):
    expected = by_key(llama, [few_shot(p) for p in POSTS[:3]])
    plain = llama._model.generate

    def short_of_memory(**inputs):
        if inputs["input_ids"].shape[0] > 1:
            raise torch.OutOfMemoryError("no room")
        if inputs["input_ids"].shape[1] == width:
            raise RuntimeError("this one never works")
        return plain(**inputs)

    width = expected["Bo!"].usage.prompt_tokens
    monkeypatch.setattr(llama._model, "generate", short_of_memory)
    replies = by_key(llama, [few_shot(p) for p in POSTS[:3]])
    assert replies["Bo!"].failure == "transport"
    assert "never works" in replies["Bo!"].detail
    assert facts(replies["Anna"]) == facts(expected["Anna"])


def test_a_text_llm_refuses_pictures(llama):
    assert not llama.sees_images
    reply = by_key(llama, [request("look ", picture("red"))])["k"]
    assert (reply.failure, "cannot see" in reply.detail) == ("image", True)


def test_a_chat_template_is_used(tmp_path):
    teacher = TransformersTeacher(tiny_llms.text_llm(tmp_path, chat=True), dtype="float32")
    reply = by_key(teacher, [request("hi")])["k"]
    expected = teacher.tokenizer("<|user|>hi<|end|><|assistant|>", add_special_tokens=False)["input_ids"]
    assert reply.usage.prompt_tokens == len(expected)


@pytest.mark.parametrize(("name", "patches"), [("llava", 16), ("qwen", 4)])
def test_pictures_change_the_answer_and_keep_their_order(name, patches, request_of_pytest):
    teacher = request_of_pytest.getfixturevalue(name)
    assert teacher.sees_images
    red, blue = picture("red"), picture("blue")
    asked = {
        "red": request("a ", red, " b", key="red"),
        "blue": request("a ", blue, " b", key="blue"),
        "rb": request("a ", red, " b ", blue, key="rb"),
        "br": request("a ", blue, " b ", red, key="br"),
        "front": request(red, "a  b", key="front"),
        "none": request("a  b", key="none"),
    }
    together = by_key(teacher, asked.values())
    assert all(r.failure is None for r in together.values())
    assert len({r.text for r in together.values()}) == len(together)
    assert together["red"].usage.prompt_tokens - together["none"].usage.prompt_tokens >= patches
    for key, one in asked.items():
        assert facts(by_key(teacher, [one])[key]) == facts(together[key])


def test_the_processor_gets_text_and_pictures_where_the_prompt_has_them(llava):
    batch = [llava._prepare(request("a ", picture("red"), " b ", picture("blue"), " c"))]
    assert batch[0].text == "<|user|>a <image> b <image> c<|end|><|assistant|>"
    inputs, _, _ = llava._with_images(batch)
    assert inputs["pixel_values"].shape == (2, 3, 32, 32)
    assert inputs["pixel_values"][0, 0].mean() > inputs["pixel_values"][1, 0].mean(), "the red one comes first"


def test_broken_pictures_placeholders_and_long_prompts_fail_alone(llava, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    replies = by_key(
        llava,
        [
            request("a ", picture("red"), key="good"),
            request("a ", Image(source=str(bad), example="e3"), key="bad"),
            request("a <image> ", picture("red"), key="placeholder"),
            request("a " * 118, picture("red"), picture("red"), key="long"),
        ],
    )
    assert replies["good"].failure is None
    assert (replies["bad"].failure, "e3" in replies["bad"].detail) == ("image", True)
    assert (replies["placeholder"].failure, "<image>" in replies["placeholder"].detail) == ("image", True)
    assert replies["long"].failure == "too_long"
    assert facts(replies["good"]) == facts(by_key(llava, [request("a ", picture("red"), key="good")])["good"])


def test_a_vision_llm_without_a_chat_template_reads_plain_text(tmp_path):
    teacher = TransformersTeacher(tiny_llms.vision_llm(tmp_path, chat=False), dtype="float32")
    replies = by_key(teacher, [request("a ", picture("red"), " b:", key="1"), request("a b:", key="2")])
    assert [replies[k].failure for k in "12"] == [None, None]
    assert replies["1"].usage.prompt_tokens == replies["2"].usage.prompt_tokens + 17  # 16 patches and a blank


def test_identity_follows_the_files_and_not_their_place(tmp_path):
    here = tmp_path / "one" / "model"
    tiny_llms.text_llm(here)
    there = tmp_path / "two" / "model"
    there.parent.mkdir()
    one = TransformersTeacher(str(here)).identity()
    here.rename(there)
    assert TransformersTeacher(str(there)).identity() == one
    weights = bytearray((there / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (there / "model.safetensors").write_bytes(weights)
    assert TransformersTeacher(str(there)).identity() != one


def fits(answer):
    """By hand, what `SCHEMA` says."""
    assert list(answer) == ["entities"]
    assert len(answer["entities"]) <= 3
    for entity in answer["entities"]:
        assert list(entity) == ["text", "type"]
        assert 1 <= len(entity["text"]) <= 8
        assert entity["type"] in ("PER", "LOC")


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_constrained_answers_parse_whatever_the_weights_say(name, request_of_pytest):
    teacher = request_of_pytest.getfixturevalue(name)
    asked = [
        few_shot(p, key=f"{p} {n}", temperature=1.2 * n, sample=n, max_tokens=180) for p in POSTS for n in (0, 1, 2)
    ]
    free = by_key(teacher, asked)
    held = by_key(teacher, [with_schema(a) for a in asked])
    ended = [r for r in held.values() if r.finish == "stop"]
    assert len(ended) > len(held) / 2
    for reply in ended:
        fits(json.loads(reply.text))
        assert json.dumps(json.loads(reply.text), ensure_ascii=False) == reply.text, "only the usual white space"
    assert not any(r.text.startswith("{") for r in free.values()), "nothing but the constraint makes it JSON"


def test_a_row_with_a_schema_leaves_its_neighbours_alone(llama):
    asked = [few_shot("Anna"), with_schema(few_shot("Bo", max_tokens=100)), few_shot("Oslo", max_tokens=30)]
    together = by_key(llama, asked)
    for one in asked:
        assert facts(by_key(llama, [one])[one.key]) == facts(together[one.key])
    fits(json.loads(together["Bo"].text))


def test_pictures_and_schemas_go_together(llava):
    reply = by_key(llava, [with_schema(request("a ", picture("red"), max_tokens=150))])["k"]
    fits(json.loads(reply.text))


def test_the_stop_strings_of_plain_text_do_not_cut_a_schemas_answer(llama, monkeypatch):
    monkeypatch.setattr(local, "demonstration_stops", lambda text: ('"',))
    fits(json.loads(by_key(llama, [with_schema(few_shot("Bo", max_tokens=100))])["Bo"].text))


def test_a_schema_is_compiled_once(llama, monkeypatch):
    import llguidance

    by_key(llama, [with_schema(few_shot("Bo"))])
    compiled = []
    plain = llguidance.LLMatcher.grammar_from_json_schema
    fake = type("M", (), {"grammar_from_json_schema": lambda *a, **k: compiled.append(a) or plain(*a, **k)})
    monkeypatch.setattr(llguidance, "LLMatcher", fake)
    by_key(llama, [with_schema(few_shot(p)) for p in POSTS])
    assert not compiled


def test_a_schema_that_cannot_be_enforced_is_rejected_alone(llama):
    odd = with_schema(few_shot("Bo"), {"type": "object", "not": {"required": ["a"]}})
    replies = by_key(llama, [odd, few_shot("Anna")])
    assert (replies["Bo"].failure, '"not"' in replies["Bo"].detail) == ("rejected", True)
    assert replies["Anna"].failure is None


def test_without_llguidance_answers_are_free_and_that_is_said(tmp_path, monkeypatch, caplog, llama):
    monkeypatch.setattr("magister.teachers.engines.constraints.available", lambda: False)
    teacher = TransformersTeacher(llama.local.path, dtype="float32")
    with caplog.at_level(logging.WARNING):
        replies = by_key(teacher, [with_schema(few_shot("Bo")), with_schema(few_shot("Anna")), few_shot("Oslo")])
    assert facts(replies["Bo"]) == facts(by_key(llama, [few_shot("Bo")])["Bo"])
    assert "2 answers were not held to their JSON schema" in caplog.text
    assert llama.identity() == {**teacher.identity(), "schemas": "llguidance"}


@pytest.mark.parametrize("task", task_schemas())
def test_the_tasks_own_schemas_can_be_enforced(llama, task):
    llama._load()
    matcher = llama._grammar().matcher(task_schemas()[task])
    generator = random.Random(0)
    said: list[int] = []
    while not matcher.is_stopped() and len(said) < 4000:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        said.append(generator.choice(np.flatnonzero(bits).tolist()))
        assert matcher.consume_token(said[-1])
    assert matcher.is_stopped(), "a bounded schema ends"
    json.loads(llama.tokenizer.decode(said, skip_special_tokens=True))


def test_a_wrong_path_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match="nowhere"):
        TransformersTeacher(str(tmp_path / "nowhere"))
