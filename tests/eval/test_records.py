"""Results records: strict to read, and rendered the same each time."""

import json

import pytest
from magister.eval.records import (
    Measure,
    RecordFault,
    ResultRecord,
    measures,
    read,
    read_all,
    read_claims,
    render,
    slug,
    write,
)
from magister.eval.score import score
from magister.tasks.ner import Answer, Entity, Example


def record(variant="text only", seed=0, value=0.80, train=3373, **changed):
    fields = {
        "name": slug("twitter2017", variant, train, seed),
        "task": "ner",
        "dataset": "twitter2017",
        "system": "unified",
        "variant": variant,
        "seed": seed,
        "command": f"magister distill ner.yaml variant='{variant}' seed={seed}",
        "revision": "0123456789abcdef",
        "backbone": "MiniLM-L6 22.7 M + LoRA",
        "protocol": "strict entity F1",
        "metrics": {
            "precision": Measure(value=value, low=value - 0.02, high=value + 0.02),
            "f1": Measure(value=value, low=value - 0.02, high=value + 0.02),
        },
        "counts": {"unparseable": 0},
        "examples": {"train": train, "test": 723},
        "seconds": 61.5,
        "date": "2026-01-31",
        "notes": "",
    }
    return ResultRecord(**{**fields, **changed})


def test_scores_become_measures():
    gold = Answer(entities=(Entity(text="Ann", type="PER", start=0, end=3),))
    scores = score("ner", [Example(id="1", text="Ann", gold=gold)], [gold], resamples=10)
    assert record(metrics=measures(scores)).primary == Measure(value=1, low=1, high=1)


def test_a_slug_is_a_valid_name():
    assert slug("ner", "text + caption | all", 3) == "ner-text-+-caption-all-3"


def spoil(path, **changed):
    data = json.loads(path.read_text())
    data.update(changed)
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = write(record(), tmp_path / "results")
    assert read(path) == record()
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


@pytest.mark.parametrize("field", list(ResultRecord.model_fields))
def test_a_record_without_a_field_is_refused_by_name(tmp_path, field):
    path = write(record(), tmp_path)
    spoil(path, **{field: None})
    with pytest.raises(RecordFault, match=rf"{path.name}.*{field}: Field required"):
        read(path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mood": "good"}, "mood: Extra inputs"),
        ({"seed": "0"}, "seed: Input should be a valid integer"),
        ({"date": "yesterday"}, r"date: .*isoformat"),
        ({"command": ""}, "command: String should have at least 1"),
        ({"task": "poetry"}, "unknown task 'poetry'"),
        ({"metrics": {}}, "metrics lack 'f1'"),
        (
            {"metrics": {"f1": {"value": 84.9, "low": 0.8, "high": 0.9}}},
            r"metrics.f1.value: .*less than or equal to 1",
        ),
        ({"metrics": {"f1": {"value": 0.8, "low": 0.9, "high": 0.7}}}, "ends are in the wrong order"),
        ({"name": "other"}, "its name is 'other'"),
    ],
)
def test_a_spoilt_record_is_refused_by_name(tmp_path, changed, words):
    path = write(record(), tmp_path)
    spoil(path, **changed)
    with pytest.raises(RecordFault, match=words):
        read(path)


def test_all_faults_of_a_record_are_told_at_once(tmp_path):
    path = write(record(), tmp_path)
    spoil(path, seed="0", date="yesterday", notes=None)
    with pytest.raises(RecordFault, match=r"seed: .*date: .*notes: "):
        read(path)


def test_broken_json_and_missing_folders_are_named(tmp_path):
    (tmp_path / "half.json").write_text('{"name": "ha')
    with pytest.raises(RecordFault, match=r"half.json: not JSON"):
        read_all(tmp_path)
    with pytest.raises(RecordFault, match="no such folder"):
        read_all(tmp_path / "nowhere")


def test_two_records_of_one_run_are_refused(tmp_path):
    write(record(), tmp_path)
    write(record(name="again", value=0.9), tmp_path)
    with pytest.raises(RecordFault, match="same task, data set, system, variant, training size and seed"):
        read_all(tmp_path)


@pytest.fixture
def results(tmp_path):
    for seed, (plain, known) in enumerate([(0.80, 0.84), (0.81, 0.86), (0.82, 0.85)]):
        write(record(seed=seed, value=plain), tmp_path)
        write(record("+ knowledge", seed=seed, value=known), tmp_path)
        write(record(seed=seed, value=plain - 0.1, train=337), tmp_path)
    write(record("floor | majority", system="floor", value=0.1, dataset="other <set>"), tmp_path)
    return tmp_path


def test_the_page_groups_seeds_and_keeps_small_training_sets_for_the_curve(results):
    page = render(results)
    assert "| unified | text only | MiniLM-L6 22.7 M + LoRA | 3,373 | 723 | 0, 1, 2 | **81.00 ± 1.00** |" in page
    assert "79.0 – 83.0" in page
    table, curve = page.split("### Learning curves")
    assert "71.00" not in table.split("## twitter2017")[1]
    assert "| unified | text only | 71.00 ± 1.00 | 81.00 ± 1.00 |" in curve
    assert "+ knowledge" not in curve.split("Protocol")[0]
    assert page.count("magister distill") == 10
    assert "floor \\| majority" in page
    assert "other &lt;set>" in page


def test_the_page_is_the_same_each_time_and_in_any_order_of_files(results, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for path in sorted(results.iterdir(), reverse=True):
        (other / path.name).write_text(path.read_text())
    assert render(results) == render(results) == render(other)


def claim(**changed):
    base = {"dataset": "twitter2017", "system": "unified", "metric": "f1", "aim": 0.04}
    return {**base, "variant": "+ knowledge", "over": "text only", **changed}


def test_claims_are_checked_seed_by_seed(results):
    claims = [claim(), claim(aim=0.05), claim(variant="new"), claim(dataset="twitter2015")]
    (results / "claims.json").write_text(json.dumps(claims))
    page = render(results)
    assert "| f1 | +4.0 | +4.00 ± 1.00 (n = 3) | 0: +4.00, 1: +5.00, 2: +3.00 | met |" in page
    assert "| f1 | +5.0 | +4.00 ± 1.00 (n = 3) | 0: +4.00, 1: +5.00, 2: +3.00 | not met |" in page
    assert "unified: new over text only | f1 | +4.0 | – | – | not run yet |" in page
    assert "without a record yet: twitter2015" in page


def test_claims_across_protocols_or_without_a_common_seed_are_not_judged(results):
    write(record("other rule", seed=1, protocol="lenient"), results)
    write(record("other seed", seed=7), results)
    (results / "claims.json").write_text(json.dumps([claim(over="other rule"), claim(over="other seed")]))
    page = render(results)
    assert "not comparable: two protocols" in page
    assert "no seed in common" in page


def test_a_bad_claim_is_refused_by_its_number(results):
    (results / "claims.json").write_text(json.dumps([claim(), {"dataset": "x"}]))
    with pytest.raises(RecordFault, match=r"claims.json: claim 2: system: Field required"):
        read_claims(results)


def test_a_note_stands_under_its_data_set(tmp_path):
    write(record(), tmp_path)
    assert "to compare" not in render(tmp_path)
    (tmp_path / "twitter2017.md").write_text("What to compare.\n", encoding="utf-8")
    (tmp_path / "mnre.md").write_text("Of another set.\n", encoding="utf-8")
    page = render(tmp_path)
    assert page.index("| unified |") < page.index("What to compare.") < page.index("Protocol")
    assert "Of another set" not in page
