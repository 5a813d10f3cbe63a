"""Readers: public data sets in their original files, our own JSON lines, what `datasets` opens."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..dataset import Dataset
from ..task import DataFault


class Reader(NamedTuple):
    """A data set's reader: module here, task (empty: any), folder under the data root, one line about it."""

    module: str
    task: str
    folder: str
    description: str


#: Every reader by its name; modules are imported when they are used.
READERS: dict[str, Reader] = {
    "twitter2015": Reader("twitter", "ner", "mner/twitter2015", "tweets: PER LOC ORG OTHER, captions"),
    "twitter2017": Reader("twitter", "ner", "mner/twitter2017", "tweets: PER LOC ORG MISC, captions"),
    "gmner": Reader("twitter", "ner", "mner/twitter_gmner", "tweets of both sets relabelled, long captions"),
    "implicitave": Reader("implicitave", "attributes", "mae/implicitave", "product photos, one value of a list"),
    "ae110k": Reader("titles", "attributes", "mae/ae_110k_subset", "AliExpress titles, values in the title"),
    "oamine": Reader("titles", "attributes", "mae/oa_mine", "Amazon titles, values in the title"),
    "wdc_pave": Reader("wdc_pave", "attributes", "mae/wdc_pave", "shop offers, values as written"),
    "wdc_pave_normalised": Reader("wdc_pave", "attributes", "mae/wdc_pave", "shop offers, normalised values"),
    "mepave": Reader("mepave", "attributes", "mae/mepave_sample", "Chinese product sentences"),
    "mnre": Reader("mnre", "relations", "mre/mnre", "tweets: the relation of a pair, 22 and None, captions"),
    "mnre_joint": Reader("mnre_joint", "relations", "mre/mnre_joint", "the same tweets: all triples of a text"),
    "image_decides_ner": Reader(
        "image_decides", "ner", "mel/grocery_linking", "a probe: the photo alone tells the type"
    ),
    "image_decides_relations": Reader("image_decides", "relations", "mel/grocery_linking", "the same for a pair"),
    "db15k": Reader("triples", "completion", "mkgc/db15k", "DBpedia: names, flags of countries"),
    "fb15k237": Reader("triples", "completion", "mkgc/fb15k237", "Freebase: names, descriptions, some pictures"),
    "mkg_w": Reader("triples", "completion", "mkgc/mkg_w", "Wikidata: ids only"),
    "mkg_y": Reader("triples", "completion", "mkgc/mkg_y", "YAGO: names"),
    "umls": Reader("triples", "completion", "mkgc/small_kgs/umls", "medical concepts, small"),
    "kinship": Reader("triples", "completion", "mkgc/small_kgs/kinship", "kin terms, small, no names"),
    "nations": Reader("triples", "completion", "mkgc/small_kgs/nations", "relations of 14 countries"),
    "wn18rr": Reader("triples", "completion", "mkgc/wn18rr", "WordNet: glosses, some pictures"),
    "wn9_img": Reader("triples", "completion", "mkgc/wn9_img", "WordNet: glosses, pictures; both directions listed"),
    "wordnet_imagenet": Reader("triples", "completion", "mkgc/wordnet_imagenet", "WordNet: glosses, real photos"),
    "countries_s1": Reader("triples", "completion", "mkgc/countries_flags/S1", "where countries lie, flags"),
    "countries_s2": Reader("triples", "completion", "mkgc/countries_flags/S2", "the same, harder"),
    "countries_s3": Reader("triples", "completion", "mkgc/countries_flags/S3", "the same, hardest"),
    "triples": Reader("triples", "completion", "", "your own graph: train.txt (valid, test) of head, relation, tail"),
    "dbp15k_zh_en": Reader("dbp15k", "alignment", "mea/dbp15k_zh_en", "Chinese and English DBpedia, 30 % seed pairs"),
    "dbp15k_ja_en": Reader("dbp15k", "alignment", "mea/dbp15k_ja_en", "Japanese and English DBpedia, 30 % seed pairs"),
    "dbp15k_fr_en": Reader("dbp15k", "alignment", "mea/dbp15k_fr_en", "French and English DBpedia, 30 % seed pairs"),
    "fb15k237_db15k": Reader("fb_db", "alignment", "mea/fb15k237_db15k", "Freebase and DBpedia, 20 % seed pairs"),
    "fb15k237_db15k_50": Reader("fb_db", "alignment", "mea/fb15k237_db15k", "the same, 50 % seed pairs"),
    "fb15k237_db15k_80": Reader("fb_db", "alignment", "mea/fb15k237_db15k", "the same, 80 % seed pairs"),
    "country_flags": Reader("flags", "alignment", "mea/country_flags", "flat flags and waved ones, 30 % seed pairs"),
    "wikimel": Reader("mel", "linking", "mel/wikimel", "people in Wikipedia captions, facts of Wikidata"),
    "richpedia_mel": Reader("mel", "linking", "mel/richpedia_mel", "people in sentences, facts of Wikidata"),
    "wikidiverse": Reader("mel", "linking", "mel/wikidiverse", "Wikinews captions, names of the answers only"),
    "grocery_linking": Reader("grocery_linking", "linking", "mel/grocery_linking", "shop photos, 81 products"),
    "jsonl": Reader("jsonl", "", "", "our JSON lines: a .jsonl file, or a folder with schema.json"),
    "hub": Reader("hub", "", "", "what datasets.load_dataset opens: a hub name, a folder of parquet, csv, json"),
}


