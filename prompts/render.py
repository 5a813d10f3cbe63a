"""A template and an example become a `Prompt`: sandboxed, strict, pictures where the template places them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError, safe_range

from ..tasks import TASKS, Task
from ..tasks.images import Image
from . import tags
from .faces import face, face_of
from .faults import InputFault as InputFault
from .library import OF_EXAMPLE, Template, TemplateFault, find, near
from .messages import Message, Part, Prompt
from .view import PICTURE_WORDS, as_json, claims, defuse, example_view, is_itself, plain

#: A rendered prompt is never longer, whatever a template's loops or a data row do (some 50,000 tokens).
MAX_CHARACTERS = 200_000

#: The filters a template may use; ``truncate`` and ``default`` are left out since they hide what is lost or
#: missing.
_FILTERS = (
    *("capitalize", "first", "indent", "int", "join", "last", "length", "list", "lower", "map", "reject"),
    *("rejectattr", "replace", "reverse", "select", "selectattr", "sort", "title", "trim", "unique", "upper"),
)
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset({"strip", "lower", "upper", "startswith", "endswith", "split"}),
    dict: frozenset({"items", "keys", "values", "get"}),
}


def render(template: str | Template, task: str | Task, example: Any, schema: Any, **extra: Any) -> Prompt:
    """Ask one template about one example.

    Args:
        template: a name such as ``ner/zero_shot``, or a `Template` (looked up once, cheaper in a loop).
        task: the task or its key.
        example: the task's example. Its gold is shown to templates that ask for it, and to no other.
        schema: the data set's schema.
        extra: what the front matter's ``needs`` and ``may`` name: ``demonstrations`` (pairs of example and
        answer),
            ``answer`` (to be judged), ``wording`` (which wording of the questions, from 0), and what the task's
            templates ask about one by one (of `ner` an ``entity``, of `attributes` an ``attribute``'s name).

    Raises:
        UnknownTemplate: there is no template of that name.
        TemplateFault: the template is wrong.
        InputFault: the template is right, but this example lacks something it needs.
    """
    found = find(template) if isinstance(template, str) else template
    task = TASKS[task] if isinstance(task, str) else task
    _check_input(found, task, example, extra)
    pictures = _Pictures()
    turns = _compiled(found).turns(_variables(found, example, schema, extra, pictures))
    messages = tuple(Message(role=role, parts=pictures.parts(found, text, role)) for role, text in turns if text)
    pictures.check_all_placed(found, example, _compiled(found).mentions_pictures)
    return Prompt(
        template=found.name,
        digest=found.digest,
        messages=messages,
        answer_schema=task.answer_schema(schema, example) if found.front.output == "json" else None,
        max_tokens=found.front.max_tokens,
        stop=found.front.stop,
    )


def _check_input(template: Template, task: Task, example: Any, extra: dict[str, Any]) -> None:
    """Refuse what the template cannot be asked with."""
    if template.front.task != task.key:
        raise InputFault(f"{template.name} is a template of {template.front.task!r}, not of {task.key!r}")
    expected: Any = task.Example
    if not isinstance(example, expected):
        raise InputFault(f"{template.name} asks about an example of {task.key!r}, not a {type(example).__name__}")
    who = f"example {example.id}: {template.name}"
    for name in extra:
        if name not in template.takes:
            raise InputFault(f"{who} does not take {name!r}: {near(name, sorted(template.takes))}")
    for need in template.front.needs:
        if need == "gold" and example.gold is None:
            raise InputFault(f"{who} needs a gold answer, and the example has none")
        if need == "picture" and not (example.images or any(example.context.get(w, "").strip() for w in PICTURE_WORDS)):
            raise InputFault(f"{who} needs a picture, or its words in the context ({', '.join(PICTURE_WORDS)})")
        if need in ("pair", "candidates") and not getattr(example, need, None):
            raise InputFault(f"{who} needs {need}, and the example has none")
        if need not in OF_EXAMPLE and (extra.get(need) is None or extra[need] in ((), [], "")):
            raise InputFault(f"{who} needs {need!r}: render(..., {need}=...)")
    about = face(task)
    for name in about.SUBJECTS & extra.keys():
        if extra[name] not in about.subjects((*template.front.needs, name), example):
            shown = getattr(extra[name], "text", extra[name])
            raise InputFault(f"{who}: the {name} {shown!r} is not among its gold, or not asked of it")
    for demonstration, _ in extra.get("demonstrations", ()):
        if is_itself(example, demonstration):
            raise InputFault(f"{who}: a demonstration is the example itself, which would give away its answer")


def _variables(
    template: Template, example: Any, schema: Any, extra: dict[str, Any], pictures: _Pictures
) -> dict[str, Any]:
    """All that a template sees, as plain copies."""
    view = example_view(example, pictures.place, gold=template.sees_gold)

    def image(index: int) -> str:
        if not 0 <= index < len(view.images):
            raise _Misuse(f"image({index}): the example has {len(view.images)} pictures, counted from 0")
        return view.images[index]

    shown: dict[str, Any] = {name: plain(value) for name, value in extra.items() if name != "demonstrations"}
    if "demonstrations" in extra:
        shown["demonstrations"] = tuple(
            _demonstration(template, e, a, schema, pictures) for e, a in extra["demonstrations"]
        )
    if "answer" in extra:
        shown["claims"] = claims(schema, extra["answer"], example)
    about = face(template.front.task)
    wording = extra.get("wording", 0)
    shown["questions"] = tuple(
        SimpleNamespace(label=defuse(label), text=defuse(texts[wording % len(texts)]))
        for label, texts in about.questions(schema, example).items()
    )
    return {**shown, **about.variables(example, schema, pictures.offer), "example": view, "image": image}


def _demonstration(template: Template, example: Any, answer: Any, schema: Any, pictures: _Pictures) -> SimpleNamespace:
    """A worked example: its view and its answer in one line of JSON, and its task's variables if it uses any.

    Of attributes it asks only what its answer states.
    """
    if hasattr(answer, "values"):
        example = example.model_copy(update={"asked": tuple(answer.values)})
    view = example_view(example, pictures.place, gold=False)
    shown = SimpleNamespace(example=view, answer=defuse(as_json(answer, example, schema)))
    about = face_of(example)
    if about.VARIABLES & _compiled(template).attributes:
        vars(shown).update(about.variables(example, schema, pictures.offer))
    return shown


class _Misuse(ValueError):
    """A wrong call out of a template, to be reported as its fault."""


class _Pictures:
    """The pictures of one rendering, behind marks that no data can hold: their key is drawn anew."""

    def __init__(self) -> None:
        self._key = secrets.token_hex(12)
        self._images: list[Image] = []
        self._owed: set[int] = set()
        self._placed: set[int] = set()

    def place(self, image: Image) -> str:
        """The mark that stands for this picture in the rendered text; the template owes it a place."""
        self._owed.add(len(self._images))
        return self.offer(image)

    def offer(self, image: Image) -> str:
        """The mark of a picture that a template may leave out."""
        self._images.append(image)
        return f"\ue000{self._key}:{len(self._images) - 1}\ue001"

    def parts(self, template: Template, text: str, role: str) -> tuple[Part, ...]:
        """A turn's text cut at the marks."""
        if not self._images:  # no mark was given out; compiling the pattern takes a third of a rendering
            return (Part(text=text),) if text else ()
        parts = []
        for number, piece in enumerate(re.split(f"\ue000{self._key}:(\\d+)\ue001", text)):
            if number % 2:
                if role != "user":
                    raise TemplateFault(template.path, 0, f"a picture in the {role} turn", "place it in user")
                self._placed.add(int(piece))
                parts.append(Part(image=self._images[int(piece)]))
            elif self._key in piece.lower():
                raise TemplateFault(template.path, 0, "a filter changed a picture's mark", "place it as it is")
            elif piece:
                parts.append(Part(text=piece))
        return tuple(parts)

    def check_all_placed(self, template: Template, example: Any, mentioned: bool) -> None:
        """A template places every picture, or never speaks of any: none is lost by the way."""
        done = len(self._placed & self._owed)
        if (mentioned or self._placed) and done < len(self._owed):
            raise TemplateFault(
                template.path,
                0,
                f"places {done} of the {len(self._owed)} pictures of example {example.id}",
                "loop over example.images, or give the example fewer",
            )


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with few methods and filters, and no operator that builds huge texts."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        allowed = _METHODS.get(type(obj))
        return (allowed is None or attr in allowed) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja's own wrapped ``format`` would let widths of any size through."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise SecurityError(f"the operator {operator} is for plain numbers in a template")
        return super().call_binop(context, operator, left, right)


def _environment() -> _Sandbox:
    """No loader (so no include, import or extends), few globals, plain JSON."""
    environment = _Sandbox(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, cache_size=0
    )
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["oneline"] = lambda text: " ".join(str(text).split())
    environment.filters["block"] = _block
    environment.filters["tagged"] = tags.write
    environment.globals = {"range": safe_range}
    return environment


def _block(text: Any) -> str:
    """A text in its lines, every line after the first indented: what it holds never stands where a label stands."""
    lines = (" ".join(line.split()) for line in str(text).splitlines())
    return "\n  ".join(line for line in lines if line)


_ENVIRONMENT = _environment()

#: The blocks that a template may have beside ``user`` (and ``system`` before it), with whose turn each is: they are
#: written once a demonstration, which they name ``shown``. Without demonstrations they are not there.
TURNS = {"demonstration": "user", "answer": "assistant"}

#: What every template of a task may name, beside what its front matter lists.
_COMMON = frozenset({"example", "image", "questions", "range"})


@dataclass(frozen=True)
class _Compiled:
    """A checked template, ready to run; ``attributes`` are all names that stand behind a dot."""

    template: Template
    code: jinja2.Template
    attributes: frozenset[str]
    mentions_pictures: bool

    def turns(self, variables: dict[str, Any]) -> list[tuple[Any, str]]:
        """(role, text) of each turn; a `TemplateFault` with its line where a name or a call is wrong."""
        told = [("system", "system", variables)] + [
            (role, block, {**variables, "shown": shown})
            for shown in variables.get("demonstrations", ())
            for block, role in TURNS.items()
        ]
        turns, left = [], MAX_CHARACTERS
        for role, block, known in (*told, ("user", "user", variables)):
            if block in self.code.blocks:
                context = self.code.new_context(known)
                text = "".join(self._capped(self.code.blocks[block](context), left)).strip()
                left -= len(text)
                turns.append((role, text))
        return turns

    def _capped(self, pieces: Iterable[str], left: int) -> Iterator[str]:
        try:
            for piece in pieces:
                left -= len(piece)
                if left < 0:
                    raise InputFault(
                        f"{self.template.name}: the prompt is over {MAX_CHARACTERS:,} characters; "
                        "shorten the example or the demonstrations"
                    )
                yield piece
        except InputFault:
            raise
        except Exception as error:
            raise self._fault(error) from None

    def _fault(self, error: Exception) -> TemplateFault:
        """Jinja's error with the template's line, which it keeps in the rewritten traceback."""
        line = 0
        try:
            _ENVIRONMENT.handle_exception()
        except Exception as rewritten:
            trace = rewritten.__traceback__
            while trace is not None:
                if trace.tb_frame.f_code.co_filename == str(self.template.path):
                    line = trace.tb_lineno
                trace = trace.tb_next
        if isinstance(error, SecurityError):
            return TemplateFault(self.template.path, line, f"refused by the sandbox: {error}", "use plain names")
        remedy = "gold is shown where the front matter says `needs: [gold]`" if "'gold'" in str(error) else ""
        return TemplateFault(self.template.path, line, str(error), remedy or "check the name")


@lru_cache(maxsize=256)
def _compiled(template: Template) -> _Compiled:
    """Parse, check and compile; a `TemplateFault` for all that can be seen without an example."""
    try:
        tree = _ENVIRONMENT.parse(template.body, template.name, str(template.path))
        _check_tree(template, tree)
        code = _ENVIRONMENT.compile(tree, template.name, str(template.path))
    except jinja2.TemplateSyntaxError as error:
        message = error.message or "syntax error"
        missing = re.match(r"No filter named '(\w+)'", message)
        remedy = near(missing[1], list(_ENVIRONMENT.filters)) if missing else "see the Jinja documentation"
        raise TemplateFault(template.path, error.lineno, message, remedy) from None
    names = frozenset(n.attr for n in tree.find_all(nodes.Getattr))
    mentions_pictures = "images" in names or any(n.name == "image" for n in tree.find_all(nodes.Name))
    ready = jinja2.Template.from_code(_ENVIRONMENT, code, _ENVIRONMENT.globals)
    return _Compiled(template, ready, names, mentions_pictures)


def _check_tree(template: Template, tree: nodes.Template) -> None:
    """Only the blocks of turns, no other files, no unknown variable."""
    for other in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise TemplateFault(
            template.path, other.lineno, "a template includes no other file", "its digest must say all of it"
        )
    blocks = [n for n in tree.body if isinstance(n, nodes.Block)]
    for block in tree.find_all(nodes.Block):
        if block not in blocks or block.name not in ("system", "user", *TURNS):
            raise TemplateFault(
                template.path,
                block.lineno,
                f"block {block.name!r}",
                f"only system and user, side by side, and {' with '.join(TURNS)} for demonstrations",
            )
    names = {b.name for b in blocks}
    if "user" not in names:
        raise TemplateFault(template.path, 0, "no user turn", "write {% block user %} ... {% endblock %}")
    if names & TURNS.keys() and not (names >= TURNS.keys() and "demonstrations" in template.takes):
        raise TemplateFault(
            template.path, 0, f"{' and '.join(TURNS)} go together", "and with demonstrations under needs or may"
        )
    for node in tree.body:
        blank = isinstance(node, nodes.Output) and all(
            isinstance(n, nodes.TemplateData) and not n.data.strip() for n in node.nodes
        )
        if not (blank or isinstance(node, nodes.Block)):
            raise TemplateFault(template.path, node.lineno, "this stands outside the turns", "move it into a block")
    known = _COMMON | face(template.front.task).VARIABLES | template.takes
    if "answer" in template.takes:
        known |= {"claims"}
    if names & TURNS.keys():
        known |= {"shown"}
    for name in sorted(find_undeclared_variables(tree) - known):
        line = min((n.lineno for n in tree.find_all(nodes.Name) if n.name == name), default=0)
        raise TemplateFault(template.path, line, f"unknown variable {name!r}", near(name, sorted(known)))
