"""Finding the members of a family by their file names: every module (or folder) of a package that doesn't begin with `_`."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any


def found(package: ModuleType, attribute: str) -> dict[str, Any]:
    """File name to the module's `attribute`; a module without it takes no part (it is found in another way)."""
    names = sorted(
        info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")
    )
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {
        name: getattr(module, attribute) for name, module in modules.items() if hasattr(module, attribute)
    }
