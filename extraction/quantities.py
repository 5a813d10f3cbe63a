"""A number as shops write it, with its unit: read where it can mean one thing only, refused by name where it can not.

Read are marks for thousands and decimals, fractions (``1 1/2``, ``21-1/4``, ``½``), ranges (``10-12 in``: both ends
are kept), packs (``2 x 100 ml``: the whole, where the unit is one of mass or volume; ``10 x 20 cm`` are dimensions).
Units are converted by pint. Fluid ounces, pints, quarts, gallons and cups are the US customary ones. What lower case
would make ambiguous (``Mb``, ``gb``, ``G``, ``K``, ``M``) is no unit, ``oz`` is never one of volume.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import cache
from typing import Any, Literal, NamedTuple

#: Which mark parts the decimals in numbers such as ``1,500``, that could be either; empty: not known, so refused.
Decimal = Literal["", ".", ","]


class Refused(ValueError):
    """What no rule can read without a guess; ``args[0]`` is the reason, a closed word."""


class Quantity(NamedTuple):
    """A number, or the two ends of a range, in a unit."""

    value: int | float | tuple[int | float, int | float]
    unit: str
    rule: str


#: Spellings in which case says nothing, by the name pint has for the unit.
_UNITS = {
    "millimeter": "mm millimetre millimetres millimeter millimeters",
    "centimeter": "cm cms centimetre centimetres centimeter centimeters",
    "meter": "metre metres meter meters",
    "kilometer": "km kilometre kilometres kilometer kilometers",
    "inch": "in ins inch inches \" ''",
    "foot": "ft foot feet '",
    "yard": "yd yds yard yards",
    "mile": "mi mile miles",
    "milligram": "mg milligram milligrams",
    "gram": "gram grams gramme grammes gms",
    "kilogram": "kg kgs kilogram kilograms kilogramme kilogrammes",
    "ounce": "oz ounce ounces",
    "pound": "lb lbs pound pounds",
    "metric_ton": "tonne tonnes",
    "milliliter": "ml millilitre millilitres milliliter milliliters cc cm3",
    "centiliter": "cl centilitre centilitres centiliter centiliters",
    "deciliter": "dl decilitre decilitres deciliter deciliters",
    "liter": "l ltr ltrs litre litres liter liters",
    "fluid_ounce": "fl oz|fluid oz|floz|fluid ounce|fluid ounces|fl ounce|fl ounces",
    "US_pint": "pt pint pints",
    "US_liquid_quart": "qt quart quarts",
    "US_liquid_gallon": "gal gallon gallons",
    "cup": "cup cups",
    "second": "sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "hr hrs hour hours",
    "day": "day days",
    "week": "wk week weeks",
    "month": "month months",
    "year": "yr yrs year years",
    "volt": "v volt volts",
    "ampere": "amp amps ampere amperes",
    "milliampere_hour": "mah",
    "watt": "w watt watts",
    "kilowatt": "kw kilowatt kilowatts",
    "watt_hour": "wh",
    "kilowatt_hour": "kwh",
    "hertz": "hz hertz",
    "kilohertz": "khz kilohertz",
    "megahertz": "mhz megahertz",
    "gigahertz": "ghz gigahertz",
    "byte": "byte bytes",
    "megabyte": "megabyte megabytes",
    "gigabyte": "gigabyte gigabytes",
    "terabyte": "tb terabyte terabytes",
    "degree_Celsius": "°c ºc celsius|degrees celsius|degrees c",
    "degree_Fahrenheit": "°f ºf fahrenheit|degrees fahrenheit|degrees f",
    "revolutions_per_minute": "rpm r/min",
    "lumen": "lm lumen lumens",
    "pound_force_per_square_inch": "psi",
    "bar": "bar bars",
    "kilocalorie": "kcal kcals",
    "kilojoule": "kj",
    "percent": "% percent",
    "gram / meter ** 2": "g/m2 gsm",
    "meter ** 2": "m2 sqm",
    "meter ** 3": "m3",
    "foot ** 2": "sq ft|sqft|ft2",
    "count": "pc pcs piece pieces count ct",
}
_FOLDED = {
    spelling: unit
    for unit, spellings in _UNITS.items()
    for spelling in (spellings.split("|") if "|" in spellings else spellings.split())
}
_FOLDED |= {"°c": "degree_Celsius", "ºc": "degree_Celsius", "°f": "degree_Fahrenheit", "ºf": "degree_Fahrenheit"}
_FOLDED |= {"celsius": "degree_Celsius", "fahrenheit": "degree_Fahrenheit"}
#: Spellings in which case counts.
_CASED = {"m": "meter", "g": "gram", "t": "metric_ton", "s": "second", "h": "hour", "A": "ampere", "mA": "milliampere"}
_CASED |= {"mW": "milliwatt", "MW": "megawatt", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte"}
_CASED |= {"mV": "millivolt", "ms": "millisecond", "dB": "decibel", "Ah": "ampere_hour", "Ω": "ohm", "kΩ": "kiloohm"}

#: A longer text states no number.
LONGEST = 60
_DENOMINATORS = (2, 3, 4, 5, 8, 10, 16, 32, 64)
_NUMBER = r"(?:\d+[ -]\d+/\d+|\d+/\d+|\d[\d.,']*\d|\d|\.\d+)"
_UNIT = r"[^\d\s.,+-][^\d]*?(?:/?m[23]|[23])?"
_ONE = re.compile(rf"([+-]?)({_NUMBER})(?:[\s-]*({_UNIT}))?")
_RANGE = re.compile(rf"([+-]?)({_NUMBER})\s*({_UNIT})?\s*(?:-|\bto\b)\s*([+-]?)({_NUMBER})(?:[\s-]*({_UNIT}))?")
_PACK = re.compile(rf"(\d+)\s*[x*]\s*({_NUMBER})[\s-]*({_UNIT})", re.IGNORECASE)


def quantity(text: str, unit: str = "", decimal: Decimal = "") -> Quantity:
    """The quantity that a text states, in ``unit`` (as given without one).

    Raises:
        Refused: ``ambiguous_number`` (``1,500`` while ``decimal`` is not known), ``ambiguous_fraction``,
            ``not_a_number``, ``not_a_range``, ``dimensions`` (``10 x 20 cm``), ``no_unit``, ``unknown_unit``,
            ``other_dimension`` (grams for a length).
    """
    said = _plain(text)
    if len(said) > LONGEST:
        raise Refused("not_a_number")
    if re.search(r"\d \d{3}(?!\d|/)", said):  # 10 000, or 10 of 000?
        raise Refused("ambiguous_number")
    if found := _PACK.fullmatch(said):
        each, name = _in(_number(found[2], decimal), found[3], unit)
        if not _adds_up(_named(found[3], unit)):
            raise Refused("dimensions")
        return Quantity(_tidy(int(found[1]) * each), name, "pack")
    if found := _ONE.fullmatch(said):
        value, name = _in(_signed(found[1], found[2], decimal), found[3] or "", unit)
        return Quantity(_tidy(value), name, "unit" if unit else "number")
    if found := _RANGE.fullmatch(said):
        last = found[6] or found[3] or ""
        low, name = _in(_signed(found[1], found[2], decimal), found[3] or last, unit)
        high, other = _in(_signed(found[4], found[5], decimal), last, unit)
        if low >= high or name != other:
            raise Refused("not_a_range")
        return Quantity((_tidy(low), _tidy(high)), name, "range")
    raise Refused("dimensions" if re.search(r"\d\s*[x*]\s*\d", said, re.IGNORECASE) else "not_a_number")


def _plain(text: str) -> str:
    """The text with fractions, dashes, quotes and blanks in one form each."""
    spelled: list[str] = []
    for letter in text.strip():
        parts = unicodedata.decomposition(letter).split()
        if parts[:1] == ["<fraction>"]:
            blank = " " if spelled and spelled[-1][-1].isdigit() else ""
            letter = blank + "".join(chr(int(part, 16)) for part in parts[1:])
        spelled.append(letter)
    said = re.sub(r"(?<=\d)[\u00a0\u2009\u202f’](?=\d{3}(?!\d))", "'", "".join(spelled))
    said = said.translate(str.maketrans("⁄×–—−‐‑″”“′’", '/x-----"""\'\''))
    return " ".join(unicodedata.normalize("NFKC", said).split())


