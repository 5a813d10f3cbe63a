"""Products a second of a span student against a plain transformers loop doing the same work, on one CPU thread.

Both ask every attribute of OA-Mine's test titles with MiniLM, one row a question, 32 rows a batch, and give a span's
text or nothing. The plain loop is `AutoModelForQuestionAnswering` with the tokenizer's own batches, as the
question-answering guides have it; its weights are those of the backbone, without an adapter.

python benchmarks/extraction.py [RUN]     a trained student's run folder; an untrained one if left out
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from magister import students
from magister.models.names import resolve
from magister.students.unified import Unified, UnifiedConfig
from magister.tasks.readers import read

PRODUCTS, BATCH, ROUNDS = 200, 32, 5


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()  # on one thread, another job on the machine does not count
    work()
    return time.process_time() - start


def plain(examples: list[Any], questions: Mapping[str, Sequence[str]]) -> Callable[[], list[dict[str, str]]]:
    """The usual loop: questions and titles to the tokenizer, a batch to the model, the best span of each row."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    path = resolve("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForQuestionAnswering.from_pretrained(path).eval()
    asked = [(n, name, questions[name][0], e.text) for n, e in enumerate(examples) for name in e.asked]

    @torch.no_grad()
    def run() -> list[dict[str, str]]:
        found: list[dict[str, str]] = [{} for _ in examples]
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            coded = tokenizer([q for _, _, q, _ in part], [t for *_, t in part], truncation="only_second",
                              padding=True, return_offsets_mapping=True, return_tensors="pt")  # fmt: skip
            offsets = coded.pop("offset_mapping").tolist()
            said = model(**coded)
            for row, (n, name, _, text) in enumerate(part):
                first, last = int(said.start_logits[row].argmax()), int(said.end_logits[row].argmax())
                if first <= last and coded["token_type_ids"][row, first]:
                    found[n][name] = text[offsets[row][first][0] : offsets[row][last][1]]
        return found

    return run


def main() -> None:
    torch.set_num_threads(1)
    dataset = read("oamine")
    examples = [e.model_copy(update={"gold": None}) for e in dataset.split("test")[:PRODUCTS]]
    if len(sys.argv) > 1:
        student = students.load(sys.argv[1])
    else:
        student = Unified.create(UnifiedConfig(heads=("span",)), {"attributes": dataset.schema}).eval()
    rows = sum(len(e.asked) for e in examples)
    loop = plain(examples, student.config.queries)
    ours = lambda: student.predict(examples, batch_size=max(1, BATCH * len(examples) // rows))
    pairs = [(timed(loop), timed(ours)) for _ in range(ROUNDS + 1)][1:]
    theirs, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{len(examples)} products, {rows} questions, one thread, medians of {ROUNDS} rounds in turn")
    print(f"plain transformers loop {len(examples) / theirs:7.1f} products/s")
    print(f"student                 {len(examples) / own:7.1f} products/s   {theirs / own:.2f}x")


if __name__ == "__main__":
    main()
