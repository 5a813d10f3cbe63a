"""Log-probabilities of what was said: against a plain forward pass, as endpoints give them, and in the ledger."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from magister.teachers.engines import wire
from magister.teachers.engines.decoding import Draw, Weigh
from magister.teachers.engines.limits import EndpointDown
from magister.teachers.engines.openai import OpenAITeacher
from magister.teachers.engines.probabilities import LEAST, spelling, token_texts
from magister.teachers.engines.transformers import TransformersTeacher
from magister.teachers.ledger.key import request_key
from magister.teachers.ledger.ledger import Ledger
from magister.teachers.ledger.row import Row, facts, of_line, to_line
from magister.teachers.teacher import Reply

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_llms
from asking import by_key, few_shot, request, with_schema
from stub_server import StubServer, completion, weighed

POSTS = ["Anna", "a long walk in Oslo with Anna and all the others", "Bo!", "x y"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return TransformersTeacher(tiny_llms.text_llm(tmp_path_factory.mktemp("llama")), dtype="float32", batch_size=4)


@torch.no_grad()
def plain_logprobs(teacher, asked, said: list[int]) -> list[float]:
    """One forward pass over prompt and answer, unpadded and without a cache."""
    prompt = [teacher.tokenizer.bos_token_id, *teacher.tokenizer(asked.prompt.messages[0].text)["input_ids"]]
    logits = teacher._model(torch.tensor([prompt + said])).logits[0].float().log_softmax(-1)
    return [float(logits[len(prompt) + n - 1, token]) for n, token in enumerate(said)]


@torch.no_grad()
def greedy(teacher, asked, count: int) -> list[int]:
    ids = [teacher.tokenizer.bos_token_id, *teacher.tokenizer(asked.prompt.messages[0].text)["input_ids"]]
    said: list[int] = []
    for _ in range(count):
        said.append(int(teacher._model(torch.tensor([ids + said])).logits[0, -1].argmax()))
    return said


def test_they_are_those_of_a_plain_forward_pass(llama):
    asked = [few_shot(p, max_tokens=8 + 3 * i, logprobs=True) for i, p in enumerate(POSTS)]
    replies = by_key(llama, asked)
    assert any(len(r.tokens) > 3 for r in replies.values())
    for one in asked:
        reply = replies[one.key]
        assert "".join(text for text, _ in reply.tokens) == reply.text
        said = greedy(llama, one, reply.usage.completion_tokens)
        expected = plain_logprobs(llama, one, said)
        # The text is trimmed and cut at a stop: find where it begins among the tokens.
        heads = [llama.tokenizer.decode(said[: n + 1]).strip() for n in range(len(said))]
        skipped = next((n for n, head in enumerate(heads) if head), 0)
        got = [logprob for _, logprob in reply.tokens]
        assert got == pytest.approx(expected[skipped : skipped + len(got)], abs=2e-4)


def test_without_them_the_answers_are_the_same_and_hold_none(llama):
    plain = by_key(llama, [few_shot(p) for p in POSTS])
    weighed_ = by_key(llama, [few_shot(p, logprobs=p != "Bo!") for p in POSTS])
    assert {k: r.text for k, r in plain.items()} == {k: r.text for k, r in weighed_.items()}
    assert not any(r.tokens for r in plain.values())
    assert not weighed_["Bo!"].tokens
    assert weighed_["Anna"].tokens


def test_a_sample_is_weighed_before_its_temperature_and_noise():
    torch.manual_seed(0)
    asked = [few_shot("a", temperature=2.0, sample=1, logprobs=True), few_shot("b", logprobs=True), few_shot("c")]
    weigh, twin = Weigh(asked, Draw(asked)), Draw(asked)
    steps = [torch.randn(3, 50) * 2 for _ in range(20)]
    steps[3][:, :40] = -torch.inf
    for n, scores in enumerate(steps):
        before = scores.clone()
        drawn = weigh(None, scores)
        assert torch.equal(drawn, twin(None, before))
        assert torch.equal(scores, before)
        for row in (0, 1):
            expected = before[row].log_softmax(-1)[drawn[row].argmax()]
            assert weigh.logprobs[row][n] == pytest.approx(float(expected), abs=1e-5)
    assert weigh.logprobs.keys() == {0, 1}
    greedy_row = [float(s[1].log_softmax(-1).max()) for s in steps]
    assert weigh.logprobs[1] == pytest.approx(greedy_row, abs=1e-5)


def test_held_to_a_schema_they_are_of_what_the_mask_leaves(llama):
    """The reference masks and chooses token by token, with the grammar's own bits."""
    if not llama.constrains:
        pytest.skip("llguidance is not installed")
    schema = {
        "type": "object",
        "properties": {"size": {"type": "string", "enum": ["abc", "bcd"]}, "name": {"type": "string", "maxLength": 5}},
        "required": ["size", "name"],
        "additionalProperties": False,
    }
    asked = with_schema(few_shot("Anna", max_tokens=80, logprobs=True), schema)
    reply = by_key(llama, [asked])["Anna"]
    assert "".join(text for text, _ in reply.tokens) == reply.text
    ids = [llama.tokenizer.bos_token_id, *llama.tokenizer(asked.prompt.messages[0].text)["input_ids"]]
    matcher, expected = llama._grammar().matcher(schema), []
    with torch.no_grad():
        for _ in reply.tokens:
            logits = llama._model(torch.tensor([ids])).logits[0, -1].float()
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            logits[~torch.from_numpy(bits[: len(logits)].astype(bool))] = -torch.inf
            token = int(logits.argmax())
            expected.append(float(logits.log_softmax(-1)[token]))
            matcher.consume_token(token)
            ids.append(token)
    got = [logprob for _, logprob in reply.tokens]
    assert got == pytest.approx(expected, abs=2e-4)
    assert 0.0 in got, "what the grammar forces is certain"
    assert min(got) < -0.01


