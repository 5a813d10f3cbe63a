"""Questions: three wordings a label, all different, made of the guideline."""

import pytest
from magister.prompts.faces import face
from magister.prompts.questions import WORDINGS, questions
from magister.tasks import TASKS
from magister.tasks.attributes import Attribute, Schema


def test_entity_questions(probes):
    asked = questions("ner", probes.TYPES)
    assert list(asked) == ["PER", "LOC", "MISC"]
    assert asked["LOC"] == (
        'Which words in the text are names of the type "location"? Name of a place on the map.',
        "Name of a place on the map. Which mentions of this kind does the text contain?",
        'Does the text name anything of the type "location", and with which words?',
    )
    assert questions(TASKS["ner"], probes.TYPES) == asked


def test_attribute_questions(probes):
    asked = questions("attributes", probes.ATTRIBUTES)
    assert asked["Brand"][0] == "Which words in the product text state its Brand? Maker named on the pack."
    assert asked["Neckline"][0] == "Which of these is the Neckline of the product: V-Neck, Crew Neck or None?"
    assert asked["Use"][0] == "What is the Use of the product? What it is for."


@pytest.mark.parametrize("task", TASKS)
def test_three_different_wordings(task):
    for example, schema in face(task).probes():
        for asked in (questions(task, schema), questions(task, schema, example)):
            assert asked
            for texts in asked.values():
                assert len(texts) == len(set(texts)) == WORDINGS
                assert all(t == t.strip() and t[-1] in ".?" for t in texts)


def test_of_an_example_only_what_is_asked_of_it(probes):
    assert list(questions("attributes", probes.ATTRIBUTES)) == ["Brand", "Neckline", "Use", "Size"]
    assert list(questions("attributes", probes.ATTRIBUTES, probes.PRODUCT)) == ["Brand", "Neckline", "Use"]


def test_relation_questions():
    examples = {example.id: (example, schema) for example, schema in face("relations").probes()}
    pair, schema = examples["plain"]
    assert questions("relations", schema, pair)["/per/org/member_of"] == (
        'To whom or what does "Kobe Bryant" have the relation "member of" (person to organization)? '
        "The person belongs to the organization.",
        "The person belongs to the organization. "
        'If the head is "Kobe Bryant" and the relation "member of", who or what is the tail?',
        'Complete the triple: ("Kobe Bryant", member of, ?).',
    )
    joint, _ = examples["joint"]
    assert questions("relations", schema, joint) == questions("relations", schema)
    assert questions("relations", schema)["located"][2] == (
        "Complete the triple with names from the text: (?, located at, ?)."
    )


def test_one_name_with_two_meanings_is_asked_by_its_name_alone():
    def attribute(meaning, category):
        return Attribute(name="Size", description=meaning, categories=(category,))

    schema = Schema(attributes=(attribute("Shoe size.", "Shoes"), attribute("Screen size.", "Phones")))
    asked = questions("attributes", schema)["Size"]
    assert asked[0] == "What is the Size of the product?"
    assert len(set(asked)) == WORDINGS
    one = questions("attributes", Schema(attributes=schema.of("Shoes")))["Size"]
    assert one[0].endswith("Shoe size.")


def test_unknown_task():
    with pytest.raises(KeyError, match="unknown task 'poems'"):
        questions("poems", None)
