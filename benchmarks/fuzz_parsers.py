"""Mutated answers through the parser of every task: each must end in an answer or a named fault, none in a crash.

python benchmarks/fuzz_parsers.py [answers a task, default 10,000] [seed]
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, get_args

from magister.prompts.faces import face
from magister.prompts.faults import Fault, FaultName, InputFault, Parsed
from magister.prompts.parse import parse
from magister.tasks import TASKS

FAULTS = get_args(FaultName)
#: Answers that no JSON of ours would give: the line forms of all tasks, refusals, prose, other models' shapes.
OTHERS = (
    *("Kobe Bryant | PER\nLos Angeles | LOC", "Brand: Acme\nSleeve: Long", "member of", "none", "0", "2, 1, 3"),
    *("Kobe Bryant | member of | Lakers\nLakers | located | Los Angeles", "1. Los Angeles Lakers", "NIL", "[1]"),
    *('{"choice": 1}', '{"ranking": [2, 1]}', '{"relation": null}', '{"entities": {}}', '[["a", "located", "b"]]'),
    *('{"PER": ["Kobe Bryant"]}', "I'm sorry, but I can't help with that.", "The answer is 2.", '{"answer": "1"}'),
)
GARBAGE = (
    *("{", "}", "[", "]", '"', "'", ":", ",", "|", "\\", "\n", "\t", "```", "```json\n", "<think>", "</think>"),
    *("null", "None", "NaN", "true", "-1", "1e999", "99999999999999999999", "0", "\x00", "\ud800", "\u202e", "�"),
    *(
        "\ue000",
        "é",
        "e\u0301",
        "你好",
        "👩‍👩‍👧",
        "ﷺ",
        "\u200b",
        "\u2028",
        "“",
        "”",
        "<|im_end|>",
        "\\u0000",
        "\\ud83d",
    ),
)


def answers(key: str) -> list[tuple[Any, Any, list[str]]]:
    """(example, schema, texts): what a good teacher might write about each of the task's probes, in several dresses."""
    about = face(key)
    probes = about.probes()
    known = []
    for example, schema in probes:
        own = written(key, [(example, schema)]) or written(key, probes)
        texts = []
        for text in own:
            value = json.loads(text)
            texts += [
                text,
                json.dumps(value, indent=2),
                repr(value),
                f"```json\n{text}\n```",
                f"Sure! {text}\n\nPost: x",
            ]
        known.append((example, schema, texts))
    return known


def written(key: str, probes: Sequence[tuple[Any, Any]]) -> list[str]:
    """Gold answers as JSON; none of an example without gold, or whose gold is not among its candidates."""
    texts = []
    for example, schema in probes:
        with contextlib.suppress(InputFault):
            texts += [face(key).as_json(example.gold, example, schema)] if example.gold is not None else []
    return texts


# --- mutations ---

QUOTES = [str.maketrans(was, now) for was, now in (("\"'", "'\""), ('"', "'"), ('"', "”"), ('"', "`"), ("'", "’"))]
WRAPS = (
    ("[", "]"),
    ("{", "}"),
    ('{"x": ', "}"),
    ("<think>", "</think>"),
    ("</think>", ""),
    ("", "\n" * 300),
    ("1: ", "."),
)


def _cut(text: str, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(text) + 1)
    return start, min(len(text), start + draw.randrange(1, 40))


def truncate(text: str, draw: random.Random) -> str:
    return text[: draw.randrange(len(text) + 1)]


def duplicate(text: str, draw: random.Random) -> str:
    start, end = _cut(text, draw)
    return text[:end] + text[start:end] * draw.choice((1, 1, 2, 30)) + text[end:]


def drop(text: str, draw: random.Random) -> str:
    start, end = _cut(text, draw)
    return text[:start] + text[end:]


def swap_quotes(text: str, draw: random.Random) -> str:
    return text.translate(draw.choice(QUOTES))


def insert(text: str, draw: random.Random) -> str:
    start, _ = _cut(text, draw)
    return text[:start] + draw.choice(GARBAGE) * draw.choice((1, 1, 1, 3, 80)) + text[start:]


def substitute(text: str, draw: random.Random) -> str:
    letters = list(text)
    for _ in range(draw.randrange(1, 4)):
        if letters:
            letters[draw.randrange(len(letters))] = draw.choice(GARBAGE)
    return "".join(letters)


def recase(text: str, draw: random.Random) -> str:
    return draw.choice((text.upper(), text.lower(), text.title(), text.swapcase()))


def shuffle(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    draw.shuffle(words)
    return " ".join(words)


def wrap(text: str, draw: random.Random) -> str:
    before, after = draw.choice(WRAPS)
    return before * draw.choice((1, 1, 2, 2000)) + text + after


MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (
    *(truncate, duplicate, drop, swap_quotes, insert, substitute, recase, shuffle, wrap),
)


def mutants(key: str, number: int, seed: int = 0) -> list[tuple[Any, Any, str, str]]:
    """(example, schema, text, finish): that many answers, each changed one to four times, fixed by the seed."""
    draw, known = random.Random(f"{key} {seed}"), answers(key)
    found = []
    for _ in range(number):
        example, schema, texts = draw.choice(known)
        text = draw.choice(texts if draw.random() < 0.8 else OTHERS)
        for mutate in draw.choices(MUTATIONS, k=draw.choice((1, 1, 1, 2, 3, 4))):
            text = mutate(text, draw)
        found.append((example, schema, text, draw.choice(("stop", "stop", "length", "error"))))
    return found


# --- verdicts ---


def outcome(key: str, example: Any, schema: Any, text: str, finish: str) -> str:
    """``answer``, ``repaired`` or the fault's name; raises where the parser does, or gives what it must not."""
    found = parse(key, text, example, schema, finish)
    if isinstance(found, Fault):
        assert found.name in FAULTS, found
        found.detail.encode()
        return found.name
    assert isinstance(found, Parsed), found
    assert type(found.answer) is TASKS[key].Answer, found
    assert TASKS[key].Answer.model_validate_json(found.answer.model_dump_json()) == found.answer
    for place in places(found.answer):
        assert place.start is None or example.text[place.start : place.end] == place.text, place
    candidates = {c.id for c in getattr(example, "candidates", ())}
    assert set(getattr(found.answer, "ranking", ())) <= candidates, found
    return "repaired" if found.repaired else "answer"


def places(answer: Any) -> list[Any]:
    """Every mention of an answer."""
    links = [link.mention for link in getattr(answer, "links", ())]
    triples = [m for t in getattr(answer, "triples", ()) for m in (t.head, t.tail)]
    return [*getattr(answer, "entities", ()), *links, *triples]


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    columns = ("answer", "repaired", *FAULTS, "crash")
    print(f"{'task':<12}" + "".join(f"{c:>14}" for c in columns) + f"{'us each':>9}")
    crashed = 0
    for key in TASKS:
        counts: Counter[str] = Counter()
        cases, spent = mutants(key, number, seed), 0.0
        for case in cases:
            start = time.process_time()
            try:
                counts[outcome(key, *case)] += 1
            except Exception as error:
                counts["crash"] += 1
                if counts["crash"] <= 3:
                    print(f"{key}: {type(error).__name__}: {error} from {case[2][:200]!r}", file=sys.stderr)
            spent += time.process_time() - start
        crashed += counts["crash"]
        print(f"{key:<12}" + "".join(f"{counts[c]:>14,}" for c in columns) + f"{1e6 * spent / number:>9.0f}")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
