"""Normalisation: what is read, what is refused, and by which name."""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.extraction.normalise import RULES, Normalised, iso_date, normalise
from magister.extraction.quantities import Refused, _registry, quantity
from magister.tasks.attributes import Attribute

_registry()  # made once: it takes half a second, which hypothesis would count
DATA = Path(os.environ.get("MAGISTER_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")


@pytest.mark.parametrize(
    ("text", "unit", "value", "rule"),
    [
        ("1.5 fl oz", "ml", 44.36029434, "unit"),
        ("16.9 FL. OZ.", "ml", 499.7926496, "unit"),
        ("2 x 100 ml", "ml", 200, "pack"),
        ("2×100ml", "l", 0.2, "pack"),
        ("3 x 50 sheets", "sheet", 150, "pack"),
        ("10-12 in", "in", (10, 12), "range"),
        ("10 in – 12 in", "cm", (25.4, 30.48), "range"),
        ("-10 to 40 °C", "°C", (-10, 40), "range"),
        ("1,5 kg", "g", 1500, "unit"),
        ("½ inch", "mm", 12.7, "unit"),
        ("1½″", "mm", 38.1, "unit"),
        ("1 1/2 in", "mm", 38.1, "unit"),
        ('21-1/4"', "cm", 53.975, "unit"),
        ("3/8 in.", "mm", 9.525, "unit"),
        ("146-GB", "GB", 146, "unit"),
        ("0,500 kg", "g", 500, "unit"),
        ("1,234,567 mm", "m", 1234.567, "unit"),
        ("1.234,5 g", "kg", 1.2345, "unit"),
        ("1,234.5 g", "kg", 1.2345, "unit"),
        ("12’500 g", "kg", 12.5, "unit"),
        ("12\u202f500 g", "kg", 12.5, "unit"),
        ("-18 °C", "°F", -0.4, "unit"),
        ("６ m²", "m2", 6, "unit"),
        ("180 g/m²", "g/m2", 180, "unit"),
        ("10 Sheets", "sheet", 10, "unit"),
        ("10,000 lbs", "kg", "ambiguous_number", None),
        ("1,500 ml", "l", "ambiguous_number", None),
        ("1.500 kg", "g", "ambiguous_number", None),
        ("10 000 mAh", "mAh", "ambiguous_number", None),
        ("10/12 in", "in", "ambiguous_fraction", None),
        ("10 x 20 cm", "cm", "dimensions", None),
        ("10 x 20 x 5 cm", "cm", "dimensions", None),
        ("8 oz", "ml", "other_dimension", None),
        ("500", "ml", "no_unit", None),
        ("10-12", "in", "no_unit", None),
        ("5 Gb", "GB", "unknown_unit", None),
        ("6G", "GB", "unknown_unit", None),
        ("5 sheets", "ml", "unknown_unit", None),
        ("12-10 in", "in", "not_a_range", None),
        ("up to 5 h", "h", "not_a_number", None),
        ("about 2 kg", "kg", "not_a_number", None),
        ("1.5.2 m", "m", "not_a_number", None),
        ("12,34,567 m", "m", "not_a_number", None),
        ("5' 10\"", "cm", "not_a_number", None),
        ("large", "cm", "not_a_number", None),
        ("", "cm", "not_a_number", None),
        ("9" * 400, "cm", "not_a_number", None),
        ("5 cm", "nonsense(", "unknown_unit", None),
    ],
)
def test_quantities(text, unit, value, rule):
    if rule is None:
        with pytest.raises(Refused) as refused:
            quantity(text, unit)
        assert refused.value.args == (value,)
    else:
        found = quantity(text, unit)
        assert found.value == (value if isinstance(value, tuple) else pytest.approx(value, rel=1e-9))
        assert (found.unit, found.rule) == (unit, rule)


def test_a_known_decimal_mark_decides_what_could_be_either():
    assert quantity("1,500 ml", "l", decimal=".").value == 1.5
    assert quantity("1,500 ml", "l", decimal=",").value == 0.0015
    assert quantity("1.500 kg", "g", decimal=".").value == 1500
    assert quantity("1.500 kg", "g", decimal=",").value == 1_500_000
    assert quantity("1,5 kg", "g", decimal=".").value == 1500, "one digit is no group"


def test_without_a_unit_wanted_the_one_as_written_is_kept():
    assert quantity("500 ML") == (500, "ml", "number")
    assert quantity("12") == (12, "", "number")
    assert quantity("2 lbs.").unit == "lb"


#: Units with their size, written down from the definitions and not from pint.
SIZES = {"mm": 0.001, "cm": 0.01, "m": 1.0, "in": 0.0254, "ft": 0.3048, "yd": 0.9144}


@settings(deadline=None)
@given(st.integers(1, 99_999), st.integers(0, 3), st.sampled_from(sorted(SIZES)), st.sampled_from(sorted(SIZES)))
def test_lengths_convert_as_defined(digits, places, given_in, wanted):
    number = digits / 10**places
    text = f"{number:.{places}f} {given_in}"
    found = quantity(text, wanted, decimal=".")
    assert found.value == pytest.approx(number * SIZES[given_in] / SIZES[wanted], rel=1e-8)
    assert quantity(f"{found.value:.12f} {wanted}", given_in, decimal=".").value == pytest.approx(number, rel=1e-6)


@given(st.integers(0, 10**9), st.sampled_from([",", ".", "'"]), st.integers(0, 99))
def test_grouped_numbers_are_read_as_they_were_written(whole, mark, cents):
    decimal = "." if mark != "." else ","
    text = f"{whole:,}".replace(",", mark) + f"{decimal}{cents:02}"
    assert quantity(text).value == pytest.approx(whole + cents / 100)


MARKS = "0123456789 .,/-x½¼'\"°CmlkgintofGB²×–"


@settings(deadline=None)
@given(st.text(st.sampled_from(MARKS), max_size=14), st.sampled_from(["", "ml", "cm"]))
def test_any_text_is_read_or_refused_by_a_known_name(text, unit):
    counted: Counter[str] = Counter()
    found = normalise(Attribute(name="x", type="number", unit=unit), text, counted)
    (reason,) = counted
    assert reason in (RULES if found else str(quantity.__doc__))
    assert found is None or re.search(r"[\d½¼²]", text)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2021-03-04", "2021-03-04"),
        ("2021/3/4", "2021-03-04"),
        ("2021-03-04T10:00:00Z", "2021-03-04"),
        ("12/25/2021", "2021-12-25"),
        ("25.12.2021", "2021-12-25"),
        ("04/04/2021", "2021-04-04"),
        ("4 March 2021", "2021-03-04"),
        ("Mar 4th, 2021", "2021-03-04"),
        ("4-Mar-2021", "2021-03-04"),
        ("March 2021", "2021-03"),
        ("05/2021", "2021-05"),
        ("2021-05", "2021-05"),
        ("2021", "2021"),
        ("03/04/2021", None),
        ("04.05.2021", None),
    ],
)
def test_dates(text, iso):
    if iso:
        assert iso_date(text) == iso
    else:
        with pytest.raises(Refused, match="ambiguous_date"):
            iso_date(text)


