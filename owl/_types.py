"""Kinds of element types, bfloat16 included."""

from __future__ import annotations

from typing import Any


def kind_of(dtype: Any) -> str:
    """NumPy's letter for a type: "f", "i", "u" or "b". bfloat16, for which NumPy has none, is a float.

    Its type is ml_dtypes', of kind "V", or without this package the text "bfloat16".
    """
    kind: str = getattr(dtype, "kind", "V")
    return "f" if kind == "V" else kind
