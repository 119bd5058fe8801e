"""Importing TensorFlow without what it would import besides."""

from __future__ import annotations

import sys
from typing import Any

# Keras and TensorFlow Lite import these where they are installed, for wrappers and plots that no rank
# has a use for; together they take longer than TensorFlow itself.
BESIDES = ("jax", "matplotlib", "pandas", "sklearn")


def tensorflow() -> Any:
    """The module, imported as where nothing of BESIDES is installed. They can be imported after it."""
    absent = [name for name in BESIDES if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: an import of it fails
    try:
        import tensorflow
    finally:
        for name in absent:
            del sys.modules[name]
    return tensorflow
