"""Values in one form: numbers in one unit, dates as ISO, booleans, canonical names; by fixed rules, never by a guess.

A step of its own after extraction: the value as written is kept beside what the rule makes of it, and where no rule is
sure there is None and a counted reason. Conversion needs the extra ``extract`` (pint and dateutil, both BSD).
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date, datetime

from ..tasks.attributes import Attribute
from ..tasks.record import Record
from .quantities import Decimal, Refused, quantity

#: The rules, with what each gives.
RULES = {
    "name": "the canonical name of a surface form (`Attribute.names`)",
    "option": "the option of a closed list, whatever its case",
    "number": "a number, with the unit as written",
    "unit": "a number in the attribute's unit",
    "pack": "a number of equal portions, added up",
    "range": "both ends of a range, in the attribute's unit",
    "date": "a date, a month or a year as ISO 8601",
    "boolean": "true or false",
}

_TRUE = frozenset("true yes y 1 on ja oui si sí 是".split())
_FALSE = frozenset("false no n 0 off nein non 否".split())


class Normalised(Record):
    """A value in its normal form (text, number, the ends of a range, truth), its unit, and the rule that did it."""

    value: bool | int | float | str | tuple[int | float, int | float]
    unit: str = ""
    rule: str


def normalise(
    attribute: Attribute,
    value: str,
    reasons: Counter[str] | None = None,
    *,
    decimal: Decimal = "",
    day_first: bool | None = None,
) -> Normalised | None:
    """A value in its attribute's normal form, or None where no rule is sure of it.

    Args:
        reasons: counts the rule, or why there was none: ``no_rule``, ``not_among_names``, ``not_an_option``,
            ``not_a_boolean``, ``not_a_date``, ``ambiguous_date``, ``no_four_digit_year``, and those of
            `quantities.quantity`.
        decimal: the decimal mark of these data, for numbers such as ``1,500`` that it decides.
        day_first: the order of day and month in these data, for dates such as ``03/04/2021``.
    """
    counted = Counter[str]() if reasons is None else reasons
    try:
        made = _made(attribute, " ".join(value.split()), decimal, day_first)
    except Refused as refused:
        counted[refused.args[0]] += 1
        return None
    counted[made.rule] += 1
    return made


def _made(attribute: Attribute, value: str, decimal: Decimal, day_first: bool | None) -> Normalised:
    folded = value.casefold()
    names = {" ".join(surface.split()).casefold(): name for surface, name in attribute.names.items()}
    name = names.get(folded) or next((name for name in attribute.names.values() if name.casefold() == folded), None)
    if name is not None:
        return Normalised(value=name, rule="name")
    if attribute.type == "number":
        found = quantity(value, attribute.unit, decimal)
        return Normalised(value=found.value, unit=found.unit, rule=found.rule)
    if attribute.type == "date":
        return Normalised(value=iso_date(value, day_first), rule="date")
    if attribute.type == "boolean":
        if folded not in _TRUE | _FALSE:
            raise Refused("not_a_boolean")
        return Normalised(value=folded in _TRUE, rule="boolean")
    if names:
        raise Refused("not_among_names")
    if attribute.options:
        option = next((o for o in attribute.options if o.casefold() == folded), None)
        if option is None:
            raise Refused("not_an_option")
        return Normalised(value=option, rule="option")
    raise Refused("no_rule")


_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:T[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?")
_DAY, _MONTH = r"\d{1,2}(?:st|nd|rd|th)?", r"[A-Za-z]{3,9}\.?"
#: The forms that are read: figures, or a month by its name.
_FIGURES = re.compile(r"\d{4}|\d{4}[-/]\d{1,2}|\d{1,2}[-/.]\d{4}|\d{1,2}([-/.])\d{1,2}\1\d{4}")
_WORDS = re.compile(rf"(?:{_DAY}[ .-]+)?{_MONTH}[ ,-]+\d{{4}}|{_MONTH}[ -]{_DAY},?[ -]+\d{{4}}")
#: Two dates that share no part: what is the same after both was in the text.
_DEFAULTS = (datetime(2000, 1, 1), datetime(2004, 2, 2, 1, 1, 1))


def iso_date(text: str, day_first: bool | None = None) -> str:
    """A date as ISO 8601, as far as it is stated: ``2021-03-04``, ``2021-03`` or ``2021``.

    Year first means year, month, day. A year has four digits.

    Raises:
        Refused: ``ambiguous_date`` (``03/04/2021``, with ``day_first`` not known), ``no_four_digit_year``,
            ``not_a_date``.
    """
    if found := _YEAR_FIRST.fullmatch(text):
        try:
            return date(int(found[1]), int(found[3]), int(found[4])).isoformat()
        except ValueError:
            raise Refused("not_a_date") from None
    if not re.search(r"(?<!\d)\d{4}(?!\d)", text):
        raise Refused("no_four_digit_year" if re.search(r"\d", text) else "not_a_date")
    orders = (True, False) if day_first is None else (day_first,)
    read = {_read(text, order) for order in orders}
    if len(read) > 1:
        raise Refused("ambiguous_date")
    return read.pop()


def _read(text: str, day_first: bool) -> str:
    """The parts of a date that the text states."""
    try:
        from dateutil.parser import parse
    except ImportError:
        raise ImportError("dates are read by dateutil: pip install 'magister[extract]'") from None
    words = _WORDS.fullmatch(text)
    if not words and not _FIGURES.fullmatch(text):
        raise Refused("not_a_date")
    try:
        one, other = (parse(text, dayfirst=day_first, default=default) for default in _DEFAULTS)
    except (ValueError, OverflowError):
        raise Refused("not_a_date") from None
    known = [a == b for a, b in zip(one.timetuple()[:6], other.timetuple()[:6], strict=True)]
    if known not in ([True] * length + [False] * (6 - length) for length in (2 if words else 1, 2, 3)):
        raise Refused("not_a_date")
    return one.date().isoformat()[: (4, 7, 10)[sum(known) - 1]]
