"""distilabel's pipeline on the same endpoint: its own loading step and text generation task, as its guide shows them.

Its batches are as large as the concurrency, since a batch is what it asks at once. See ../generation.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration


def main(data: str, url: str, folder: str, concurrency: str) -> None:
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    before, started = os.times(), time.monotonic()
    with Pipeline("generation", cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(
            data=[{"system_prompt": row["system"], "instruction": row["user"]} for row in rows],
            batch_size=int(concurrency),
        )
        llm = OpenAILLM(
            model="stub", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 512, "temperature": 0.0}
        )
        ask = TextGeneration(llm=llm, input_batch_size=int(concurrency))
        load >> ask
    made = pipeline.run()["default"]["train"]
    seconds, after = time.monotonic() - started, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(json.dumps({"rows": sum(bool(t) for t in made["generation"]), "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
