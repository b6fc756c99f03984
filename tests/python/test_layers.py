"""The layers of cpp/: a file includes files of its own folder or of a layer below, and no includes form a cycle."""
import re
from pathlib import Path

CPP = Path(__file__).parents[2] / "cpp"
# From the lowest to the highest. Folders in one line must not include each other.
LAYERS = [["include", "base", "digits"], ["device"], ["graph"], ["ops", "plan"], ["backend"], ["runtime"], ["autograd"], ["python"]]
RANK = {folder: rank for rank, folders in enumerate(LAYERS) for folder in folders}


def includes():
    """The files of cpp/, each with those that it includes."""
    files = {p.relative_to(CPP).as_posix(): p for p in CPP.rglob("*") if p.suffix in (".h", ".cpp")}
    named = {}
    for name, path in files.items():
        found = re.findall(r'^#include [<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)
        named[name] = [to for f in found for to in (f, f"include/{f}") if to in files]
    return named


def folder(name):
    return name.split("/")[0]


def unit(name):
    """x.h and x.cpp are one unit."""
    return name.rsplit(".", 1)[0]


def circles(edges):
    """The sets of units of which each reaches all others (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in edges.get(v, ()):
            if w not in index:
                visit(w)
            if w in stack:
                low[v] = min(low[v], low[w])
        if low[v] == index[v]:
            at = stack.index(v)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for v in list(edges):
        if v not in index:
            visit(v)
    return [c for c in found if len(c) > 1]


def test_includes_go_down():
    named = includes()
    assert len(named) > 100
    upward = [f"{name} includes {to}" for name, all_of_it in named.items() for to in all_of_it
              if folder(name) != folder(to) and RANK[folder(to)] >= RANK[folder(name)]]
    assert not [line for line in upward if not re.search(r"^(base|include)/.* includes (base|include)/", line)]


def test_units_are_in_no_circle():
    edges = {}
    for name, all_of_it in includes().items():
        edges.setdefault(unit(name), set()).update(unit(to) for to in all_of_it if unit(to) != unit(name))
    assert circles(edges) == []


def test_circles_are_found():
    assert circles({"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": [], "e": ["e", "a"]}) == [["b", "c"]]
    assert circles({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []


def test_fused_multiply_adds_are_explicit():
    """In what the CPU and GPUs share, they are written as fma() of ops/math.h, which is a product and a sum where an
    instruction set has none."""
    shared = [*CPP.glob("ops/*.h"), *CPP.glob("backend/cuda/device/*.h")]
    found = {path.name: len(re.findall(r"__builtin_fma|__fmaf?_|std::fma|::fma[f(]", path.read_text())) for path in shared}
    assert len(found) > 10 and {name: n for name, n in found.items() if n} == {"math.h": 2, "prelude.h": 3}
