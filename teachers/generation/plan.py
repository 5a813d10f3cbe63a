"""What is asked: every template of every example rendered and keyed, before anything is spent.

What cannot be asked (a broken picture, an example that lacks what a template needs) becomes an item with a
fault, and the others go on. Only a template that fails for every example is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from rapidfuzz import fuzz, process

from ...prompts.faces import face
from ...prompts.library import Template
from ...prompts.render import render
from ...tasks.images import Image, ImageFault
from ...tasks.task import DataFault, Task
from ..knowledge.probe import without_candidate_pictures, without_image, without_pictures
from ..ledger.key import request_key
from ..teacher import Request, Teacher

if TYPE_CHECKING:
    from ..describe import Description

#: A picture in words, for a teacher that cannot see; `describe.describe` is one.
Describe = Callable[[Image], "Description"]

#: Picks the examples with gold that are shown with an example, the most similar last (next to the question).
Pick = Callable[[Any], Sequence[Any]]

#: A training example this similar (0 to 100, words in any order) to the one asked would give its answer away.
TOO_SIMILAR = 90.0


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; ``max_tokens`` stands in for the templates' own limits, ``logprobs`` see `Request`."""

    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    logprobs: bool = False


@dataclass(frozen=True)
class Item:
    """One row of the corpus to be: what is asked of which example, or why it cannot be asked.

    Attributes:
        example: as the teacher is shown it: if it cannot see, without pictures and with their words in the
            context.
        about: the entity or attribute that the template was given, if it takes one.
        request: the keyed request, or None.
        fault: the exception that stands in its place.
    """

    example: Any
    template: Template
    about: str | None
    sample: int
    request: Request | None = None
    fault: Exception | None = None

    @property
    def reason(self) -> str:
        """A fault's name: ``image`` or ``render``."""
        return "image" if isinstance(self.fault, ImageFault) else "render"


def plan(
    task: Task,
    examples: Sequence[Any],
    schema: Any,
    teacher: Teacher,
    templates: Sequence[Template],
    sampling: Sampling,
    demonstrations: Sequence[Any] | Pick = (),
    shots: int = 6,
    describe: Describe | None = None,
    blind: bool = False,
    refuse: bool = True,
) -> tuple[list[Item], dict[str, int]]:
    """Every item in the order of the corpus (examples, templates, samples), and counted remarks.

    Args:
        demonstrations: examples with gold, of which the ``shots`` most similar are shown; or what picks them (then
            ``shots`` has no say).
        blind: the examples were robbed of their pictures for the image probe: so are the demonstrations, the same ones
            as otherwise, and a template that needs pictures may fail for every example.
        refuse: whether a template that fails for every example is refused (`refuse_hopeless`).

    Raises:
        DataFault: a template fails for every example; the first of its faults is the cause.
    """
    notes: Counter[str] = Counter()
    show = _shown(teacher, describe, notes)
    pool = Pool(demonstrations, shots, _demonstrated(show, notes, blind))
    image_hash = cache(Image.sha256)
    identity = teacher.identity()

    def item(example: Any, template: Template, about: Any, sample: int) -> Item:
        made = Item(example, template, getattr(about, "text", about), sample)
        try:
            seen = show(example)
            extra: dict[str, Any] = {subject: about} if (subject := _subject(template)) else {}
            if "demonstrations" in template.takes and demonstrations:
                extra["demonstrations"] = [(d, d.gold) for d in pool.nearest(example)]
            if "wording" in template.takes:
                extra["wording"] = sample
            prompt = render(template, task, seen, schema, **extra)
            if sampling.max_tokens is not None:
                prompt = prompt.model_copy(update={"max_tokens": sampling.max_tokens})
            request = Request(
                example=example.id,
                prompt=prompt,
                sample=sample,
                temperature=sampling.temperature,
                seed=sampling.seed,
                logprobs=sampling.logprobs,
            )
            key = request_key(request, identity, image_hash)
            return replace(made, example=seen, request=request.model_copy(update={"key": key}))
        except Exception as error:  # whatever is wrong with one example must not stop the others
            return replace(made, fault=error)

    items = []
    for example in examples:
        for template in templates:
            subjects = face(task).subjects(template.front.needs, example)
            notes["examples_without_what_a_template_asks_about"] += not subjects
            items += [item(example, template, s, n) for s in subjects for n in range(sampling.samples)]
    if refuse and not blind:
        refuse_hopeless(items)
    notes["demonstrations_left_out_for_their_pictures"] += len(pool.unreadable)
    return items, {remark: number for remark, number in notes.items() if number}


def asking_order(items: Iterable[Item]) -> list[Request]:
    """The distinct requests, template by template, and in each those with the same picture side by side.

    What begins alike is asked in succession, so that an engine that keeps computed prefixes reads them once.
    Two items that ask the very same share one request (with the larger token limit).
    """
    requests: dict[str, Request] = {}
    for item in items:
        if item.request is not None:
            known = requests.get(item.request.key)
            if known is None or known.prompt.max_tokens < item.request.prompt.max_tokens:
                requests[item.request.key] = item.request
    first: dict[tuple[str, ...], int] = {}

    def place(request: Request) -> tuple[int, int]:
        prompt = request.prompt
        pictures = tuple(image.source for message in prompt.messages for image in message.images)
        template = first.setdefault((prompt.template,), len(first))
        return template, first.setdefault(("", *pictures), len(first)) if pictures else -1

    places = {key: place(request) for key, request in requests.items()}
    return sorted(requests.values(), key=lambda request: places[request.key])


