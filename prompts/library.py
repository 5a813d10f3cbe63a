"""The templates: found by name in the users' folders and then in ours, read with their front matter,
fingerprinted.

A template is ONE file, ``<task>/<mode>.v<N>.jinja``, that includes no other, so that its SHA-256 says
everything about it. A released version never changes: a new text is the next version.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError
from rapidfuzz import process

from ..tasks import TASKS
from ..tasks.record import Record

#: Our own templates, last on the search path.
PACKAGE_FOLDER = Path(__file__).parent
#: Users' folders, separated as in PATH, before ours.
FOLDERS_VARIABLE = "MAGISTER_PROMPTS"

#: What an example must have for a template. ``picture``: a picture, or its words in the context; ``pair``,
#: ``candidates``: the field of that name.
OF_EXAMPLE = frozenset({"gold", "picture", "pair", "candidates"})
#: What a template may need beside the example and the schema; a subject (``entity``) is one of its task's.
Need = Literal["gold", "picture", "pair", "candidates", "answer", "demonstrations", "entity", "attribute"]
#: What a template may take if it is there; ``wording`` picks one of the wordings of a question.
May = Literal["gold", "answer", "demonstrations", "entity", "attribute", "wording"]


class TemplateFault(ValueError):
    """A template that cannot be used: which file and line, what is wrong, what to do."""

    def __init__(self, where: str | Path, line: int, problem: str, remedy: str = "") -> None:
        self.where, self.line, self.problem, self.remedy = str(where), line, problem, remedy
        place = f"{where}:{line}" if line else str(where)
        super().__init__(f"{place}: {problem}" + (f" ({remedy})" if remedy else ""))


class UnknownTemplate(LookupError):
    """A name that no folder has; the message lists near misses."""


class FrontMatter(Record):
    """The YAML head of a template.

    ``needs`` and ``may`` name what it is given beside text, pictures and schema; gold is shown to no other
    template.
    """

    task: str
    mode: str
    output: Literal["text", "json"]
    max_tokens: int = Field(ge=1, le=8192)
    source: str
    description: str
    needs: tuple[Need, ...] = ()
    may: tuple[May, ...] = ()
    stop: tuple[str, ...] = Field(default=(), max_length=4)


@dataclass(frozen=True)
class Template:
    """One template file.

    Attributes:
        name: ``task/mode.vN``.
        path: the file.
        front: its front matter.
        version: N.
        digest: SHA-256 of the file's bytes.
        body: the Jinja text; the front matter is blanked out, so that line numbers are the file's.
    """

    name: str
    path: Path
    front: FrontMatter
    version: int
    digest: str
    body: str

    @property
    def takes(self) -> frozenset[str]:
        """The extra variables it can be given."""
        return frozenset((*self.front.needs, *self.front.may)) - OF_EXAMPLE

    @property
    def sees_gold(self) -> bool:
        """Whether the example is shown with its gold answer."""
        return "gold" in (*self.front.needs, *self.front.may)


def near(word: str, known: Sequence[str]) -> str:
    """``did you mean 'x'?``, or the list of what there is where nothing is near."""
    best = process.extractOne(word, known, score_cutoff=65) if known else None
    return f"did you mean {best[0]!r}?" if best else f"there are: {', '.join(sorted(known)) or 'none'}"


def folders(first: Sequence[str | Path] = ()) -> list[Path]:
    """The search path: the folders given, those of ``MAGISTER_PROMPTS``, ours. A missing one is a fault."""
    named = [Path(f) for f in first]
    named += [Path(f) for f in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if f]
    for folder in named:
        if not folder.is_dir():
            raise TemplateFault(folder, 0, "there is no such template folder", f"check {FOLDERS_VARIABLE}")
    return [*named, PACKAGE_FOLDER]


_NAME = re.compile(r"(?P<task>[a-z_]+)/(?P<mode>[a-z][a-z0-9_.]*?)(?:\.v(?P<version>\d+))?")


def templates(task: str | None = None, first: Sequence[str | Path] = ()) -> list[Template]:
    """Every template (of a task), in order; a file hides one of the same name later on the path."""
    found: dict[str, Path] = {}
    for folder in folders(first):
        for path in files(folder):
            found.setdefault(_name_of(path), path)
    loaded = [load(path) for name, path in found.items() if task in (None, name.split("/")[0])]
    return sorted(loaded, key=lambda t: (t.front.task, t.front.mode, t.version))


def full_name(name: str, task: str) -> str:
    """The name with its task's folder before it: ``zero_shot`` is ``ner/zero_shot`` among the prompts of ``ner``."""
    return name if "/" in name else f"{task}/{name}"


