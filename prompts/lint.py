"""Every template rendered on probe examples, with no model: whatever would fail in a run fails here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tasks import TASKS
from .faces import face
from .library import PACKAGE_FOLDER, Template, TemplateFault, files, load
from .messages import Prompt
from .render import InputFault, render
from .view import defuse, is_itself

#: Digests of our released templates: their text never changes again.
RELEASED = PACKAGE_FOLDER / "released.json"


@dataclass(frozen=True)
class LintResult:
    """What became of one template file.

    Attributes:
        name: the template's name.
        path: its file.
        faults: what is wrong; empty is sound.
        renders: how many probes were rendered.
        digest: SHA-256 of the file; empty if it could not be read.
    """

    name: str
    path: Path
    faults: tuple[TemplateFault, ...]
    renders: int = 0
    digest: str = ""


def lint(folder: str | Path | None = None) -> list[LintResult]:
    """Check every template of a folder; of ours, with their released digests, if none is given."""
    where = PACKAGE_FOLDER if folder is None else Path(folder)
    if not where.is_dir():
        raise TemplateFault(where, 0, "there is no such template folder", "give the folder that holds <task>/")
    results = [lint_file(path) for path in files(where)]
    if not results:
        raise TemplateFault(where, 0, "no templates here", "they are called <task>/<mode>.v<N>.jinja")
    return _against_released(results) if where == PACKAGE_FOLDER else results


def lint_file(path: Path) -> LintResult:
    """Check one file."""
    name = f"{path.parent.name}/{path.name.removesuffix('.jinja')}"
    try:
        template = load(path)
    except TemplateFault as fault:
        return LintResult(name, path, (fault,))
    faults: dict[str, TemplateFault] = {}
    renders, lacking = 0, ""
    for example, schema, extra in _probes(template):
        try:
            prompt = render(template, template.front.task, example, schema, **extra)
            _check(template, prompt, example, schema, extra)
            renders += 1
        except TemplateFault as fault:
            faults.setdefault(str(fault), fault)
        except InputFault as fault:
            lacking = str(fault)
    if not renders and not faults:
        faults[lacking] = TemplateFault(path, 0, f"no probe could be rendered: {lacking}", "see `needs`")
    return LintResult(template.name, path, tuple(faults.values()), renders, template.digest)


def _check(template: Template, prompt: Prompt, example: Any, schema: Any, extra: dict[str, Any]) -> None:
    """What a right rendering has: the example's text, and no gold where none was asked for."""
    prompted = "\n".join(m.text for m in prompt.messages)
    said = " ".join(defuse(face(template.front.task).said(example)).split())
    if said not in " ".join(prompted.split()):
        raise TemplateFault(template.path, 0, "the example's text is not in the prompt", f"it says {said[:60]!r}")
    if not template.sees_gold and example.gold is not None:
        without = example.model_copy(update={"gold": None})
        if render(template, template.front.task, without, schema, **extra) != prompt:
            raise TemplateFault(template.path, 0, "gold changes the prompt", "declare needs: [gold]")


def _against_released(results: list[LintResult]) -> list[LintResult]:
    """Our released texts are unchanged and all there."""
    released: dict[str, str] = json.loads(RELEASED.read_text(encoding="utf-8"))
    checked = []
    for result in results:
        faults = result.faults
        if released.get(result.name, result.digest) != result.digest:
            remedy = f"put the old text back and make v{int(result.name.rpartition('.v')[2]) + 1}"
            faults = (*faults, TemplateFault(result.path, 0, "a released text was changed", remedy))
        checked.append(LintResult(result.name, result.path, faults, result.renders, result.digest))
    for name in sorted(released.keys() - {r.name for r in results}):
        path = PACKAGE_FOLDER / f"{name}.jinja"
        checked.append(LintResult(name, path, (TemplateFault(path, 0, "a released text is gone", "put it back"),)))
    return checked


def _probes(template: Template) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """(example, schema, extra): the task's probes with whatever the template takes."""
    about, of = face(template.front.task), (*template.front.needs, *template.front.may)
    probes = about.probes()
    for example, schema in probes:
        values = {
            "demonstrations": [(e, e.gold) for e, _ in probes if e.gold is not None and not is_itself(example, e)],
            "answer": example.gold or TASKS[template.front.task].Answer(),
            **dict.fromkeys(about.SUBJECTS, next(iter(about.subjects(of, example)), None)),
            "wording": 1,
        }
        yield example, schema, {k: v for k, v in values.items() if k in template.takes and v is not None}
