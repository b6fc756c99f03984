"""Faults injected at every operation and every request for memory of a random graph, one after the other."""
import contextlib
import random

import numpy as np
import pytest

import owl
from conftest import SOAK, WINDOW, same_bits, settle, window

NODES = 200

# Every value is a [6, 6] array; `a` and `b` are earlier ones. An elementwise operation may be fused with others.
ELEMENTWISE = ["{a} + {b}", "{a} - {b} * 0.5", "owl.elewise.tanh({a})", "owl.elewise.mult({a}, {b}) * 0.1",
               "owl.elewise.maximum({a}, {b})", "owl.elewise.where({a} > {b}, {a}, 0.5)", "{a} / ({b} ** 2 + 1)",
               "owl.elewise.clip({a}, -3, 3)", "({a} >= {b}).astype('float32') - {a}", "{a}.astype('float64') + {b}"]
OTHERS = ["owl.elewise.tanh({a} * {b})", "{a}.trans()", "{a}[::-1]", "{a}.reshape([36]).reshape([6, 6])",
          "{a} - {a}.sum(0) * 0.1", "{a}.trans() * {b} * 0.05", "owl.conv.softmax({a})", "{b} + {a}.max([0, 1])",
          "owl.concat([{a}[:2], {b}[2:]], 0)", "owl.randn([6, 6])", "owl.full([6, 6], 0.25) + {a}.argmax(1)",
          "convolver.ff({a}.astype('float32').reshape([6, 6, 1, 1]), kernel, bias).reshape([6, 6])",
          "pooler.ff({a}.reshape([6, 6, 1, 1])).reshape([6, 6])", "{a}.copy_to(other).copy_to(0) - {b}",
          "{a}.transpose([1, 0])[1:].sum(0) + {b}"]


class Graph:
    """Python text, one node per line; the lines that each reads; and a function that records it."""

    def __init__(self, seed, other):
        rng = random.Random(seed)
        self.name = f"graph_{seed}.py"
        self.parents, lines = [], []
        for i in range(NODES):
            a, b = (max(0, i - 1 - int(rng.expovariate(0.05))) for _ in range(2))
            text = rng.choice(rng.choice([ELEMENTWISE, OTHERS]))
            self.parents.append([n for n, mark in ((a, "{a}"), (b, "{b}")) if mark in text])
            lines.append(f"v.append({text})".format(a=f"v[{a}]" if i else "x", b=f"v[{b}]" if i else "x"))
        self.parents[0] = []
        self.code = compile("\n".join(lines), self.name, "exec")
        rows = np.random.default_rng(seed)
        self.names = {"owl": owl, "x": owl.from_numpy(rows.uniform(-1, 1, (6, 6)).astype(np.float32)), "other": other,
                      "kernel": owl.from_numpy(rows.uniform(-1, 1, (1, 1, 3, 3)).astype(np.float32)),
                      "bias": owl.ones([1]), "convolver": owl.conv.Convolver(1, 1, 1, 1),
                      "pooler": owl.conv.Pooler(3, 3, 1, 1, 1, 1)}
        owl.wait_for_all()

    def record(self):
        owl.seed(5)
        self.names["v"] = []
        exec(self.code, self.names)
        return self.names.pop("v")

    def descendants(self, node):
        found = {node}
        for i in range(node + 1, NODES):
            if found & set(self.parents[i]):
                found.add(i)
        return found


@contextlib.contextmanager
def fault(kind, n):
    owl._owl.set_fault(n if kind == "alloc" else 0, n if kind == "op" else 0)
    try:
        yield
    finally:
        owl._owl.set_fault(0, 0)


def ask(values):
    """Every value's NumPy array, or its error."""
    results = []
    for x in values:
        try:
            results.append(x.to_numpy())
        except owl.Error as e:
            results.append(e.with_traceback(None))  # its frames refer to the failed values
    return results


def check(graph, results, want, fused, kind):
    """The error in the outcome of one run, or None; and whether any value failed in it."""
    failed = {i for i, r in enumerate(results) if isinstance(r, Exception)}
    wrong = [i for i in range(NODES) if i not in failed and not same_bits(results[i], want[i])]
    if wrong:
        return f"values {wrong} are others than without the fault", True
    if not failed:
        return None, False
    if kind == "alloc" and not all(isinstance(results[i], owl.OutOfMemoryError) for i in failed):
        return "not an OutOfMemoryError", True
    places = {str(results[i]).rpartition("recorded at ")[2] for i in failed}
    if len(places) != 1 or not all("injected fault" in str(results[i]) for i in failed):
        return f"several causes: {places}", True
    file, _, line = places.pop().rstrip(")").rpartition(":")
    if file != graph.name or not line.isdigit():
        return f"no place: {results[min(failed)]}", True
    first = int(line) - 1
    if not graph.descendants(first) <= failed:
        return f"values {graph.descendants(first) - failed} lack the error of {first}", True
    if any(i not in failed and failed & set(graph.parents[i]) for i in range(NODES)):
        return "a value was computed from a failed one", True
    # A fused task is one operation: all of its values fail together.
    if not fused and failed != graph.descendants(first):
        return f"values {failed - graph.descendants(first)} have nothing to do with {first}", True
    return None, True


MODES = {"one by one": (1, -1), "fused": (1 << 30, -1), "behind the script": WINDOW}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["op", "alloc"])
def test_a_fault_at_every_place(kind, mode):
    other = owl.create_cpu_device()
    tried = hit = 0
    problems = []
    for seed in range(1 if SOAK == 1 else 10):
        graph = Graph(seed, other)
        with window(*MODES[mode]):
            want = [x.to_numpy() for x in graph.record()]
            quiet = 0
            for n in range(1, 5 * NODES):
                with fault(kind, n):
                    values = graph.record()
                    results = ask(values)
                problem, failed = check(graph, results, want, mode != "one by one", kind)
                del values
                if problem:
                    problems.append(f"{kind}:{n} seed {seed}: {problem}")
                tried += 1
                hit += failed
                # The number of tasks varies a little between runs if idle workers plan the window.
                quiet = 0 if failed else quiet + 1
                if quiet == 10:
                    break
            if not all(same_bits(x.to_numpy(), w) for x, w in zip(graph.record(), want, strict=True)):
                problems.append(f"seed {seed}: the engine does not go on as before")
    print(f"faults ({kind}, {mode}): tried {tried}, hit {hit}, failed {len(problems)}")
    assert not problems, problems[:3]
    assert hit > NODES / 4
    settle()


def test_a_fault_while_data_is_brought_is_raised_at_its_line():
    a = np.ones((5, 5), np.float32)
    for n in (1, 2, 3):
        made = []
        with fault("alloc", n):
            for k in range(3):
                try:
                    made.append(owl.from_numpy(a * k))
                except owl.OutOfMemoryError as e:
                    assert "injected" in str(e) and "data [5, 5]" in str(e)
                    failed = k
        assert failed == n - 1 and [float(m[0, 0]) for m in made] == [float(k) for k in range(3) if k != failed]


def test_faults_leave_nothing_behind():
    graph = Graph(3, owl.create_cpu_device())
    before = settle()
    for n in range(1, 60, 7):
        for kind in ("op", "alloc"):
            with fault(kind, n):
                ask(graph.record())
    after = settle()
    assert after["live_nodes"] <= before["live_nodes"] and after["live_storages"] <= before["live_storages"]