def test_a_known_order_decides_an_ambiguous_date():
    assert iso_date("03/04/2021", day_first=True) == "2021-04-03"
    assert iso_date("03/04/2021", day_first=False) == "2021-03-04"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5 Mar 21", "no_four_digit_year"), ("soon", "not_a_date"), ("2021-13-04", "not_a_date"),
        ("30 February 2021", "not_a_date"), ("Sunday 2021", "not_a_date"), ("10am 2020", "not_a_date"),
        ("1.5 2020", "not_a_date"), ("2021 2020", "not_a_date"), ("best before 2021", "not_a_date"), ("", "not_a_date"),
    ],
)  # fmt: skip
def test_what_is_no_date_is_refused(text, reason):
    with pytest.raises(Refused, match=reason):
        iso_date(text)


@given(st.dates(min_value=date(1900, 1, 1)))
def test_a_date_in_words_comes_back(day):
    assert iso_date(f"{day:%d %B %Y}") == iso_date(f"{day:%B} {day.day}, {day.year}") == day.isoformat()


@given(st.text(st.sampled_from("0123456789/-. marchT:Z,"), max_size=16))
def test_any_text_is_a_date_or_refused(text):
    try:
        found = iso_date(text)
    except Refused:
        return
    assert re.fullmatch(r"\d{4}(-\d\d){0,2}", found)
    assert found[:4] in text


