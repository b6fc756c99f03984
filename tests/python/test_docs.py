"""Runs the documents: their commands, their code and their outputs.

The blocks of a page run from top to bottom in one namespace and one folder (run_page.py):

* ```` ```python ```` runs. If its first line is a comment with a file name, it is written to that file instead.
* ```` ```sh ```` holds a command on each line; in ```` ```console ```` commands stand after `$`, their output below.
* ```` ```text ```` right after a python block is what it prints; an exception that ends the block counts as printed,
  and a command may fail where its output is shown.
  `...` stands for anything, and after `<!-- numbers vary -->` any number and any space is as good as another.
* A table with the columns NumPy and owl holds expressions of equal value in each row; in one of another library and owl, the
  code in owl's column runs.

```` ```diff ```` is for test_adding.py, which applies it.
"""

import doctest
import html
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import mpi
import owl

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
NUMBERS_VARY = "<!-- numbers vary -->"
BUILD = os.path.abspath(os.environ.get("BUILD", ROOT / "build"))

MAKE = f"make -C {ROOT} -o build -o module PY={sys.executable}"
INSTEAD = [  # commands that a test replaces
    (r"make mnist\b.*", f'{MAKE} mnist ARGS="--max-steps 3 --quiet"'),
    (r"make bench\b.*", f'{MAKE} bench ARGS="--help"'),
    (r"make( help)?", f"{MAKE} help"),
    (r"python apps/mnist/(.*)", rf"python {ROOT}/apps/mnist/\1 --max-steps 3"),
    (r"python apps/text/(.*)", rf"python {ROOT}/apps/text/\1 --max-steps 3 --unit 16"),
    (r"build/(mnist_tape.*)", rf"if test -x {BUILD}/mnist_tape; then {BUILD}/\1 --max-steps 3; fi"),
    (r"python (apps/digits/digits\.py)", rf"python {ROOT}/\1 --epoch 1 || ! python -c 'import sklearn'"),
    (r"python (tests/python/interchange\.py)", rf"python {ROOT}/\1 || ! python -c 'import torch, safetensors'"),
    (r"python -m owl\.data fetch mnist", "python -m owl.data --help"),
    (r"cd apps/mnist && \S+/python", f'cd {ROOT}/apps/mnist && {sys.executable} -c "import mnist_io, owl"'),
]
NOT_RUN = [  # with the reason
    (r"make (test|test-cpp|test-python)\b.*", "it is what runs this test"),
    (r"make (build|clean|distclean|sdist|wheel)\b.*", "it changes this checkout; .ci/run builds and installs"),
    (r"make docs", "it installs MkDocs; test_site_builds does the rest"),
    (r"\.ci/run", "it runs this test"),
    (r"pip install 'owl-engine\[mpi\]'", "it needs a network; .ci/run installs what it brings"),
    (r"pip install \.", "it takes minutes; .ci/run installs a wheel into an empty environment"),
    (r"(g\+\+ -std|lib=|export PKG_CONFIG_PATH=).*", "it needs an installed owl; test_packaging.py does the same with one"),
    (r"(cmake|build/owl_tests)\b.*", "it takes minutes; C++ tests and examples are built by tests of their own"),
]


def pages_with(pattern):
    return [path for path in PAGES if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)]


def name_of(path):
    return str(path.relative_to(ROOT))


# ---- Running pages --------------------------------------------------------------------------------------------------


@dataclass
class Step:
    kind: str
    code: str = ""
    line: int = 0
    name: str = ""
    rows: list = field(default_factory=list)
    expected: str | None = None
    numbers_vary: bool = False


def as_tested(command):
    """The command that a test runs, or None."""
    if any(re.fullmatch(pattern, command) for pattern, _ in NOT_RUN):
        return None
    for pattern, instead in INSTEAD:
        found = re.fullmatch(pattern, command)
        if found:
            return found.expand(instead)
    return command