def _signed(sign: str, text: str, decimal: Decimal) -> float:
    return -_number(text, decimal) if sign == "-" else _number(text, decimal)


def _number(text: str, decimal: Decimal) -> float:
    """One number without a sign."""
    if "/" in text:
        whole, numerator, denominator = re.fullmatch(r"(?:(\d+)[ -])?(\d+)/(\d+)", text).groups()  # type: ignore[union-attr]
        if int(denominator) not in _DENOMINATORS or int(numerator) >= int(denominator):
            raise Refused("ambiguous_fraction")
        return float(int(whole or 0) + Fraction(int(numerator), int(denominator)))
    marks = re.sub(r"\d", "", text)
    kinds = list(dict.fromkeys(marks))
    if not marks:
        return float(text)
    if len(kinds) == 1 and len(marks) == 1 and marks != "'":
        head, tail = text.split(marks)
        if len(tail) == 3 and head.strip("0") and len(head) <= 3:
            if not decimal:
                raise Refused("ambiguous_number")
            return float(f"{head}.{tail}") if marks == decimal else float(head + tail)
        return float(f"{head or 0}.{tail}")
    last = kinds[1] if len(kinds) == 2 else ""
    grouped, _, tail = text.partition(last) if last else (text, "", "")
    if len(kinds) > 2 or last == "'" or not re.fullmatch(rf"\d{{1,3}}({re.escape(kinds[0])}\d{{3}})+", grouped):
        raise Refused("not_a_number")
    if not tail.isdigit() and last:
        raise Refused("not_a_number")
    return float(f"{grouped.replace(kinds[0], '')}.{tail or 0}")