def data_root() -> Path:
    """The folder of the public data sets: ``MAGISTER_DATA``, or ``../shared/data`` beside the repository."""
    given = os.environ.get("MAGISTER_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"


def read(spec: str, columns: Mapping[str, str] | None = None) -> Dataset:
    """Read the data set that a spec names.

    Args:
        spec: a reader's name (``twitter2017``, its folder found under `data_root`), ``reader:path``, a folder
            in a public data set's own format, a ``.jsonl`` file, or ``hub:owner/name``.
        columns: for ``hub:`` only, the source's columns to the fields of an example (see `hub.read`).

    Raises:
        DataFault: the spec names nothing that can be read; it says what comes near.
    """
    name, colon, path = spec.partition(":")
    if columns and name != "hub":
        raise DataFault(spec, "columns are named for hub: sources only")
    if name in READERS and path:
        if name == "hub":
            return _module(name).read(path, columns=columns)
        return _module(name).read(_existing(Path(path)), name)
    if spec in READERS and READERS[spec].folder:
        folder = data_root() / READERS[spec].folder
        if not folder.is_dir():
            raise DataFault(spec, f"no folder {folder}", f"set MAGISTER_DATA, or give its folder as {spec}:FOLDER")
        return _module(spec).read(folder, spec)
    if spec.endswith(".jsonl"):
        return _module("jsonl").read(_existing(Path(spec)))
    if spec and Path(spec).is_dir():
        return _recognised(Path(spec))
    raise DataFault(repr(spec), "names no data set", _near(name if colon else spec))


def _module(name: str) -> Any:
    return importlib.import_module(f".{READERS[name].module}", __name__)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataFault(str(path), "there is no such file or folder")
    return path


def _recognised(folder: Path) -> Dataset:
    for module in dict.fromkeys(reader.module for reader in READERS.values() if reader.module != "hub"):
        name = importlib.import_module(f".{module}", __name__).recognise(folder)
        if name:
            return _module(name).read(folder, name)
    hint = f"say the format as in twitter2017:{folder}; parquet, csv or json files are read as hub:{folder}"
    raise DataFault(str(folder), "no data set's format is recognised by its files", hint)


def _near(word: str) -> str:
    near = difflib.get_close_matches(word.lower(), READERS, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if word.count("/") == 1 and word[0] not in "./":
        return f"no such folder here; a hub data set is named hub:{word}"
    return f"readers: {', '.join(READERS)}; or a folder, a .jsonl file, hub:owner/name"