WORDS = st.text(st.sampled_from("ab é√中🙂\u0301 \n"), max_size=12)


@given(WORDS, st.integers(1, 4))
def test_token_texts_join_to_the_text_whatever_the_bytes(text, width):
    raw = text.encode()
    pieces = [raw[at : at + width] for at in range(0, len(raw), width)]
    decode = lambda ids: b"".join(pieces[i] for i in ids).decode("utf-8", "replace")
    texts = token_texts(decode, range(len(pieces)), decode(range(len(pieces))))
    assert len(texts) == len(pieces)
    assert "".join(texts) == text
    # A character stands with the token that holds its last byte.
    ends = [len(text[:n].encode()) for n in range(1, len(text) + 1)]
    for n, piece in enumerate(texts):
        assert piece == "".join(c for c, end in zip(text, ends, strict=True) if width * n < end <= width * (n + 1))


@given(st.lists(st.tuples(st.sampled_from(["", "a", " b", "é", "\n"]), st.floats(-9, 0))), st.data())
def test_spelling_gives_the_tokens_of_a_part(said, data):
    texts, logprobs = [t for t, _ in said], [p for _, p in said]
    whole = "".join(texts)
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, len(whole)))
    found = spelling(texts, logprobs, whole[first:last])
    assert "".join(text for text, _ in found) == whole[first:last]
    assert {p for _, p in found} <= {round(p, 6) for p in logprobs}
    assert not found or found[-1][0]
    assert len([t for t, _ in found if t]) <= len([t for t in texts if t])


def test_spelling_by_hand():
    texts, logprobs = ["\n", "", "é", "a", "b c", ""], [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]
    assert spelling(texts, logprobs, "éab") == (("", -0.2), ("é", -0.3), ("a", -0.4), ("b", -0.5))
    assert spelling(texts, logprobs, "other") == ()
    assert spelling(["a"], [float("-inf")], "a") == (("a", LEAST),)
    assert spelling(["a"], [1e-7], "a") == (("a", 0.0),)


# --- endpoints ---


def ask(*texts: str, **options) -> tuple[dict[str, Reply], OpenAITeacher, list[dict]]:
    with StubServer() as server:
        teacher = OpenAITeacher("m", server.url)
        replies = list(teacher.generate(request(t, key=t, logprobs=True, **options) for t in texts))
        return {r.key: r for r in replies}, teacher, server.bodies


def test_an_endpoint_is_asked_and_gives_them():
    replies, _, bodies = ask("🙂🙂 中文")
    reply = replies["🙂🙂 中文"]
    assert bodies[0]["logprobs"] is True
    assert "".join(text for text, _ in reply.tokens) == reply.text == "echo: 🙂🙂 中文"
    assert [p for _, p in reply.tokens] == pytest.approx([-n / 10 for n in range(len(reply.tokens))])
    assert "" in [text for text, _ in reply.tokens], "a character of four bytes takes two tokens"


def test_it_is_not_asked_for_what_nobody_wants():
    with StubServer() as server:
        reply = next(OpenAITeacher("m", server.url).generate([request("a")]))
        assert "logprobs" not in server.bodies[0]
    assert reply.tokens == ()


