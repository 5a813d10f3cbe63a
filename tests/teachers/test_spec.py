"""Spec strings."""

from __future__ import annotations

import pytest
from magister.teachers.spec import FORMS, UnknownTeacher, teacher


def test_openai_specs():
    made = teacher("openai:org/model@https://host/v1")
    assert (made.spec, made.sees_images) == ("openai:org/model@https://host/v1", True)


@pytest.mark.parametrize("spec", ["", "gpt", "hf:", "openai:m", "openai:m@host", "demo:x"])
def test_other_specs_are_refused_with_the_forms(spec):
    with pytest.raises(ValueError, match="openai:"):
        teacher(spec)


@pytest.mark.parametrize("spec", ["openai:m@http://h/v1?key=hush", "other:m@http://me:hush@h/v1"])
def test_a_refused_spec_shows_no_secret(spec):
    with pytest.raises(ValueError, match=r"URL|unknown teacher") as error:
        teacher(spec)
    assert "hush" not in str(error.value)


def test_an_unknown_teacher_lists_all_forms():
    with pytest.raises(UnknownTeacher) as error:
        teacher("llama:x")
    assert all(form in str(error.value) for form in FORMS)


def test_limits_reach_the_endpoint_and_nobody_else():
    made = teacher("openai:m@http://h/v1", concurrency=3, rpm=60, tpm=None)
    assert (made.limits.width.most, made.limits.requests is None, made.limits.tokens is None) == (3, False, True)
    with pytest.raises(ValueError, match="concurrency"):
        teacher("batch:x?model=m", concurrency=3)
    with pytest.raises(ValueError, match="concurrency of 0"):
        teacher("openai:m@http://h/v1", concurrency=0)


def test_batch_specs():
    assert teacher("batch:some/dir?model=org/m").spec == "batch:some/dir?model=org/m"
    with pytest.raises(ValueError, match="model=NAME"):
        teacher("batch:some/dir")
