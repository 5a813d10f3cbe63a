"""Reports: one page that needs nothing else, escaped, with plots whose places are right."""

import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.eval import report
from magister.eval.plots import bars_svg, curve_svg, nice_ticks
from magister.eval.report import Bar, Bars, Card, Curve, Examples, Line, Mark, Point, Table, Text
from magister.eval.score import score
from magister.tasks import attributes, ner
from magister.tasks.images import Image
from PIL import Image as Pillow

NASTY = "<script>alert('x')</script> & \"quoted\""


def picture(size=(900, 600)):
    buffer = io.BytesIO()
    Pillow.new("RGB", size, "red").save(buffer, "PNG")
    return Image.of_bytes(buffer.getvalue(), "e1")


def sections():
    return [
        Text(NASTY, f"{NASTY}\n\nsecond paragraph"),
        Text("command", NASTY, code=True),
        Table("table", ("a", NASTY), ((NASTY, "1.5"), ("b", "2")), note=NASTY),
        Bars("bars", (Bar(NASTY, 0.5, 0.4, 0.6, NASTY), Bar("b", 0.25, group="g")), note=NASTY),
        Curve("curve", {NASTY: (Point(1, 0.5, 0.4, 0.6), Point(9, 0.7, 0.6, 0.8))}, NASTY),
        Examples("examples", (Card(NASTY, (Line(NASTY, NASTY, (Mark(1, 7, NASTY),), "wrong"),), (picture(),)),)),
    ]


class Page(HTMLParser):
    """Collects what a browser would fetch or run, and checks that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.tags = [], [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_escaped_and_fetches_and_runs_nothing():
    text = report.html_report(NASTY, sections())
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert all(url.startswith("data:image/jpeg;base64,") for url in page.fetched)
    assert "@import" not in text
    assert "url(" not in text
    assert "http" not in text


@given(st.text(), st.text())
def test_any_text_gives_a_well_formed_page(title, body):
    Page(report.html_report(title, [Text(title, body), Table(body, (title,), ((body,),))]))


def test_pictures_are_made_small_and_broken_ones_are_named():
    card = Card("c", (), (picture(), Image(source="folder/gone.jpg", example="e2")))
    text = report.html_report("t", [Examples("e", (card,))])
    assert "no picture (gone.jpg): there is no such file" in text
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", text).group(1)
    import base64

    assert Pillow.open(io.BytesIO(base64.b64decode(data))).size == (240, 160)


def test_marks_that_overlap_or_lie_outside_are_still_told():
    line = Line("who", "New York City", (Mark(0, 8, "LOC"), Mark(4, 13, "ORG"), Mark(50, 60, "PER")))
    text = report.html_report("t", [Examples("e", (Card("c", (line,)),))])
    marks = re.findall(r"<mark>(.*?)<small>(.*?)</small></mark>", text)
    assert marks == [("New York", "LOC"), ("York City", "ORG"), ("", "PER")]
    assert "</mark> City" in text


def test_bars_end_where_their_values_are():
    svg = ElementTree.fromstring(bars_svg(Bars("t", (Bar("a", 0.5, 0.4, 0.6), Bar("b", 0.25), Bar("c", 0.0)))))
    widths = [float(rect.get("width")) for rect in svg.iter("rect")]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.1)
    assert widths[2] == 0
    whisker = next(line for line in svg.iter("line") if line.get("class") == "whisker")
    assert float(whisker.get("x2")) - float(whisker.get("x1")) == pytest.approx(0.4 * widths[0], abs=0.1)


def test_curves_go_through_their_points():
    line = (Point(100, 0.6, 0.5, 0.7), Point(300, 0.8, 0.7, 0.9), Point(200, 0.7, 0.6, 0.8))
    svg = ElementTree.fromstring(curve_svg(Curve("t", {"a": line}, "x")))
    path = next(svg.iter("polyline")).get("points")
    (x1, y1), (x2, y2), (x3, y3) = (tuple(map(float, p.split(","))) for p in path.split())
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert y1 > y2


@pytest.mark.parametrize("section", [Bars("t", ()), Bars("t", (Bar("a", 0.0, 0.0, 0.0),))])
def test_plots_of_little_are_drawn(section):
    assert ElementTree.fromstring(bars_svg(section)).tag == "svg"


@pytest.mark.parametrize("lines", [{}, {"a": ()}, {"a": (Point(5, 0.5, 0.5, 0.5),)}])
def test_curves_of_little_are_drawn(lines):
    assert ElementTree.fromstring(curve_svg(Curve("t", lines, "x"))).tag == "svg"


@given(st.floats(0, 100), st.floats(0, 100))
def test_ticks_cover_the_range_in_even_steps(a, b):
    low, high = sorted((a, b))
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= high - 1e-6
    assert 2 <= len(ticks) <= 8


def test_a_run_is_written_as_json_markdown_and_html(tmp_path):
    entity = ner.Entity(text="Ann", type="PER", start=0, end=3)
    example = ner.Example(id="t1", text="Ann sings", gold=ner.Answer(entities=(entity,)))
    scores = score("ner", [example], [example.gold])
    shown = report.score_sections(scores, "student")
    paths = report.write_report(tmp_path / "run", "A run", shown, {"student": scores}, {"seed": 0})
    data = json.loads(paths["json"].read_text())
    assert (data["seed"], data["scores"]["student"]["metrics"]["f1"]["value"]) == (0, 1.0)
    markdown = paths["md"].read_text()
    assert "| F1 | 100.00 | 100.00 – 100.00 |" in markdown
    assert "| PER | 100.00 | 100.00 | 100.00 | 100.00 – 100.00 | 1 | 1 |" in markdown
    Page(paths["html"].read_text())


def test_markdown_holds_every_section():
    text = report.markdown_report("T", sections())
    assert text.count("\n## ") == len(sections())
    assert "| 9 | 70.00 | 60.00 – 80.00 |" in text
    assert "```text" in text


def test_cards_judge_entities_and_values():
    ann = ner.Entity(text="Ann", type="PER", start=0, end=3)
    tweet = ner.Example(id="t1", text="Ann sings", gold=ner.Answer(entities=(ann,)))
    lost = ner.Answer(entities=(ann, ner.Entity(text="Bob", type="PER")))
    card = report.card("ner", tweet, {"student": ner.Answer(entities=(ann,)), "teacher": lost, "mute": None})
    assert [(line.label, line.verdict) for line in card.lines] == [
        ("gold", ""),
        ("student", "right"),
        ("teacher", "wrong"),
        ("mute", "wrong"),
    ]
    assert "not in the text: Bob [PER]" in card.lines[2].text
    gold = attributes.Answer(values={"Color": ("red",), "Size": ()})
    product = attributes.Example(id="p", text="red lure", gold=gold)
    answers = {
        "a": attributes.Answer(values={"Color": ("red",)}),
        "b": attributes.Answer(values={"Size": ("8",)}),
    }
    card = report.card("attributes", product, answers)
    assert [(line.text, line.verdict) for line in card.lines] == [
        ("red lure", ""),
        ("Color: red; Size: –", ""),
        ("Color: red", "right"),
        ("Size: 8", "wrong"),
    ]
