"""docs/adding-an-operation.md, followed literally: its edits, in a copy of the checkout, compile there; in a soak run
(OWL_SOAK) the copy is built, and the tests of the operations that it adds are run."""

import faulthandler
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SOAK

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "adding-an-operation.md"
BUILD = Path(os.environ.get("BUILD", ROOT / "build"))
# What the edits touch, or what must compile with them.
COMPILED = ["cpp/ops/elementwise.cpp", "cpp/ops/leaky_sum.cpp", "cpp/ops/register.cpp", "cpp/backend/cpu/leaky_sum.cpp",
            "cpp/backend/cpu/kernels.cpp"]  # fmt: skip
# New files are compiled as these are.
LIKE = {"cpp/ops/leaky_sum.cpp": "cpp/ops/elementwise.cpp", "cpp/backend/cpu/leaky_sum.cpp": "cpp/backend/cpu/kernels.cpp"}


def edits():
    """(file, whether it is new, lines before, lines after) of each block, in order."""
    found = []
    for block in re.findall(r"^ *```diff\n(.*?)^ *```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        name, *lines = [line[3:] for line in block.splitlines()]
        file, new = re.fullmatch(r"(\S+)( \(new\))?", name).groups()
        assert all(line[:1] in ("+", "-", " ") for line in lines), name
        before = [line[1:] for line in lines if line[0] != "+"]
        after = [line[1:] for line in lines if line[0] != "-"]
        found.append((file, bool(new), before, after))
    return found


EDITS = edits()


def apply(folder):
    for file, new, before, after in EDITS:
        path = folder / file
        if new:
            assert not path.exists() and before == [], file
            path.write_text("\n".join(after) + "\n", encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        old = "\n".join(before) + "\n"
        assert text.count(old) == 1, f"{file}: this stands there {text.count(old)} times, not once:\n{old}"
        path.write_text(text.replace(old, "\n".join(after) + "\n"), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout with the guide's edits."""
    folder = tmp_path_factory.mktemp("adding") / "owl"
    skipped = shutil.ignore_patterns(".git", ".venv", "build", "_skbuild", "__pycache__", "*.so", "*.so.[0-9]*", "shared", ".*cache")
    shutil.copytree(ROOT, folder, symlinks=True, ignore=skipped)
    apply(folder)
    return folder


def test_the_edits_name_every_file_of_the_copy(copy):
    assert {file for file, *_ in EDITS} >= {"cpp/ops/elementwise.h", "cpp/ops/records.h", "owl/elewise.pyi", "docs/dtypes.md"}


def commands():
    """How the build compiles each file of the checkout."""
    path = BUILD / "compile_commands.json"
    if not path.exists():
        pytest.skip("BUILD names no folder of a build")
    return {os.path.relpath(entry["file"], ROOT): entry for entry in json.loads(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("file", COMPILED)
def test_what_the_guide_changes_compiles(copy, file):
    entry = commands()[LIKE.get(file, file)]
    words = shlex.split(entry["command"])
    flags = [word.replace(f"{ROOT}/cpp", f"{copy}/cpp") for word in words[: words.index("-c")] if word.startswith(("-I", "-D", "-std", "-W"))]
    system = [words[i : i + 2] for i, word in enumerate(words) if word == "-isystem"]
    compiler = next(word for word in words if not word.endswith("ccache"))
    done = subprocess.run([compiler, *flags, *sum(system, []), "-Werror", "-fsyntax-only", str(copy / file)],
                          cwd=copy, capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr


def run(command, folder, **variables):
    done = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.mark.skipif(SOAK == 1, reason="builds all of owl: only with OWL_SOAK")
def test_the_tests_of_the_new_operations(copy):
    faulthandler.cancel_dump_traceback_later()  # conftest's: a build takes longer than a test may
    make = ["make", f"PYTHON={sys.executable}", "VENV=.venv", "BUILD=build", "OWL_CUDA=off"]
    run([*make, "build"], copy)
    out = run([*make, "test-cpp", "GTEST=--gtest_filter=Registry.*:Kernels.LeakySums"], copy)
    assert "PASSED" in out or "SKIPPED" in out
    python = copy / ".venv" / "bin" / "python"
    row = ["-k", "recip or complete or row or table or stubs_agree or reference"]
    files = [f"tests/python/test_{name}.py" for name in ("elementwise", "gradients", "promotion", "api", "stubs", "docs")]
    out = run([str(python), "-m", "pytest", "-q", *files, *row], copy, BUILD=str(copy / "build"), OWL_SOAK="1")
    assert " passed" in out
