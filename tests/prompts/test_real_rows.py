"""Every template on real rows of the public sets, and real answers of an old teacher through the parser."""

import gzip
import json

import pytest
from magister.prompts.library import templates
from magister.prompts.parse import Parsed, parse, parse_rationale
from magister.prompts.preview import preview
from magister.prompts.render import InputFault
from magister.prompts.view import as_json, defuse
from magister.tasks.readers import data_root, read

ROWS = 40
SETS = ["twitter2015", "twitter2017", "implicitave", "ae110k", "oamine", "wdc_pave", "mepave", "mnre", "mnre_joint"]


@pytest.fixture(scope="module", params=SETS)
def data(request):
    if not data_root().is_dir():
        pytest.skip("the public data sets are not here (MAGISTER_DATA)")
    return read(request.param)


def test_templates_render_on_real_rows(data):
    refused = set()
    for template in templates(data.task):
        for row in range(ROWS):
            example = data.split("train")[row]
            try:
                prompt = preview(template, data, "train", row)
            except InputFault as fault:
                refused.add((template.name, template.front.needs != (), str(fault)))
                continue
            said = " ".join(prompt.messages[-1].text.split())
            assert " ".join(defuse(example.text).split()) in said
            if prompt.messages[-1].images and example.images:
                assert prompt.messages[-1].images[-1] == example.images[-1]
    assert all(needs for _, needs, _ in refused), refused
    assert len({name for name, _, _ in refused}) <= 3


def test_gold_written_as_an_answer_parses_to_itself(data):
    for example in data.split("train")[:500]:
        parsed = parse(data.task, as_json(example.gold, example), example, data.schema)
        assert isinstance(parsed, Parsed), (example.id, parsed)
        if data.task == "ner":
            assert {(e.text, e.type) for e in parsed.answer.entities} == {
                (e.text, e.type) for e in example.gold.entities
            }
            assert parsed.ungrounded == ()
        if data.task == "relations":
            assert parsed.repaired is None
            assert parsed.ungrounded == ()
            assert parsed.answer.relation == example.gold.relation
            assert {(t.head.text, t.relation, t.tail.text) for t in parsed.answer.triples} == {
                (t.head.text, t.relation, t.tail.text) for t in example.gold.triples
            }


def test_rationales_of_a_real_teacher_are_kept():
    path = data_root() / "mner/twitter2017/knowledge_chatgpt.jsonl.gz"
    if not path.is_file():
        pytest.skip("the public data sets are not here (MAGISTER_DATA)")
    with gzip.open(path, "rt") as file:
        texts = [json.loads(line)["knowledge"] for line, _ in zip(file, range(1000), strict=False)]
    kept = [p for t in texts if isinstance(p := parse_rationale(t), Parsed)]
    assert len(kept) >= 0.98 * len(texts)