def test_an_endpoint_that_refuses_says_what_to_switch_off():
    replies, _, bodies = ask("[no-logprobs]", "other")
    reply = replies["[no-logprobs]"]
    assert (reply.failure, reply.finish) == ("rejected", "error")
    assert "ask without logprobs" in reply.detail
    assert "logprobs are not supported" in reply.detail
    assert len([b for b in bodies if "[no-logprobs]" in json.dumps(b)]) == 1
    assert replies["other"].tokens


def test_an_endpoint_that_refuses_everything_says_it_too():
    with StubServer() as server:
        server.mood = "no-logprobs"
        asked = [request(str(n), key=str(n), logprobs=True) for n in range(40)]
        with pytest.raises(EndpointDown, match="ask without logprobs"):
            list(OpenAITeacher("m", server.url).generate(asked))


def test_an_endpoint_that_passes_over_them_is_counted():
    replies, teacher, _ = ask("[silent-logprobs]")
    assert replies["[silent-logprobs]"].text
    assert replies["[silent-logprobs]"].tokens == ()
    assert teacher.notes["answers_without_the_log-probabilities_asked_for"] == 1


@pytest.mark.parametrize(
    "odd",
    [
        None, [], "x", {"content": None}, {"content": [3]}, {"content": [{"token": "a"}]}, {"content": {"a": 1}},
        {"content": [{"token": "a", "logprob": "x"}]}, {"content": [{"token": "a", "logprob": float("nan")}]},
        {"content": [{"token": "a", "logprob": -1, "bytes": [300]}]}, {"content": [{"token": "other", "logprob": -1}]},
        {"content": [{"token": None, "logprob": -1}]}, {"content": [{"token": "a", "logprob": 10**400}]}, 7,
    ],
)  # fmt: skip
def test_odd_log_probabilities_are_none(odd):
    said = completion("abc")
    said["choices"][0]["logprobs"] = odd
    reply = wire.completion("k", said)
    assert (reply.text, reply.tokens) == ("abc", ())


def test_thoughts_and_end_marks_around_the_answer_are_left_out():
    said = completion("{é}")
    said["choices"][0]["logprobs"] = weighed("<think>ah</think>{é}<|im_end|>")
    reply = wire.completion("k", said)
    assert "".join(text for text, _ in reply.tokens) == "{é}"


def test_vllm_s_completion_is_read_like_any(llama):
    """The engine itself runs in `make test-vllm`; this is the form of its completions."""
    from magister.teachers.engines.vllm import _tokens

    ids = llama.tokenizer("Anna é中", add_special_tokens=False)["input_ids"] + [llama.tokenizer.eos_token_id]
    logprobs = [{token: SimpleNamespace(logprob=-n / 8, rank=1)} for n, token in enumerate(ids)]
    text = llama.tokenizer.decode(ids, skip_special_tokens=True)
    said = SimpleNamespace(token_ids=tuple(ids), logprobs=logprobs, text=text)
    found = _tokens(llama.tokenizer, said, text)
    assert "".join(t for t, _ in found) == text == "Anna é中"
    assert [p for _, p in found] == [-n / 8 for n in range(len(ids) - 1)]


# --- the ledger ---

REPLY = Reply(key="0" * 64, text="é中", tokens=(("é", -0.25), ("", -1.0), ("中", LEAST)))


def test_the_key_of_a_request_without_them_is_what_it_was():
    plain = few_shot("Anna")
    assert request_key(plain, {"model": "m"}) == "5c1581ed98aedd4f9864a252c13dab4c014c6574d8b8cb10c6e59f9e575ff93b"
    asked = plain.model_copy(update={"logprobs": True})
    assert request_key(asked, {"model": "m"}) != request_key(plain, {"model": "m"})


def test_a_row_keeps_them_and_a_row_without_is_as_before(tmp_path):
    asked = few_shot("Anna", logprobs=True).model_copy(update={"key": "0" * 64})
    row = Row.of(asked, REPLY, "fake", {})
    line = to_line(row)
    assert of_line(line) == row
    assert of_line(line).tokens == REPLY.tokens
    assert facts(line) is not None
    bare = Row.of(asked, REPLY.model_copy(update={"tokens": ()}), "fake", {})
    assert b"tokens" not in to_line(bare).replace(b"_tokens", b"")
    assert of_line(to_line(bare)) == bare
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append(row)
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        assert ledger.row("0" * 64).tokens == REPLY.tokens
