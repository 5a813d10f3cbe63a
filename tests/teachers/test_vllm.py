"""The vLLM engine on tiny random LLMs: what it says, and what becomes of what it cannot be asked.

Runs where vLLM is installed (`make test-vllm`). The reference is the `transformers` engine: same weights, same
text, so the same greedy tokens.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from magister.models.packaged import ModelNotFound
from magister.tasks.images import Image
from magister.teachers import spec
from magister.teachers.engines.prefix import prefix_order

sys.path.insert(0, str(Path(__file__).parent))
import tiny_llms
from asking import SCHEMA, by_key, few_shot, picture, request, with_schema

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (make test-vllm)")


def made(model, **options):
    from magister.teachers.engines.vllm import VLLMTeacher

    return VLLMTeacher(str(model), dtype="float32", **options)


def reference(model):
    from magister.teachers.engines.transformers import TransformersTeacher

    return TransformersTeacher(str(model), dtype="float32", batch_size=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Llama without a chat template, on both engines."""
    folder = tiny_llms.text_llm(tmp_path_factory.mktemp("base"))
    teacher = made(folder)
    yield teacher, reference(folder)
    teacher.close()


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A vision LLM with a chat template, on both engines."""
    folder = tiny_llms.vision_llm(tmp_path_factory.mktemp("llava"))
    teacher = made(folder)
    yield teacher, reference(folder)
    teacher.close()


def said(reply):
    """What must be equal on both engines; half a letter at the end of a cut answer shows in one of them only."""
    usage = (reply.usage.prompt_tokens, reply.usage.completion_tokens)
    return reply.text.rstrip("\ufffd"), reply.finish, reply.failure, usage


POSTS = ["Anna", "a long walk in Oslo with Anna and all the others", "Bo!", "in Rome, people find places", "x y"]


@needs_vllm
def test_greedy_answers_are_those_of_transformers(base):
    teacher, other = base
    asked = [few_shot(p, max_tokens=6 + 3 * i) for i, p in enumerate(POSTS)]
    asked += [with_schema(few_shot(p, key=f"{p} as JSON", max_tokens=90)) for p in POSTS]
    here, there = by_key(teacher, asked), by_key(other, asked)
    assert {k: said(r) for k, r in here.items()} == {k: said(r) for k, r in there.items()}
    assert len({r.text for r in here.values()}) > 5
    assert {r.finish for r in here.values()} == {"stop", "length"}


@needs_vllm
def test_a_start_read_before_is_found_again(base):
    teacher, _ = base
    asked = [few_shot("Oslo and Rome", key=str(i), temperature=1.0, sample=i) for i in range(3)]
    by_key(teacher, asked)
    again = by_key(teacher, asked)
    assert all(r.usage.cached_tokens >= 32 for r in again.values())
    assert all(r.usage.cached_tokens < r.usage.prompt_tokens for r in again.values())


@needs_vllm
def test_samples_follow_their_own_seed(base):
    teacher, _ = base
    warm = [few_shot("Anna", temperature=1.0, sample=i, key=str(i)) for i in range(3)]
    together = by_key(teacher, [*warm, few_shot("Bo")])
    assert by_key(teacher, [warm[1]])["1"].text == together["1"].text
    assert len({together[str(i)].text for i in range(3)}) == 3
    other = warm[1].model_copy(update={"seed": 5})
    assert by_key(teacher, [other])["1"].text != together["1"].text


@needs_vllm
def test_constrained_samples_parse_whatever_the_weights_say(base):
    teacher, _ = base
    asked = [with_schema(few_shot("Anna", key=str(i), temperature=1.5, sample=i, max_tokens=180)) for i in range(20)]
    replies = by_key(teacher, asked).values()
    ended = [r for r in replies if r.finish == "stop"]
    assert len(ended) > 10
    for reply in ended:
        fits(json.loads(reply.text))
    assert not any("\n" in r.text or "  " in r.text.replace('"  ', "") for r in replies if r.finish == "length")


def fits(answer):
    assert list(answer) == ["entities"]
    assert len(answer["entities"]) <= SCHEMA["properties"]["entities"]["maxItems"]
    for entity in answer["entities"]:
        assert list(entity) == ["text", "type"]
        assert 1 <= len(entity["text"]) <= 8
        assert entity["type"] in ("PER", "LOC")


@needs_vllm
def test_stop_strings_end_an_answer_after_its_first_word(base, monkeypatch):
    from magister.teachers.engines import local

    teacher, _ = base
    whole = by_key(teacher, [few_shot("Anna", max_tokens=12)])["Anna"]
    stop = whole.text.strip()[3:5]
    monkeypatch.setattr(local, "demonstration_stops", lambda text: (stop,))
    replies = by_key(teacher, [few_shot("Anna", max_tokens=12), few_shot("Bo", max_tokens=3)])
    cut = replies["Anna"]
    assert (cut.finish, cut.text) == ("stop", whole.text.lstrip()[: whole.text.lstrip().index(stop)].rstrip())
    assert cut.usage.completion_tokens < whole.usage.completion_tokens
    assert not teacher._engine.has_unfinished_requests()


@needs_vllm
def test_bad_requests_fail_by_name_and_stop_no_other(base, monkeypatch):
    teacher, _ = base
    monkeypatch.setattr("magister.teachers.engines.vllm.IN_FLIGHT", 2)
    odd = few_shot("Bo", key="odd")
    odd = odd.model_copy(update={"prompt": odd.prompt.model_copy(update={"answer_schema": {"not": {"type": "null"}}})})
    asked = [
        *(request("long " * 400, key=f"long{i}") for i in range(3)),
        few_shot("Anna", key="whole", max_tokens=256),
        request("look ", picture("red"), key="seen"),
        odd,
        few_shot("Anna"),
        few_shot("Bo"),
    ]
    replies = by_key(teacher, asked)
    failures = {k: r.failure for k, r in replies.items()}
    long = dict.fromkeys(("long0", "long1", "long2", "whole"), "too_long")
    assert failures == {**long, "seen": "image", "odd": "rejected", "Anna": None, "Bo": None}
    assert "the context is 256" in replies["whole"].detail
    assert "not" in replies["odd"].detail


@needs_vllm
def test_replies_come_as_they_finish_and_the_rest_is_given_up(base):
    teacher, _ = base
    asked = [few_shot("Anna", key=str(n), temperature=1.0, sample=n, max_tokens=n) for n in (60, 2, 30)]
    replies = teacher.generate(asked)
    assert next(replies).key == "2"
    assert teacher._engine.has_unfinished_requests()
    replies.close()
    assert not teacher._engine.has_unfinished_requests()
    assert by_key(teacher, [few_shot("Bo")])["Bo"].failure is None


@needs_vllm
def test_a_loop_is_stopped_and_said(base, tmp_path):
    """Weights of zero say the first token for ever."""
    from safetensors.torch import load_file, save_file

    folder = Path(tiny_llms.text_llm(tmp_path / "zero"))
    weights = load_file(folder / "model.safetensors")
    save_file({k: v * 0 for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    teacher = made(folder, context=200)
    reply = by_key(teacher, [few_shot("Anna", max_tokens=100)])["Anna"]
    teacher.close()
    assert (reply.finish, reply.usage.completion_tokens) == ("stop", 32)
    assert "repeats itself" in reply.detail


@needs_vllm
def test_an_adapter_answers_as_its_merged_weights(base, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    teacher, _ = base
    folder = Path(tiny_llms.text_llm(tmp_path / "merged"))
    weights = load_file(folder / "model.safetensors")
    name, rank, alpha = "model.layers.0.self_attn.q_proj", 4, 8
    rows, columns = weights[f"{name}.weight"].shape
    torch.manual_seed(1)
    a, b = torch.randn(rank, columns), torch.randn(rows, rank) * 0.3
    weights[f"{name}.weight"] += alpha / rank * b @ a
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    learnt = {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
    save_file(learnt, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": ["q_proj"],
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))

    from magister.teachers.engines.vllm import VLLMTeacher

    worn = VLLMTeacher.of_spec(f"vllm:{teacher.local.path}?adapter={adapter}")
    worn.dtype = "float32"
    assert worn.identity() == {**teacher.identity(), "adapter": worn.identity()["adapter"]}
    asked = [few_shot(p, max_tokens=12) for p in POSTS]
    here, merged, plain = by_key(worn, asked), by_key(reference(folder), asked), by_key(teacher, asked)
    worn.close()
    assert {k: said(r) for k, r in here.items()} == {k: said(r) for k, r in merged.items()}
    assert {k: r.text for k, r in here.items()} != {k: r.text for k, r in plain.items()}


@needs_vllm
def test_pictures_are_seen_in_their_place(llava):
    teacher, other = llava
    red, blue = picture("red"), picture("blue")
    asked = [
        request("a ", red, " b", key="red"),
        request("a ", blue, " b", key="blue"),
        request("a ", red, " b ", blue, key="rb"),
        request("a ", blue, " b ", red, key="br"),
        request("a  b", key="none"),
        with_schema(request(red, key="JSON", max_tokens=120)),
    ]
    here, there = by_key(teacher, asked), by_key(other, asked)
    assert {k: said(r) for k, r in here.items()} == {k: said(r) for k, r in there.items()}
    assert len({r.text for r in here.values()}) == len(asked)


@needs_vllm
def test_a_picture_is_processed_once_by_its_content(llava, tmp_path, monkeypatch):
    from transformers import CLIPImageProcessor

    teacher, _ = llava
    data = picture("green").read()
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        path.write_bytes(data)
    seen = []
    plain = CLIPImageProcessor.preprocess

    def counted(self, images, *args, **options):
        seen.append(images)
        return plain(self, images, *args, **options)

    monkeypatch.setattr(CLIPImageProcessor, "preprocess", counted)
    asked = [request("tell ", Image(source=str(p)), f" {i}", key=str(i)) for i, p in enumerate(paths)]
    replies = by_key(teacher, asked)
    assert all(r.failure is None for r in replies.values())
    assert len(seen) == 1


@needs_vllm
def test_broken_pictures_placeholders_and_long_prompts_fail_alone(llava, tmp_path):
    teacher, _ = llava
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    replies = by_key(
        teacher,
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


@needs_vllm
def test_identity_tells_engine_and_weights(base):
    teacher, other = base
    assert teacher.identity() == {**other.identity(), "engine": "vllm"}
    with pytest.raises(ModelNotFound, match="nowhere"):
        made("nowhere")
    with pytest.raises(ModelNotFound, match="adapter"):
        made(teacher.local.path, adapter="/nowhere")


@needs_vllm
@pytest.mark.parametrize("query", ["rank=3", "adapter", "gpus=two", "context=1.5"])
def test_wrong_options_are_refused_with_those_there_are(query):
    with pytest.raises(ValueError, match="adapter=DIR"):
        spec.teacher(f"vllm:some/model?{query}")


def test_prompts_that_begin_alike_stand_side_by_side():
    red, blue = picture("red"), picture("blue")
    shown = [("r", red), ("b", blue)]
    asked = [request("Find. ", image, text, key=f"{name} {text}") for text in "ab" for name, image in shown]
    asked += [request("Ask. ", text, key=text) for text in "ba"]
    ordered = [r.key for r in prefix_order(asked)]
    assert sorted(ordered) == sorted(r.key for r in asked)
    assert ordered in (["a", "b", "b a", "b b", "r a", "r b"], ["a", "b", "r a", "r b", "b a", "b b"])
    same = [request("Ask. ", "a", key=str(i)) for i in range(3)]
    assert [r.key for r in prefix_order(same)] == ["0", "1", "2"]


@pytest.mark.parametrize("empty", ["vllm:", "vllm:?adapter=x"])
def test_a_spec_without_a_model_is_refused(empty):
    with pytest.raises(spec.UnknownTeacher):
        spec.teacher(empty)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_it_says_what_to_install():
    with pytest.raises(ModelNotFound, match=r"magister\[vllm\]"):
        spec.teacher("vllm:some/model")
