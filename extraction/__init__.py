"""Zero-shot attribute extraction with one face: a teacher asked through a template, or a distilled student.

product → windows → example → teacher or student → answer → merged, grounded, normalised → row (`extract`); a whole
catalogue, resumable (`run.extract_to`).
"""

from .counts import Counts
from .pipeline import CHUNK, Extraction, extract
from .product import Product
from .run import extract_to

__all__ = ["CHUNK", "Counts", "Extraction", "Product", "extract", "extract_to"]
