"""How a student lies in a folder: its config, its own weights, the adapter or the backbone, the tokenizer, a card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..models.torchvision_guard import guard
from ..tasks import TASKS
from .encoders import text
from .encoders.text import TextEncoder

CONFIG, WEIGHTS, ADAPTER, BACKBONE, TOKENIZER = (
    "config.json",
    "model.safetensors",
    "adapter",
    "backbone",
    "tokenizer",
)

#: The backbone's weights inside a student: kept as an adapter or a backbone folder, never in ``model.safetensors``.
_OUTSIDE = "encoder."


class CheckpointError(ValueError):
    """A folder that holds no student, or not the one it says: which file, what is wrong, what to do."""


def write(
    folder: Path, name: str, student: nn.Module, encoder: TextEncoder | None, settings: Mapping[str, Any]
) -> None:
    """Write a student; an existing one in that folder is written over.

    Args:
        folder: made if it is not there.
        name: the student's name in ``STUDENTS``.
        student: its weights, all but the encoder's.
        encoder: its backbone, if it has one: kept as an adapter in PEFT's format if it wears one, else as transformers
            does.
        settings: what else ``config.json`` keeps; ``settings["config"]["backbone"]`` is the backbone's name.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if encoder is not None:
        _write_encoder(folder, encoder, settings["config"]["backbone"])
    save_file(own_state(student), folder / WEIGHTS, metadata={"format": "pt"})
    text_ = json.dumps({"student": name, **settings}, indent=1, ensure_ascii=False)
    (folder / CONFIG).write_text(text_ + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(name, settings), encoding="utf-8")


def _write_encoder(folder: Path, encoder: TextEncoder, backbone: str) -> None:
    if encoder.plain is encoder.model:
        encoder.model.save_pretrained(folder / BACKBONE)
    else:
        for adapter in encoder.model.peft_config.values():
            adapter.base_model_name_or_path = backbone  # the short name: it means the same on another machine
        encoder.model.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
        (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # peft's template; the card is ours
    encoder.sub_tokens.tokenizer.save_pretrained(folder / TOKENIZER)


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """``config.json``, with its schemas made `Schema`s; a `CheckpointError` if it is not that student's."""
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no student there ({error})") from None
    if not isinstance(found, dict) or found.get("student") != name:
        raise CheckpointError(f"{path}: not the config of a {name!r} student")
    found["schemas"] = {key: TASKS[key].Schema(**schema) for key, schema in found["schemas"].items()}
    return found


def read_encoder(folder: Path, backbone: str, max_tokens: int | None, load: Callable[..., Any] = text.load) -> Any:
    """The backbone with its adapter, or the fully trained one, made by `encoders.text.load` or a function like it."""
    if (folder / BACKBONE).is_dir():
        return load(str(folder / BACKBONE), folder / TOKENIZER, max_tokens)
    encoder = load(backbone, folder / TOKENIZER, max_tokens)
    guard()
    from peft import PeftModel

    encoder.model = text.spare_casts(PeftModel.from_pretrained(encoder.model, folder / ADAPTER, is_trainable=True))
    return encoder


def read_weights(folder: Path, student: nn.Module) -> None:
    """Fill in the student's own weights; a `CheckpointError` if one is missing or one too many."""
    from safetensors.torch import load_file

    found = load_file(folder / WEIGHTS)
    expected = own_state(student).keys()
    if found.keys() != expected:
        wrong = sorted(found.keys() ^ expected)
        raise CheckpointError(f"{folder / WEIGHTS}: not the weights of this config; differing: {', '.join(wrong)}")
    student.load_state_dict(found, strict=False)


def own_state(student: nn.Module) -> dict[str, Tensor]:
    """A student's weights without its backbone's."""
    state = student.state_dict()
    return {key: value.detach().cpu().contiguous() for key, value in state.items() if not key.startswith(_OUTSIDE)}


def card(name: str, settings: Mapping[str, Any]) -> str:
    """A model card's stub; what it was trained on and scored is added by who trained it."""
    config = settings["config"]
    backbone = config.get("backbone")
    tuned = f"LoRA of rank {config['lora_rank']}" if config.get("lora_rank") else "full fine-tuning"
    base = f"base_model: {backbone}\n" if backbone else ""
    made = [f"- tasks: {', '.join(settings['schemas'])}"]
    made += [f"- backbone: {backbone} ({tuned})"] if backbone else []
    made += [f"- heads: {', '.join(config['heads'])}"] if isinstance(config.get("heads"), list) else []
    return (
        f"---\nlibrary_name: magister\n{base}---\n# A `{name}` student of Magister\n\n" + "\n".join(made) + "\n\n"
        "```python\nfrom magister.students import load\n\n"
        'student = load("PATH OF THIS FOLDER")\nanswers = student.predict(examples)\n```\n'
    )