class Pool:
    """Training examples out of which the most similar to an example are shown with it.

    Args:
        examples: with gold; a `DataFault` names one that has none. Or what picks them (their ids tell them apart).
        shots: how many are shown; of those that were picked all.
        shown: makes of one what is shown of it; one for which it raises an `ImageFault` is left out.

    Attributes:
        unreadable: ids of those that were left out so far, because a picture of theirs cannot be read.
    """

    def __init__(
        self, examples: Sequence[Any] | Pick, shots: int, shown: Callable[[Any], Any] = lambda example: example
    ) -> None:
        self._pick = examples if callable(examples) else None
        self.examples, self.shots = () if callable(examples) else tuple(examples), shots
        _need_gold(self.examples)
        self._texts = [_folded(example.text) for example in self.examples]
        self._chosen: dict[str, list[Any]] = {}
        self._shown, self._views = shown, dict[int | str, Any]()
        self.unreadable: set[str] = set()

    def nearest(self, example: Any) -> list[Any]:
        """The most similar ones, the most similar last (next to the question); equals in the pool's order.

        Similarity is rapidfuzz's ``token_sort_ratio`` of the lower-cased texts. Never the example itself,
        nor one that is `TOO_SIMILAR`, nor two of the same text.
        """
        if example.id not in self._chosen:
            choose = self._choose if self._pick is None else self._picked
            self._chosen[example.id] = choose(example) if self.examples or self._pick else []
        return self._chosen[example.id]

    def _picked(self, example: Any) -> list[Any]:
        others = self._pick(example) if self._pick else ()
        _need_gold(others)
        return [view for other in others if (view := self._view(other.id, other)) is not None]

    def _choose(self, example: Any) -> list[Any]:
        likeness = process.cdist([_folded(example.text)], self._texts, scorer=fuzz.token_sort_ratio, dtype=np.float32)[
            0
        ]
        chosen: list[Any] = []
        texts: set[str] = set()
        for place in np.argsort(-likeness, kind="stable"):
            if len(chosen) == self.shots:
                break
            other = self.examples[place]
            if likeness[place] < TOO_SIMILAR and other.id != example.id and self._texts[place] not in texts:
                view = self._view(int(place), other)
                if view is not None:
                    chosen.append(view)
                    texts.add(self._texts[place])
        return chosen[::-1]

    def _view(self, place: int | str, other: Any) -> Any | None:
        if place not in self._views:
            try:
                self._views[place] = self._shown(other)
            except ImageFault:
                self._views[place] = None
                self.unreadable.add(other.id)
        return self._views[place]


def _need_gold(demonstrations: Sequence[Any]) -> None:
    for example in demonstrations:
        if example.gold is None:
            raise DataFault(f"example {example.id}", "a demonstration needs its gold answer", "take a labelled split")


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _shown(teacher: Teacher, describe: Describe | None, notes: Counter[str]) -> Callable[[Any], Any]:
    """What the teacher is shown of an example: if it cannot see, pictures in words, each described once.

    Candidates' pictures are not put into words: they are left out, and counted.
    """
    if teacher.sees_images:
        return lambda example: example
    in_words = cache(describe) if describe else None
    counted: set[str] = set()

    def show(example: Any) -> Any:
        bare, images = without_pictures(example), example.images
        if bare == example:
            return example
        if example.id not in counted:
            counted.add(example.id)
            hidden = sum(bool(candidate.images) for candidate in getattr(example, "candidates", ()))
            notes["candidates_whose_pictures_the_teacher_cannot_see"] += hidden
            notes["examples_whose_pictures_the_teacher_cannot_see"] += bool(images) and in_words is None
        if in_words is None or not images:
            return bare
        words = _words([in_words(image) for image in images])
        given = {name: text for name, text in example.context.items() if text.strip()}
        return bare.model_copy(update={"context": words | given})

    return show


def _demonstrated(show: Callable[[Any], Any], notes: Counter[str], blind: bool) -> Callable[[Any], Any]:
    """What the teacher is shown of a demonstration: only its own pictures, or there would be dozens in a prompt.

    A picture that cannot be opened is an `ImageFault`: it would fail every example that is shown the demonstration.
    """

    def shown(demonstration: Any) -> Any:
        few = without_candidate_pictures(demonstration)
        seen = show(few)
        for image in seen.images:
            image.open()
        notes["demonstrations_shown_without_their_candidates_pictures"] += few != demonstration
        return (without_image(seen) or seen) if blind else seen

    return shown


def _words(descriptions: Sequence[Description]) -> dict[str, str]:
    """Pictures as named texts; never empty, so that the teacher knows that there was a picture."""
    tags = [f"{tag.name} ({tag.probability:.0%})" for found in descriptions for tag in found.tags]
    words = {
        "tags": ", ".join(tags) or "nothing recognised",
        "colours": ", ".join(dict.fromkeys(colour for found in descriptions for colour in found.colours)),
        "ocr": "\n".join(line for found in descriptions for line in found.ocr),
    }
    return {name: text for name, text in words.items() if text}


def _subject(template: Template) -> str | None:
    """What makes several questions of one example (``entity``, ``attribute``), if one is needed."""
    return next((need for need in template.front.needs if need in face(template.front.task).SUBJECTS), None)


def refuse_hopeless(items: Sequence[Item]) -> None:
    """A template that fails for every example is wrong itself or for these data: nothing is spent on it."""
    by_template: dict[str, list[Item]] = {}
    for item in items:
        by_template.setdefault(item.template.name, []).append(item)
    for name, its in by_template.items():
        if all(item.fault is not None for item in its):
            raise DataFault(name, f"it cannot be asked of any example; the first fault: {its[0].fault}") from its[
                0
            ].fault
