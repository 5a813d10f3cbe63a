"""Labels that the form of the data gives away, on pairs made by hand and on MNRE itself."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from magister.eval import audit
from magister.tasks.ner import Entity
from magister.tasks.readers import READERS, data_root, read
from magister.tasks.relations import Answer, Example
from magister.tasks.task import DataFault
from sklearn.metrics import accuracy_score, balanced_accuracy_score


def pair(number: int, related: bool, tail_first: bool = False) -> Example:
    text = "Kim sees the Raptors"
    kim, raptors = Entity(text="Kim", type="", start=0, end=3), Entity(text="Raptors", type="", start=13, end=20)
    return Example(
        id=f"e{number}",
        text=text,
        pair=(raptors, kim) if tail_first else (kim, raptors),
        gold=Answer(relation="sees" if related else "None"),
    )


def drawn(count: int, seed: int, leak: float = 0.0) -> list[Example]:
    """Related by a coin; the tail stands first by another one, or with the chance ``leak`` because it is related."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        related = rng.random() < 0.4
        tail_first = related if rng.random() < leak else rng.random() < 0.3
        made.append(pair(1000 * seed + number, related, tail_first))
    return made


def by_name(findings: list[audit.Finding]) -> dict[str, audit.Finding]:
    return {found.feature: found for found in findings}


def test_a_feature_that_follows_the_label_leaks_and_others_are_silent() -> None:
    train, test = drawn(600, 1, leak=0.9), drawn(400, 2, leak=0.9)
    findings = audit.audit(train, test)
    assert findings[0].feature == audit.TOGETHER
    assert findings[1].feature == "order"
    found = by_name(findings)
    assert found["order"].verdict == "leaks"
    assert found[audit.TOGETHER].verdict == "leaks"
    truth = [e.gold.relation != "None" for e in test if e.gold]
    said = [e.pair[0].start > e.pair[1].start for e in test]  # type: ignore[index,operator]
    assert found["order"].balanced.value == pytest.approx(balanced_accuracy_score(truth, said))
    assert found["order"].accuracy.value == pytest.approx(accuracy_score(truth, said))
    assert {found[name].verdict for name in ("pictures", "words", "side texts", "same mention")} == {"silent"}
    assert found["words"].balanced.value == 0.5


def test_without_a_leak_nothing_is_told() -> None:
    """Over many draws a feature that is no leak is hardly ever called one."""
    leaky = sum(
        by_name(audit.audit(drawn(300, s), drawn(300, 50 + s), resamples=300))["order"].verdict == "leaks"
        for s in range(1, 15)
    )
    assert leaky == 0


def test_features_of_ones_own(tmp_path: Path) -> None:
    """The released crops of MNRE: four for a related pair, two for another."""
    train, test = drawn(200, 1), drawn(100, 2)
    file = tmp_path / "crops.jsonl"
    rows = [{"id": e.id, "crops": 4 if e.gold and e.gold.relation != "None" else 2} for e in (*train, *test)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = by_name(audit.audit(train, test, beside=audit.read_features(file)))["crops"]
    assert found.balanced.value == 1.0
    assert found.verdict == "leaks"
    assert found.telling.startswith(("4: 100%", "2: 0%"))
    with pytest.raises(DataFault, match="no id of the data"):
        audit.audit(train, test, beside={"other": {"crops": "2"}})
    file.write_text('{"crops": 4}', encoding="utf-8")
    with pytest.raises(DataFault, match="line 1"):
        audit.read_features(file)


def test_a_value_that_training_has_not_is_not_related() -> None:
    test = [pair(number, related=number % 2 == 0) for number in range(10)]
    beside: dict[str, Any] = {f"e{number}": {"new": "x"} for number in range(10)}
    found = by_name(audit.audit(drawn(100, 7), test, beside=beside))["new"]
    assert found.balanced.value == 0.5
    assert found.accuracy.value == 0.5


def test_only_given_pairs_with_gold() -> None:
    joint = pair(0, related=True).model_copy(update={"pair": None})
    with pytest.raises(DataFault, match="no given pair"):
        audit.audit([joint], [joint])
    with pytest.raises(DataFault, match="training pairs"):
        audit.audit([], [pair(0, related=True)])


@pytest.mark.skipif(not (data_root() / READERS["mnre"].folder).is_dir(), reason="the data set is not here")
def test_the_order_of_mnre_tells() -> None:
    """A tail before its head is related in 1,391 of 1,427 training pairs and 213 of 217 test pairs of the original."""
    data = read("mnre")
    found = by_name(audit.audit(data.split("train"), data.split("test"), data.schema.none))
    assert found["order"].verdict == "leaks"
    assert found["order"].telling.startswith("tail first: 98%")
    assert by_name(audit.audit(data.split("train"), data.split("test")))["types given"].verdict == "silent"


@pytest.mark.skipif(not (data_root() / "mel/grocery_linking").is_dir(), reason="the data set is not here")
def test_the_probe_tells_nothing_but_by_its_photos() -> None:
    data = read("image_decides_relations")
    assert {found.balanced.value for found in audit.audit(data.split("train"), data.split("test"))} == {0.5}
