"""Magister turns what a multimodal LLM knows into compact students for multimodal knowledge graphs."""

from importlib.metadata import version

__version__ = version("magister")