def steps_of(path):
    """The steps of a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    steps, comment, number = [], False, 0
    after_python = False  # nothing but blank lines and a comment since a python block
    while number < len(lines):
        line = lines[number]
        fence = re.fullmatch(r"```([\w-]*)", line)
        if fence:
            end = lines.index("```", number + 1)
            body, start = lines[number + 1 : end], number + 2
            number = end + 1
            steps += blocks(fence[1], body, start, steps, after_python, comment)
            after_python, comment = fence[1] == "python" and steps[-1].kind == "python", False
            continue
        table = re.match(r"\| *(NumPy|Chainer|Keras|PyTorch|MLX) *\| *owl *\|", line)
        if table:
            rows = []
            number += 2
            while number < len(lines) and lines[number].startswith("|"):
                cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", lines[number])[1:-1]]
                if table[1] == "NumPy":
                    rows.append([re.fullmatch(r"`+ ?(.*?) ?`+", cell)[1].replace("\\|", "|") for cell in cells[:2]])
                else:
                    rows += re.findall("`([^`]+)`", cells[1].replace("\\|", "|"))
                number += 1
            steps.append(Step("rows" if table[1] == "NumPy" else "cells", line=number, rows=rows))
            after_python = False
            continue
        if line == NUMBERS_VARY:
            comment = True
        elif line.strip():
            after_python = comment = False
        number += 1
    return steps


def blocks(language, body, start, steps, after_python, numbers_vary):
    """The steps of one fenced block; an expected output is stored in the step before."""
    code = "\n".join(body) + "\n"
    if language == "python":
        named = re.fullmatch(r"# ([\w-]+\.\w+)", body[0])
        return [Step("file", code, start, name=named[1]) if named else Step("python", code, start)]
    if language == "text" and after_python:
        steps[-1].expected, steps[-1].numbers_vary = code, numbers_vary
    if language == "sh":
        return [Step("command", re.sub(r"\s+#.*", "", line), start + i)
                for i, line in enumerate(body) if line.strip() and not line.startswith("#")]  # fmt: skip
    if language == "console":
        found = []
        for i, line in enumerate(body):
            if line.startswith("$ "):
                found.append(Step("command", line[2:], start + i, expected="", numbers_vary=numbers_vary))
            else:
                found[-1].expected += line + "\n"
        for step in found:
            step.expected = step.expected or None
        return found
    return []


def normalised(text, numbers_vary):
    text = "\n".join(line.rstrip() for line in text.strip().splitlines())
    if numbers_vary:
        text = re.sub(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", "0", text)
        text = re.sub(r"[ -]+", " ", text)
    return text


def agrees(expected, printed, numbers_vary):
    pattern = re.escape(normalised(expected, numbers_vary)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, normalised(printed, numbers_vary), re.DOTALL)


def run(steps, folder):
    """The output and the error, or None, of each step."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OWL_")}
    environment |= {key: os.environ[key] for key in ("OWL_MIRRORS", "OWL_DATA") if key in os.environ}
    environment["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment["PATH"]])
    if any("mpirun" in step.code for step in steps):
        environment["PATH"] += os.pathsep + str(mpi.prefix_of("Open MPI") / "bin")
        environment |= mpi.OPEN_MPI
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(owl.__file__).parents[1]), str(ROOT / "apps/mnist")])
    sent = [{"kind": s.kind, "code": s.code, "name": s.name, "rows": s.rows} for s in steps]
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("run_page.py"))], input=json.dumps(sent),
                          cwd=folder, env=environment, capture_output=True, text=True, timeout=170)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", pages_with(r"^```(python|sh|console)$"), ids=name_of)
def test_page_runs(path, tmp_path):
    steps, tested = [], []
    for step in steps_of(path):
        code = as_tested(step.code) if step.kind == "command" else step.code
        if code is not None:
            steps.append(step)
            tested.append(replace(step, code=code))
    problems = []
    for step, runs, (printed, error) in zip(steps, tested, run(tested, tmp_path)):
        where = f"{name_of(path)}:{step.line}"
        if error and not step.expected:
            problems.append(f"{where}: {error}")
        elif step.expected and runs.code == step.code and not agrees(step.expected, printed, step.numbers_vary):
            problems.append(f"{where}: the page shows\n{step.expected}but this was printed:\n{printed}")
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_kind_of_block_is_known(path):
    """Otherwise a block with an unknown name, such as `bash` for `sh`, would be skipped silently."""
    fences = re.findall(r"^ *```(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences) <= {"", "python", "sh", "console", "text", "cpp", "cmake", "diff"}


def test_readme_script_finds_the_weights(tmp_path):
    script = next(step.code for step in steps_of(ROOT / "README.md") if step.kind == "python")
    out = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                         check=True).stdout  # fmt: skip
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d*", out.splitlines()[-1])]
    assert numbers == pytest.approx([1, -2, 0.5], abs=0.05)