COLOUR = Attribute(name="Colour", type="free", names={"Navy": "dark blue", "anthracite ": "grey"})


@pytest.mark.parametrize(
    ("attribute", "value", "made"),
    [
        (COLOUR, "NAVY", Normalised(value="dark blue", rule="name")),
        (COLOUR, "Anthracite", Normalised(value="grey", rule="name")),
        (COLOUR, "Dark Blue", Normalised(value="dark blue", rule="name")),
        (Attribute(name="Vegan", type="boolean"), "Yes", Normalised(value=True, rule="boolean")),
        (Attribute(name="Vegan", type="boolean"), "false", Normalised(value=False, rule="boolean")),
        (
            Attribute(name="S", type="one_of", options=("Long", "Short")),
            "LONG",
            Normalised(value="Long", rule="option"),
        ),
        (Attribute(name="Net", type="number", unit="ml"), "1 l", Normalised(value=1000, unit="ml", rule="unit")),
        (Attribute(name="Made", type="date"), "March 2021", Normalised(value="2021-03", rule="date")),
    ],
)
def test_each_type_has_its_rule(attribute, value, made):
    reasons: Counter[str] = Counter()
    assert normalise(attribute, value, reasons) == made
    assert reasons == {made.rule: 1}
    assert made.rule in RULES


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        (COLOUR, "red", "not_among_names"),
        (Attribute(name="Vegan", type="boolean"), "partly", "not_a_boolean"),
        (Attribute(name="S", type="one_of", options=("Long", "Short")), "medium", "not_an_option"),
        (Attribute(name="Brand"), "Acme", "no_rule"),
        (Attribute(name="Net", type="number", unit="ml"), "8 oz", "other_dimension"),
        (Attribute(name="Made", type="date"), "03/04/2021", "ambiguous_date"),
    ],
)
def test_what_no_rule_is_sure_of_is_none_and_counted(attribute, value, reason):
    reasons: Counter[str] = Counter()
    assert normalise(attribute, value, reasons) is None
    assert normalise(attribute, value) is None
    assert reasons == {reason: 1}
    assert reason in normalise.__doc__ + quantity.__doc__


def test_a_normal_form_is_json_and_keeps_its_type():
    for value in (True, 3, 2.5, "x", (1, 2.5)):
        made = Normalised(value=value, unit="u", rule="r")
        assert type(made.value) is type(value)
        assert made.model_dump(mode="json")["value"] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.skipif(not (DATA / "mae" / "wdc_pave").is_dir(), reason="WDC-PAVE is not here (MAGISTER_DATA)")
def test_widths_and_heights_of_wdc_pave_become_its_own_centimetres():
    """Values written with a unit that reach the set's normalised gold, to its one decimal: at least nine of ten."""
    from magister.tasks.readers import wdc_pave

    written = wdc_pave.read(DATA / "mae" / "wdc_pave", "wdc_pave")
    wanted = wdc_pave.read(DATA / "mae" / "wdc_pave", "wdc_pave_normalised")
    gold = {e.id: e.gold.values for split in ("train", "valid", "test") for e in wanted.split(split)}
    right = made = 0
    for example in (e for split in ("train", "valid", "test") for e in written.split(split)):
        for name in ("Width", "Height", "Depth"):
            for value in example.gold.values.get(name, ()):
                found = normalise(Attribute(name=name, type="number", unit="cm"), value)
                if found is not None and isinstance(found.value, int | float) and gold[example.id].get(name):
                    made += 1
                    right += any(abs(float(g) - found.value) < 0.06 for g in gold[example.id][name] if _is_number(g))
    assert made > 200
    assert right / made > 0.9


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None
