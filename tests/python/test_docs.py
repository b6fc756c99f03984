"""The documents keep their word: the README's scripts run, its make targets and its links exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def code_blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def make_targets():
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("number", range(len(code_blocks(ROOT / "README.md", "python"))))
def test_readme_script_runs(number, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(code_blocks(ROOT / "README.md", "python")[number], encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_readme_script_finds_the_weights(tmp_path):
    out = subprocess.run([sys.executable, "-c", code_blocks(ROOT / "README.md", "python")[0]],
                         cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True).stdout
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d*", out.splitlines()[-1])]
    assert numbers == pytest.approx([1, -2, 0.5], abs=0.05)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(path):
    text = path.read_text(encoding="utf-8")
    commands = re.findall(r"`make ([a-z][a-z-]*)", text)
    for block in code_blocks(path, "sh"):
        commands += re.findall(r"^\s*make ([a-z][a-z-]*)", block, re.MULTILINE)
    assert set(commands) <= make_targets()
    if path.name == "README.md":
        assert {"mnist", "test"} <= set(commands)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if not os.path.exists(path.parent / link)]
    assert missing == []


def test_make_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert {name for name in make_targets() if name not in re.findall(r"make ([a-z-]+)", listed)} == set()
