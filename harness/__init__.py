"""Weighbridge: weighs what carries a workload. ARCHITECTURE.md in docs/ tells where everything lives."""


def __getattr__(name: str) -> str:
    """Return `__version__`, read from the package's metadata at its first use: importlib.metadata is slow to import."""
    if name != "__version__":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib.metadata import version

    return version("weighbridge")
