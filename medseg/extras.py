"""The optional extras of the package: what each brings, whether it is there, and the command that installs it."""

from __future__ import annotations

from importlib.util import find_spec

from medseg.errors import ConfigError

EXTRAS = {"zoo": ("segmentation_models_pytorch", "timm", "torchvision")}  # extra -> modules that it brings


def install_command(extra: str) -> str:
    """What a person types to get an extra."""
    return f"pip install 'medseg[{extra}]'"


def is_installed(extra: str) -> bool:
    """Whether every module of the extra can be found; none is imported."""
    return all(_is_found(module) for module in EXTRAS[extra])


def require(extra: str, what: str) -> None:
    """Raises ConfigError with the pip command where `what` needs an extra that is not installed."""
    absent = [module for module in EXTRAS[extra] if not _is_found(module)]
    if absent:
        raise ConfigError(f"{what} needs {', '.join(absent)}, not installed here; {install_command(extra)}")


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # sys.modules holds None for it, which is how an import is forbidden
        return False