@pytest.mark.parametrize("path", pages_with(r"^```cpp$"), ids=name_of)
def test_cpp_programs_compile(path, tmp_path):
    """Only whole files, those with an #include. One with a main() also runs, if libowl is built."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    library = next(Path(owl.__file__).parent.glob("lib/libowl.so*"), None)
    text = path.read_text(encoding="utf-8")
    for number, code in enumerate(re.findall(r"^```cpp\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
        if "#include" not in code:
            continue
        source, program = tmp_path / f"{number}.cpp", tmp_path / str(number)
        source.write_text(code, encoding="utf-8")
        runs = library is not None and "int main(" in code
        links = [str(library), f"-Wl,-rpath,{library.parent}", "-o", str(program)] if runs else ["-fsyntax-only"]
        for command in [[compiler, "-std=c++20", f"-I{ROOT / 'cpp/include'}", str(source), *links]] + [[program]] * runs:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["owl", "owl.inspection", "owl._user_op", "owl.data.datasets", "owl.data.loader",
                                    "owl.data.transforms", "owl.train", "owl.train.trainer", "owl.train.history", "owl.nn",
                                    "owl.nn.module", "owl.nn.linear", "owl.optim", "owl.distributed"])  # fmt: skip
def test_examples_in_docstrings(module):
    assert doctest.testmod(importlib.import_module(module), extraglobs={"owl": owl}).failed == 0


# ---- The checker itself ---------------------------------------------------------------------------------------------


def test_checker_sees_what_is_wrong(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
        "```python\n1 / 0\n```\n\n```text\nZeroDivisionError: ...\n```\n"
        "```python\nprint('took 12 ms')\n```\n\n<!-- numbers vary -->\n\n```text\ntook 7 ms\n```\n"
        "```python\n# a.py\nprint('from a.py')\n```\n"
        "```console\n$ python a.py\nfrom a.py\n$ false\n```\n"
        "| NumPy | owl | |\n|---|---|---|\n| `1 + 1` | `2` | |\n| `1` | `[1]` | |\n\n"
        "| Keras | owl | |\n|---|---|---|\n| `no_code_of_ours` | `1 + 1`, then `2 + None` | |\n| `a` | nothing | `b` |\n",
        encoding="utf-8",
    )
    steps = steps_of(page)
    assert [step.kind for step in steps] == ["python", "python", "python", "file", "command", "command", "rows", "cells"]
    results = run(steps, tmp_path)
    good = [(not e or s.expected is not None)
            and (s.expected is None or bool(agrees(s.expected, p, s.numbers_vary)))
            for s, (p, e) in zip(steps, results)]  # fmt: skip
    assert good == [False, True, True, True, True, False, False, False]
    assert "ZeroDivisionError" in results[1][1] and "shape" in results[-2][1]
    assert steps[-1].rows == ["1 + 1", "2 + None"] and "2 + None: TypeError" in results[-1][1]


# ---- Make, links, names ---------------------------------------------------------------------------------------------


def make_targets():
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_make_targets_exist(path):
    commands = re.findall(r"`make ([a-z][a-z-]*)", path.read_text(encoding="utf-8"))
    for step in steps_of(path):
        commands += re.findall(r"^make ([a-z][a-z-]*)", step.code) if step.kind == "command" else []
    assert set(commands) <= make_targets()
    if path.name == "README.md":
        assert {"mnist", "test"} <= set(commands)


def test_make_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert {name for name in make_targets() if name not in re.findall(r"make ([a-z-]+)", listed)} == set()


def anchors(path):
    """The anchors of a page: its headings, and the names whose reference it contains."""
    text = without_blocks(path)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    names = re.findall(r"^::: (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles} | set(
        " ".join(names).split())  # fmt: skip


def without_blocks(path):
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    missing = []
    for link, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#?([^)\s]*)\)", without_blocks(path)):
        target = path.parent / link if link else path
        if not target.exists():
            missing.append(link)
        elif anchor and anchor not in anchors(target) and anchor.rpartition(".")[0] not in anchors(target):
            missing.append(f"{link}#{anchor}")  # otherwise a member of a class
    assert missing == []


def test_site_builds(tmp_path):
    """Strictly: broken links, missing anchors, pages outside the navigation and names without text are errors."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (`make docs` does it)")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
                          cwd=ROOT, capture_output=True, text=True, timeout=170)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site/reference/arrays.html").read_text(encoding="utf-8")
    assert 'id="owl.zeros"' in page and 'id="owl.NArray.reshape"' in page
    check_layout(tmp_path / "site")


