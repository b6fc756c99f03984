"""Prints the requirements of pyproject.toml, one per line: python requirements.py [extra ...].

The build's requirements and the package's own come first, then those of the extras that are named; with the extra `cuda`
also what a build with OWL_CUDA=on requires. The Makefile installs them into its virtual environment, so that
pyproject.toml stays the only place where dependencies are listed.
"""

import pathlib
import sys

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib


def main(extras):
    text = (pathlib.Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)
    requirements = project["build-system"]["requires"] + project["project"]["dependencies"]
    for extra in extras:
        requirements += project["project"]["optional-dependencies"][extra]
    for override in project["tool"]["scikit-build"]["overrides"]:
        if "cuda" in extras and "OWL_CUDA" in override["if"].get("env", {}):
            requirements += override["build"]["requires"]
    print("\n".join(dict.fromkeys(requirements)))


if __name__ == "__main__":
    main(sys.argv[1:])
