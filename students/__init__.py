"""Floor 3: who learns - encoders, fusion, heads, and the zoo of published systems."""

from __future__ import annotations

import ast
import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: A student's name to the module and class that it is.
STUDENTS = {
    "unified": "students.unified:Unified",
    "opentag": "students.attributes.opentag:OpenTag",
    "suopentag": "students.attributes.suopentag:SUOpenTag",
    "aveqa": "students.attributes.aveqa:AVEQA",
    "mae": "students.attributes.mae:MAE",
    "mjave": "students.attributes.mjave:MJAVE",
    "mxt": "students.attributes.mxt:MXT",
    "modality_attention": "students.ner.modality_attention:ModalityTagger",
    "visual_attention": "students.ner.visual_attention:VisualAttention",
    "cot_prompt": "students.ner.cot_prompt:CoTPrompt",
    "ita": "students.ner.ita:ITA",
    "ocsga": "students.ner.ocsga:OCSGA",
    "umgf": "students.ner.umgf:UMGF",
    "debiascl": "students.ner.debiascl:DebiasCL",
    "mner_qg": "students.ner.mner_qg:MNERQG",
    "mega": "students.relations.mega:MEGA",
    "promu": "students.relations.promu:PROMU",
    "retrieval": "students.relations.retrieval:Retrieval",
    "hvpnet": "students.relations.hvpnet:HVPNeT",
    "mkgformer": "students.relations.mkgformer:MKGformer",
    "mumrc": "students.relations.mumrc:MUMRC",
}

_PACKAGE = __name__.rpartition(".")[0]


def find(name: str) -> Any:
    """The class of a student, imported now; a `KeyError` that lists what there is, if there is none."""
    module, _, made = _path(name).partition(":")
    return getattr(import_module(module), made)


def describe(name: str) -> str:
    """What a student is, in one line, read from its file without importing it."""
    spec = find_spec(_path(name).partition(":")[0])
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n", 1)[0]


def load(folder: str | Path) -> Any:
    """The student that lies in a folder (its own, or that of the run that trained it), whichever it is."""
    folder = best_of(folder)
    name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["student"]
    return find(name).from_pretrained(folder)


def best_of(folder: str | Path) -> Path:
    """Where the student of a folder lies: the folder itself, or ``best`` in that of the run that trained it."""
    best = Path(folder) / "best"
    return best if best.is_dir() else Path(folder)


def _path(name: str) -> str:
    if name not in STUDENTS:
        raise KeyError(f"no student {name!r}; there are: {', '.join(STUDENTS)}")
    return f"{_PACKAGE}.{STUDENTS[name]}"