def _named(text: str, wanted: str) -> str:
    """The name pint has for a unit as written; the unit ``wanted`` may be any of pint's, or a word of its own."""
    said = re.sub(r"\.(?=\s|$)|(?<=fl)\.", "", text.strip()).strip()
    for spelling in (said, wanted) if said and _same(said, wanted) else (said,):
        known = _CASED.get(spelling) or _FOLDED.get(" ".join(spelling.lower().split()))
        if known:
            return known
        if spelling == wanted:
            return wanted
    raise Refused("unknown_unit" if said else "no_unit")


def _in(value: float, text: str, wanted: str) -> tuple[float, str]:
    """A value, given in a unit as written, in the unit wanted, and that unit's name."""
    if not text and not wanted:
        return value, ""
    given = _named(text, wanted)
    if wanted and _same(text.strip(), wanted):
        return value, wanted
    import pint

    registry = _registry()
    if not wanted:
        return value, f"{registry.Unit(given):~P}"
    try:
        target = _CASED.get(wanted) or _FOLDED.get(wanted.lower()) or wanted
        return float(registry.Quantity(value, given).to(target).magnitude), wanted
    except pint.DimensionalityError:
        raise Refused("other_dimension") from None
    except Exception:  # a wanted unit is read by Python's tokenizer, which raises what it likes
        raise Refused("unknown_unit") from None


def _adds_up(unit: str) -> bool:
    """Whether portions in this unit make a whole: mass, volume, pieces, or what pint does not know (sheets)."""
    import pint

    try:
        return any(_registry().Unit(unit).is_compatible_with(whole) for whole in ("gram", "liter", "count"))
    except pint.UndefinedUnitError:
        return True


def _same(unit: str, wanted: str) -> bool:
    """Whether two spellings are one; case and a plural s count for nothing in words, and for much in ``Gb``."""
    one, other = (word.lower().removesuffix("s") for word in (unit, wanted))
    return unit == wanted or (one == other and len(one) > 3)


def _tidy(value: float) -> int | float:
    """Without the last digits, that conversion made; whole numbers as such."""
    short = float(f"{value:.10g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


@cache
def _registry() -> Any:
    try:
        import pint
    except ImportError:
        raise ImportError("units are converted by pint: pip install 'magister[extract]'") from None
    return pint.UnitRegistry(cache_folder=None)
