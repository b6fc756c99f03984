"""Finds CUDA's libraries that were installed from PyPI (``pip install owl-engine[cuda]``)."""

import importlib.util
import os


def library_folders() -> list[str]:
    """The folders of NVIDIA's packages with libraries that owl may open; called when a script first asks for a GPU."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    places = spec.submodule_search_locations if spec else None
    folders = [os.path.join(place, part, "lib") for place in places or () for part in ("cu13", "cudnn", "nccl")]
    return [folder for folder in folders if os.path.isdir(folder)]