def rules_of(css):
    """{selector: {property: value}} of a style sheet, each selector of a list separately; @media's by width."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    rules = {}
    narrow = re.search(r"@media screen and \(max-width: 768px\) \{(.*)\}\s*\Z", css, re.DOTALL)
    for prefix, text in (("", css[: narrow.start()]), ("narrow ", narrow[1])):
        for selectors, body in re.findall(r"([^{}]+)\{([^}]*)\}", text):
            declared = dict(re.findall(r"([\w-]+):\s*([^;]+);", body))
            for selector in re.split(r",(?![^(]*\))", selectors):
                rules.setdefault(prefix + " ".join(selector.split()), {}).update(declared)
    return rules


def check_layout(site):
    """The styles by which pages are readable at 1280 and at 390 pixels, as checked in a browser: nothing is clipped."""
    rules = rules_of((site / "site.css").read_text(encoding="utf-8"))
    for cells in ("td", "th"):  # the theme's cells keep to one line, which pushed the last columns out of the page
        assert rules[f".wy-table-responsive table {cells}"]["white-space"] == "normal"
    wrapped, kept = rules[".rst-content div.highlight pre:not(.columns) code"], rules[".rst-content div.highlight pre"]
    assert wrapped == {"width": "auto", "white-space": "pre-wrap", "overflow-wrap": "anywhere"}
    assert kept["overflow-x"] == "auto"
    assert rules[".rst-content div.highlight pre code"]["border"] == "0", "the frame is the block's"
    width = float(rules[".wy-nav-content"]["max-width"].removesuffix("rem")) * 16
    columns = (min(width, 1280 - 300) - 2 * 52 - 2 * 13) / 7.23  # the navigation, margins, frame; a letter of 12 pixels
    assert columns > 110
    assert rules["narrow .rst-content table :not(pre) > code"]["overflow-wrap"] == "anywhere"
    shown = {"wrapped": 0, "columns": 0}
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert page.index("css/theme.css") < page.index("site.css"), path
        for mark, block in re.findall(r'<div class="highlight"><pre( class="columns")?>(.*?)</pre>', page, re.DOTALL):
            shown["columns" if mark else "wrapped"] += 1
            lines = html.unescape(re.sub(r"<[^>]+>", "", block)).splitlines()
            if "<span class" in block:
                assert not mark, f"{path}: source code wraps"
                assert max(map(len, lines)) <= 120, f"{path}: a line of code is too long for a page of 1280 pixels"
            else:
                assert bool(mark) == any(re.search(r"\S {2,}\S|[\u2500-\u257f]", line) for line in lines), path
    assert min(shown.values()) >= 3, shown


def test_reference_is_complete():
    named = set()
    for path in ROOT.glob("docs/reference/*.md"):
        for line in re.findall(r"^::: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            named |= set(line.split())
    public = {f"owl.{name}" for name in [*owl.__all__, "slice", "IndexError"] if not hasattr(owl.elewise, name)}
    public |= {f"owl.conv.{name}" for name in owl.conv.__all__} | {f"owl.data.{name}" for name in owl.data.__all__}
    public |= {f"owl.nn.{name}" for name in owl.nn.__all__} | {f"owl.nn.init.{name}" for name in owl.nn.init.__all__}
    public |= {f"owl.distributed.{name}" for name in owl.distributed.__all__}
    public |= {f"owl.optim.{name}" for name in owl.optim.__all__} | {f"owl.train.{name}" for name in owl.train.__all__}
    in_words = {"owl.nn.init", "owl.conv", "owl.data", "owl.elewise", "owl.bool_", "owl.uint8", "owl.int32", "owl.int64", "owl.float16", "owl.bfloat16", "owl.float32", "owl.float64",
                "owl.data.DATA_SETS", "owl.data.main"}  # fmt: skip
    assert public - in_words == named - {"owl.elewise"}


def test_environment_page_lists_every_variable():
    source = (ROOT / "cpp/base/env.cpp").read_text(encoding="utf-8")
    known = re.findall(r'"(OWL_\w+)"', re.search(r"kNames\[\] = \{(.*?)\};", source, re.DOTALL)[1])
    rows = re.findall(r"^\| `(OWL_\w+)` \|", (ROOT / "docs/environment.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(known)


def test_reference_lists_every_counter():
    text = (ROOT / "docs/reference/inspection.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE)
    assert {name.strip("`") for row in rows for name in row.split(", ")} == set(owl.stats())


@pytest.mark.parametrize(("network", "named"), [("mlp", "matmul"), ("cnn", "conv relu pool")])
def test_picture_of_a_profile(network, named, tmp_path):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        picture = importlib.import_module("profile_picture")
    finally:
        sys.path.pop(0)
    events, lanes = picture.record(network, steps=2, tries=2, warm_up=1)
    assert {picture.kind(event) for event in events} <= set(picture.KINDS)
    assert any(event["name"].startswith(named) for event in events)
    assert {event["tid"] for event in events} <= set(lanes)
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the picture is not drawn")
    picture.draw(events, lanes, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