def find(name: str, first: Sequence[str | Path] = ()) -> Template:
    """The template of that name; without a version, the latest of the first folder that has the name.

    Raises:
        UnknownTemplate: no folder has it.
        TemplateFault: its file is faulty.
    """
    known: set[str] = set()
    for folder in folders(first):
        versions: dict[int, Path] = {}
        for path in files(folder):
            full = _name_of(path)
            plain, _, version = full.rpartition(".v")
            known |= {full, plain}
            if full == name:
                return load(path)
            if plain == name and version.isdigit():
                versions[int(version)] = path
        if versions:
            return load(versions[max(versions)])
    raise UnknownTemplate(f"no template {name!r}: {near(name, sorted(known))}")


def files(folder: Path) -> Iterator[Path]:
    """The template files of a folder, in order."""
    return iter(sorted(folder.glob("*/*.jinja")))


def load(path: Path) -> Template:
    """Read one file; a `TemplateFault` for a wrong name, encoding or front matter."""
    name = _name_of(path)
    match = _NAME.fullmatch(name)
    if match is None or match["version"] is None:
        raise TemplateFault(path, 0, "not a template's name", "call it <task>/<mode>.v<N>.jinja")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TemplateFault(path, data[: error.start].count(b"\n") + 1, "not UTF-8", "save it as UTF-8") from None
    head, body = _split(path, text)
    front = _front_matter(path, head)
    for key, expected in (("task", match["task"]), ("mode", match["mode"])):
        if getattr(front, key) != expected:
            said = getattr(front, key)
            raise TemplateFault(
                path, _line(head, key), f"{key}: {said!r} but the file says {expected!r}", "make them agree"
            )
    if front.task not in TASKS:
        raise TemplateFault(path, _line(head, "task"), f"unknown task {front.task!r}", near(front.task, list(TASKS)))
    return Template(name, path, front, int(match["version"]), hashlib.sha256(data).hexdigest(), body)


def _name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name.removesuffix('.jinja')}"


def _split(path: Path, text: str) -> tuple[str, str]:
    """Front matter and body; the body keeps the file's line numbers."""
    match = re.match(r"---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    if match is None:
        raise TemplateFault(path, 1, "no front matter", "open the file with --- task: ... mode: ... ---")
    return match[1], "\n" * match[0].count("\n") + text[match.end() :]


def _front_matter(path: Path, head: str) -> FrontMatter:
    try:
        values: Any = yaml.safe_load(head)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 1
        raise TemplateFault(path, line, "the front matter is not YAML", "check colons and quotes") from None
    if not isinstance(values, dict):
        raise TemplateFault(path, 1, "the front matter is not a list of keys and values", "write `key: value`")
    try:
        return FrontMatter.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        fields = FrontMatter.model_fields
        if first["type"] == "missing":
            problem = f"the front matter lacks {key!r}"
            remedy = f"needed: {', '.join(k for k, f in fields.items() if f.is_required())}"
        elif first["type"] == "extra_forbidden":
            problem, remedy = f"unknown key {key!r} in the front matter", near(key, list(fields))
        else:
            problem, remedy = f"{key}: {first['msg']}", f"it says {first['input']!r}"
        raise TemplateFault(path, _line(head, key), problem, remedy) from None


def _line(head: str, key: str) -> int:
    """Line of a front matter key in the file; 1 where it is not there."""
    for number, line in enumerate(head.splitlines(), start=2):
        if line.startswith(f"{key}:"):
            return number
    return 1
