"""Weighbridge: weighs what carries a workload. ARCHITECTURE.md in docs/ tells where everything lives."""

from importlib.metadata import version

__version__ = version("weighbridge")
