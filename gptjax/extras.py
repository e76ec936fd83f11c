"""Libraries that only some modes need."""

import importlib
from types import ModuleType

from gptjax.errors import UserError


def need(module: str, extra: str) -> ModuleType:
    """Imports a module of an extra; raises UserError, with the remedy, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"{module} is not installed; install it with: pip install -e '.[{extra}]'"
        ) from None
