"""Attribute extraction with one face: products in, a row for each out, by a teacher or a distilled student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..tasks.attributes import Attribute, Example, Schema
from ..tasks.images import Image
from ..tasks.task import DataFault
from ..teachers.ledger.ledger import Ledger
from .counts import Counts
from .product import Product
from .rows import Normalise, Outcome, Row, Rows, Window, failed
from .student import ByStudent
from .teacher import ByTeacher, Demonstrations
from .windows import WINDOW, windows

#: So many products are read ahead and asked together.
CHUNK = 64


def extract(
    products: Iterable[Product | str | DataFault],
    attributes: Sequence[str | Attribute] = (),
    *,
    counts: Counts | None = None,
    **options: Any,
) -> Iterator[Row]:
    """The attributes of each product, in the order given.

    A row is ``{"id", "values", "found", "fault"}``. ``values`` is the plain form: by attribute its value, a list of
    several, or None for absent. ``found`` is the full one: ``{"values": [{"value", "start", "end", "where",
    "confidence", "normalised"}], "confidence"}`` by attribute. ``where`` names the text that holds the value (``text``,
    another field of the `Product`, ``ocr``, ...; None if none does), ``start`` and ``end`` its characters. A product
    that cannot be answered has ``values`` and ``found`` None and its ``fault`` by name; the others go on.

    Args:
        products: products, plain texts, or faults of what could not be read; may be a stream, read `CHUNK` at a time.
        attributes: names (any value, copied or written freely), or full `Attribute` objects with descriptions and
            options. With a schema, or a student, names of those to ask; all that apply to the product are asked
            otherwise.
        counts: filled on the way.
        options: those of `Extraction`: ``schema``, ``teacher`` or ``student``, ``prompt``, ``shots``,
            ``demonstrations``, ``votes``, ``vote_below``, ``confidence``, ``normalise``, ``strict``, ``window``.

    Raises:
        DataFault: the options contradict each other, or there is no such attribute or schema.
    """
    extraction = Extraction(attributes, counts=counts, **options)

    def rows() -> Iterator[Row]:
        numbered = enumerate(products)
        try:
            while chunk := list(islice(numbered, CHUNK)):
                yield from extraction.rows([product for _, product in chunk], chunk[0][0])
        finally:
            extraction.close()

    return rows()


class Extraction:
    """How products are asked and their rows made, prepared once.

    Args:
        attributes: see `extract`.
        schema: a `Schema`, or what `tasks.schemas.read_schema` reads: a path, a dict, a pydantic model.
        teacher: a `Teacher` or its spec (``demo``, ``hf:PATH``, ``openai:MODEL@URL``).
        student: a trained student or its run folder. Exactly one of teacher and student.
        prompt: the template asked: ``extract.schema`` if left out. A teacher that was never instructed (``demo``) gets
            ``few_shot`` with the bundled sampler's demonstrations if neither is given.
        shots, demonstrations: worked examples, the most similar ``shots`` of them shown; or a function that picks.
        votes: so many answers, with the attributes in other orders; the most frequent counts.
        vote_below: only products with an attribute less sure than this are asked again.
        confidence: ask the teacher for log-probabilities (its engine must give them). A student always says how sure
            it is.
        normalise: also give values' canonical forms; the values stay as they stand.
        strict: leave out values that ought to be copied and stand nowhere in the product.
        window: most characters asked about at once; a longer page is asked in overlapping windows. `WINDOW` for a
            teacher if None; a student then reads long texts in windows of its own.
        kept: a folder for what may be kept between runs.
    """

    def __init__(
        self,
        attributes: Sequence[str | Attribute] = (),
        *,
        schema: Any = None,
        teacher: Any | str | None = None,
        student: Any | str | Path | None = None,
        prompt: str | None = None,
        shots: int = 6,
        demonstrations: Demonstrations = (),
        votes: int = 1,
        vote_below: float | None = None,
        confidence: bool = False,
        normalise: bool = False,
        strict: bool = False,
        window: int | None = None,
        counts: Counts | None = None,
        kept: Path | None = None,
    ) -> None:
        if (teacher is None) == (student is None):
            raise DataFault("extraction", "give one of teacher and student")
        if window is not None and window < 100:
            raise DataFault(f"a window of {window} characters", "is too small", "100 at least")
        self.counts = Counts() if counts is None else counts
        self._asker: ByTeacher | ByStudent
        if student is not None:
            if votes > 1:
                raise DataFault("the student", "votes are for a teacher; a student always answers the same")
            self._asker = ByStudent(student)
            self.schema, self._names, self.window = self._asker.schema, _names(attributes), window
            _check_names(self._names, self.schema)
        else:
            self.schema, self._names = _asked(attributes, schema)
            self.window = window or WINDOW
            self._asker = ByTeacher(
                teacher, self.schema, prompt, shots, demonstrations, votes, vote_below, confidence, kept
            )
        self._rows = Rows(self.schema, strict, _normaliser(self.counts) if normalise else None, self.counts)

    def settings(self) -> dict[str, Any]:
        """What decides the rows, as JSON."""
        return {
            "schema": self.schema.model_dump_json(),
            "attributes": list(self._names),
            "strict": self._rows.strict,
            "normalise": self._rows.normalise is not None,
            "window": self.window,
            **self._asker.settings(),
        }

    def rows(
        self,
        products: Sequence[Product | str | DataFault],
        first: int = 0,
        ledger: Ledger | None = None,
        retry_failed: bool = False,
    ) -> Iterator[Row]:
        """The rows of some products, asked together; those without an id are numbered from ``first``."""
        ready = [self._ready(product, str(first + n)) for n, product in enumerate(products)]
        examples = [window.example for one in ready if not isinstance(one, DataFault) for window in one[2]]
        outcomes: Iterator[Outcome] = iter(self._asker.answers(examples, self.counts, ledger, retry_failed))
        for n, one in enumerate(ready):
            if isinstance(one, DataFault):
                yield failed(getattr(products[n], "id", "") or str(first + n), "data", str(one), self.counts)
            else:
                name, page, cut = one
                yield self._rows.row(name, page, cut, [next(outcomes) for _ in cut])

    @property
    def advice(self) -> str:
        """What a teacher that answers later says must be done."""
        return str(getattr(getattr(self._asker, "engine", None), "advice", ""))

    def close(self) -> None:
        """Free what was made here."""
        self._asker.close()

    def _ready(self, product: Product | str | DataFault, number: str) -> Any:
        """A product's name, page and windows, or why it cannot be asked."""
        if isinstance(product, DataFault):
            return product
        if isinstance(product, str):
            product = Product(text=product)
        name, page = product.id or number, product.page
        if not page.text:
            return DataFault(f"product {name}", "it has no text")
        known = dict.fromkeys(attribute.name for attribute in self.schema.of(product.category))
        asked = tuple(n for n in self._names if n in known) if self._names else tuple(known)
        if not asked:
            return DataFault(f"product {name}", f"no attribute is for the category {product.category!r}")
        images = tuple(Image(source=source, example=name) for source in product.images)
        cut: list[Window] = []
        for start, end in windows(page.text, self.window):
            # Pictures and the texts beside the page are shown once, with its beginning.
            beside: dict[str, Any] = {} if cut else {"images": images, "context": product.context}
            called = f"{name}#{len(cut) + 1}" if cut else name
            example = Example(id=called, text=page.text[start:end], category=product.category, asked=asked, **beside)
            if example.text.strip():
                cut.append(Window(example, start))
        return name, page, cut


def _asked(attributes: Sequence[str | Attribute], schema: Any) -> tuple[Schema, tuple[str, ...]]:
    """The schema, and the names that are asked of it; none: all that apply."""
    if schema is None:
        made = tuple(Attribute(name=a, type="free") if isinstance(a, str) else a for a in attributes)
        return Schema(attributes=made), ()
    if not isinstance(schema, Schema):
        from ..tasks.schemas import read_schema

        schema = read_schema(schema)
    names = _names(attributes)
    _check_names(names, schema)
    return schema, names


def _names(attributes: Sequence[str | Attribute]) -> tuple[str, ...]:
    return tuple(a if isinstance(a, str) else a.name for a in attributes)


def _check_names(names: Sequence[str], schema: Schema) -> None:
    known = dict.fromkeys(attribute.name for attribute in schema.attributes)
    for name in names:
        if name not in known:
            raise DataFault(f"the attribute {name!r}", "is not in the schema", f"there are: {', '.join(known)}")


def _normaliser(counts: Counts) -> Normalise:
    from .normalise import normalise

    def canonical(attribute: Attribute, value: str) -> dict[str, Any] | None:
        found = normalise(attribute, value, counts.normalised)
        return None if found is None else found.model_dump(mode="json")

    return canonical
