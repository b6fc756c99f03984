"""Single operations, each waited for: microseconds of the best call, and their geometric mean.

`--against PYTHON`, an interpreter with NumPy and PyTorch, also runs these in turn with owl, three times, and prints a
table: owl's best time by the better peer's, worst first. Sizes are in NumPy's order; owl's axes are the reverse, over the
same memory.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

PEERS = pathlib.Path(__file__).resolve().parent / "peers" / "cliffs.py"
M, L, S = "2048, 2048", "256, 256", "32, 32"  # 4M elements, beyond the caches; in a core's cache; in the script's thread
ROWS = "4096, 1024"


def cases():
    """(name, operands, by owl, by PyTorch, by NumPy): expressions in the operands a, b and c."""
    yield from elementwise()
    yield from strided()
    yield from reductions()
    yield from products()
    yield from networks()
    yield from handed_over()


def elementwise():
    for label, s in (("4M", M), ("64K", L), ("1K", S)):
        one, two, positive = f"f32({s})", f"f32({s}), f32({s})", f"positive({s})"
        yield f"add {label}", two, "a + b", "a + b", "a + b"
        yield (f"mul-add-relu {label}", two, "E.relu(E.mult(a, b) + a)", "F.relu(a * b + a)",
               "np.maximum(a * b + a, 0)")  # fmt: skip
        for name, numpy in (("exp", 1), ("log", 1), ("tanh", 1), ("sigmoid", 0), ("sqrt", 1), ("sin", 1), ("erf", 0)):
            yield f"{name} {label}", positive, f"E.{name}(a)", f"torch.{name}(a)", f"np.{name}(a)" if numpy else ""
        yield f"gelu {label}", positive, "E.gelu(a)", "F.gelu(a)", ""
        yield f"pow 1.5 {label}", positive, "a ** 1.5", "a ** 1.5", "a ** f(1.5)"
        yield f"pow array {label}", f"positive({s}), f32({s})", "a ** b", "a ** b", "a ** b"
        yield f"pow 2 {label}", positive, "a ** 2", "a ** 2", "a ** 2"
        yield f"where > {label}", two, "E.where(a > b, a, b)", "torch.where(a > b, a, b)", "np.where(a > b, a, b)"
        yield f"divide {label}", f"f32({s}), positive({s})", "a / b", "a / b", "a / b"
        yield f"clip {label}", one, "E.clip(a, -0.5, 0.5)", "torch.clip(a, -0.5, 0.5)", "np.clip(a, f(-0.5), f(0.5))"
        yield f"a > 0 {label}", one, "a > 0.0", "a > 0.0", "a > 0"
    f64, i32 = f"f64({M})", f"i32({M})"
    yield "add f64 4M", f"{f64}, {f64}", "a + b", "a + b", "a + b"
    for name in ("exp", "tanh", "log"):
        yield f"{name} f64 4M", f"abs({f64})", f"E.{name}(a)", f"torch.{name}(a)", f"np.{name}(a)"
    yield "add i32 4M", f"{i32}, {i32}", "a + b", "a + b", "a + b"
    yield "mul i32 4M", f"{i32}, {i32}", "E.mult(a, b)", "a * b", "a * b"
    yield "i32 -> f32 4M", i32, "a.astype('float32')", "a.float()", "a.astype(f)"
    yield "f32 -> f64 4M", f"f32({M})", "a.astype('float64')", "a.double()", "a.astype(np.float64)"
    yield "a == b 4M", f"f32({M}), f32({M})", "a == b", "a == b", "a == b"
    yield "count true 4M", f"f32({M}) > 0", "a.sum()", "a.sum()", "a.sum()"


def strided():
    for name, b in (("row", "1, 2048"), ("column", "2048, 1")):
        yield f"a + {name} 4M", f"f32({M}), f32({b})", "a + b", "a + b", "a + b"
    yield "row + column 4M", "f32(1, 2048), f32(2048, 1)", "a + b", "a + b", "a + b"
    yield "a + channel [64,32,56,56]", "f32(64, 32, 56, 56), f32(1, 32, 1, 1)", "a + b", "a + b", "a + b"
    yield "a + b.T 4M", f"f32({M}), f32({M})", "a + b.T", "a + b.T", "a + b.T"
    yield "copy of a.T 4M", f"f32({M})", "a.T + 0.0", "a.T.contiguous()", "np.ascontiguousarray(a.T)"
    yield ("NCHW -> NHWC [32,64,56,56]", "f32(32, 64, 56, 56)", "a.transpose([2, 0, 1, 3]) + 0.0",
           "a.permute(0, 2, 3, 1).contiguous()", "np.ascontiguousarray(a.transpose(0, 2, 3, 1))")  # fmt: skip
    yield "every second column + 1", f"f32({M})", "a[::2] + 1.0", "a[:, ::2] + 1.0", "a[:, ::2] + f(1)"
    yield "every second row + 1", f"f32({M})", "a[:, ::2] + 1.0", "a[::2] + 1.0", "a[::2] + f(1)"
    yield "reversed + 1 4M", f"f32({M})", "a[::-1] + 1.0", "torch.flip(a, (1,)) + 1.0", "a[:, ::-1] + f(1)"
    for name, own, axis in (("last", 0, 1), ("first", 1, 0)):
        yield (f"concat {name} axis 2x4M", f"f32({M}), f32({M})", f"owl.concat([a, b], {own})",
               f"torch.cat([a, b], {axis})", f"np.concatenate([a, b], {axis})")  # fmt: skip
    many = ", ".join(["f32(64, 64)"] * 64)
    yield "concat 64 of [64,64]", many, "owl.concat(all, 1)", "torch.cat(all, 0)", "np.concatenate(all, 0)"


def reductions():
    for name, torch in (("sum", "sum"), ("max", "amax"), ("mean", "mean")):
        yield f"{name} all 4M", f"f32({ROWS})", f"a.{name}()", f"torch.{torch}(a)", f"a.{name}()"
        yield f"{name} rows [4096,1024]", f"f32({ROWS})", f"a.{name}(0)", f"torch.{torch}(a, 1)", f"a.{name}(1)"
        yield f"{name} columns [4096,1024]", f"f32({ROWS})", f"a.{name}(1)", f"torch.{torch}(a, 0)", f"a.{name}(0)"
    for name, shape, own, axes in (("middle [64,256,256]", "64, 256, 256", 1, 1), ("rows tiny [1M,4]", "1 << 20, 4", 0, 1),
                                   ("channels [64,32,56,56]", "64, 32, 56, 56", [0, 1, 3], (0, 2, 3)),
                                   ("channels [8,512,7,7]", "8, 512, 7, 7", [0, 1, 3], (0, 2, 3)),
                                   ("columns tall [1M,4]", "1 << 20, 4", 1, 0),
                                   ("columns wide [4,1M]", "4, 1 << 20", 1, 0)):  # fmt: skip
        yield f"sum {name}", f"f32({shape})", f"a.sum({own})", f"a.sum({axes})", f"a.sum({axes})"
    yield "sum of squares all 4M", f"f32({ROWS})", "E.square(a).sum()", "(a * a).sum()", "(a * a).sum()"
    yield "sum all 1K", f"f32({S})", "a.sum()", "a.sum()", "a.sum()"
    for kind in ("i32", "f64"):
        yield f"sum {kind} 4M", f"{kind}({ROWS})", "a.sum()", "a.sum()", "a.sum()"
    for name, shape, own, axis in (("rows [4096,1024]", ROWS, 0, 1), ("columns [4096,1024]", ROWS, 1, 0),
                                   ("rows [4096,10]", "4096, 10", 0, 1)):  # fmt: skip
        yield f"argmax {name}", f"f32({shape})", f"a.argmax({own})", f"a.argmax({axis})", f"a.argmax({axis})"
    for shape in ("128, 10", "100, 1000", "4096, 4096", "100000, 3"):
        for name in ("softmax", "log_softmax"):
            yield f"{name} [{shape}]".replace(", ", ","), f"f32({shape})", f"C.{name}(a)", f"F.{name}(a, 1)", ""
    yield "softmax channels [8,64,56,56]", "f32(8, 64, 56, 56)", "C.softmax(a, C.soft_op.channel)", "F.softmax(a, 1)", ""


def products():
    for m, k, n in ((32, 32, 32), (64, 64, 64), (128, 128, 128), (256, 256, 256), (1024, 1024, 1024), (256, 784, 256),
                    (1, 1024, 1024), (1024, 1024, 1), (10, 3000, 100), (4096, 64, 64), (64, 4096, 64), (3000, 3, 3000),
                    (37, 411, 1023)):  # fmt: skip
        yield f"product {m}x{k}x{n}", f"f32({m}, {k}), f32({k}, {n})", "b * a", "a @ b", "a @ b"
    square = "f32(1024, 1024)"
    yield "product A.T B 1024", f"{square}, {square}", "b * a.T", "a.T @ b", "a.T @ b"
    yield "product A B.T 1024", f"{square}, {square}", "b.T * a", "a @ b.T", "a @ b.T"
    yield "product f64 512", "f64(512, 512), f64(512, 512)", "b * a", "a @ b", "a @ b"
    yield "product i32 256", "i32(256, 256), i32(256, 256)", "b * a", "a @ b", "a @ b"
    yield "product of every second column", f"f32(1024, 2048), {square}", "b * a[::2]", "a[:, ::2] @ b", "a[:, ::2] @ b"
    yield "layer norm [1024,1024]", square, "owl.nn.LayerNorm(1024)(a)", "F.layer_norm(a, (1024,))", ""
    index = "i32(1 << 16) % 1024"
    yield "rows taken 64K of [1024,64]", f"f32(1024, 64), {index}", "owl.take(a, b, 1)", "a[b.long()]", "a[b]"


def networks():
    for name, n, ci, side, co, k, stride, pad, groups in (
            ("7x7s2", 8, 3, 224, 64, 7, 2, 3, 1), ("3x3 56", 8, 64, 56, 64, 3, 1, 1, 1), ("1x1 up", 8, 64, 56, 256, 1, 1, 0, 1),
            ("1x1 down", 8, 256, 56, 64, 1, 1, 0, 1), ("3x3 7", 8, 512, 7, 512, 3, 1, 1, 1), ("depthwise", 8, 96, 56, 96, 3, 1, 1, 96),
            ("lenet", 256, 16, 12, 32, 5, 1, 2, 1), ("one image", 1, 64, 56, 64, 3, 1, 1, 1)):  # fmt: skip
        out = (side + 2 * pad - k) // stride + 1
        x, w, e = f"f32({n}, {ci}, {side}, {side})", f"f32({co}, {ci // groups}, {k}, {k})", f"f32({n}, {co}, {out}, {out})"
        own = f"C.Convolver({pad}, {pad}, {stride}, {stride}, groups={groups})"
        backward = (f"torch.ops.aten.convolution_backward(a, b, c, None, [{stride}] * 2, [{pad}] * 2, [1, 1], False, [0, 0], "
                    f"{groups}, [%d, %d, False])[%d]")  # fmt: skip
        yield (f"convolution {name}", f"{x}, {w}, f32({co})", f"{own}.ff(a, b, c)",
               f"F.conv2d(a, b, c, {stride}, {pad}, 1, {groups})", "")  # fmt: skip
        yield f"convolution {name}: data gradient", f"{e}, {x}, {w}", f"{own}.bp(a, b, c)", backward % (1, 0, 0), ""
        yield f"convolution {name}: weight gradient", f"{e}, {x}, {w}", f"{own}.weight_grad(a, b, c)", backward % (0, 1, 1), ""
        yield f"convolution {name}: bias gradient", e, f"{own}.bias_grad(a)", "a.sum((0, 2, 3))", ""
    for name, shape, size, stride, pad in (("2x2", "64, 32, 56, 56", 2, 2, 0), ("3x3s2", "8, 64, 112, 112", 3, 2, 1),
                                           ("global", "64, 256, 7, 7", 7, 7, 0)):  # fmt: skip
        for kind, torch in (("max", "max_pool2d"), ("average", "avg_pool2d")):
            own = f"C.Pooler({size}, {size}, {stride}, {stride}, {pad}, {pad}, C.pool_op.{kind}, ceil_mode=False).ff(a)"
            yield f"{kind} pooling {name}", f"f32({shape})", own, f"F.{torch}(a, {size}, {stride}, {pad})", ""


def handed_over():
    yield "uniform 4M", "", f"owl.rand([{M}])", f"torch.rand({M})", f"rng.random(({M}), dtype=f)"
    yield "normal 4M", "", f"owl.randn([{M}])", f"torch.randn({M})", f"rng.standard_normal(({M}), dtype=f)"
    yield "to_numpy of (a + 1) 4M", f"f32({M})", "(a + 1.0).to_numpy()", "(a + 1.0).numpy()", "a + f(1)"
    yield "item of (a + 1) 1x1", "f32(1, 1)", "(a + 1.0).item()", "(a + 1.0).item()", "(a + f(1)).item()"
    yield "item of a sum 100x100", "f32(100, 100)", "a.sum().item()", "a.sum().item()", "a.sum().item()"
    for name, own in (("20 dependent operations", "chain(a, 10)"), ("200 independent operations", "[a + float(i) for i in range(200)]")):
        yield f"{name} 100x100", "f32(100, 100)", own, own, own.replace("float(", "f(")
    power = "powers(a, lambda x: %s)"
    yield "50 products 16x16", "f32(16, 16)", power % "x * a", power % "x @ a", power % "x @ a"


def chain(a, times):
    x = a
    for _ in range(times):
        x = x * 1.5
        x = x - a
    return x


def powers(x, step):
    for _ in range(50):
        x = step(x)
    return x


def measure(column, names, to_array, wait, only="", seconds=0.25):
    """Microseconds of the cases whose name contains `only`, by the expressions in that column."""
    rng, f = np.random.default_rng(1), np.float32
    make = {"f": f, "f32": lambda *s: rng.standard_normal(s, dtype=f), "f64": lambda *s: rng.standard_normal(s), "abs": abs,
            "i32": lambda *s: rng.integers(0, 9, s, dtype=np.int32)}  # fmt: skip
    make["positive"] = lambda *s: abs(make["f32"](*s)) + f(0.1)
    names = names | {"f": f, "rng": rng, "np": np, "chain": chain, "powers": powers}
    seen = {}
    for case in cases():
        if only not in case[0] or not case[column]:
            continue
        arrays = [to_array(x) for x in eval(f"[{case[1]}]", make)]
        run = eval("lambda: " + case[column], names | dict(zip("abc", arrays)) | {"all": arrays})
        best, spent, calls = math.inf, 0.0, -2  # two to warm up
        while calls < 5 or (spent < seconds and calls < 200):
            start = time.perf_counter()
            result = run()
            wait(result)
            took = time.perf_counter() - start
            del result
            calls += 1
            if calls > 0:
                best, spent = min(best, took), spent + took
        seen[case[0]] = best * 1e6
    return seen


def mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def report(peer, times):
    print(json.dumps({"work": "single operations, us", "peer": peer, "best": mean(times.values()), "times": times}))


def by_owl(options):
    import owl

    def wait(result):
        for x in result if isinstance(result, list) else [result]:
            if isinstance(x, owl.NArray):
                x.wait_for_eval()

    return measure(2, {"owl": owl, "E": owl.elewise, "C": owl.conv}, owl.from_numpy, wait, options.only, options.seconds)


def in_turn(options):
    more = ["--only", options.only, "--seconds", str(options.seconds)]
    commands = {"owl": [sys.executable, __file__, *more]}
    commands |= {peer: [options.against, PEERS, peer, *more] for peer in ("torch", "numpy")}
    environment = os.environ | {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    best = {}
    for _ in range(options.turns):
        for who, command in list(commands.items()):
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                print(f"{who}: not run: {done.stderr.strip().splitlines()[-1]}")
                del commands[who]
                continue
            for name, took in json.loads(done.stdout)["times"].items():
                times = best.setdefault(name, {})
                times[who] = min(took, times.get(who, math.inf))
    best = {name: times for name, times in best.items() if "owl" in times and len(times) > 1}
    ratio = {name: t["owl"] / min(t.get("torch", math.inf), t.get("numpy", math.inf)) for name, t in best.items()}
    print("| operation | owl, us | torch | numpy | ratio |", "|---|---|---|---|---|", sep="\n")
    for name in sorted(ratio, key=ratio.get, reverse=True):
        cells = " | ".join(f"{best[name][who]:.4g}" if who in best[name] else "" for who in ("owl", "torch", "numpy"))
        print(f"| {name} | {cells} | {ratio[name]:.3g} |")
    print(f"\n{len(ratio)} operations; geometric mean {mean(ratio.values()):.3g}; worst {max(ratio.values()):.3g}; above 1.2: "
          f"{sum(r > 1.2 for r in ratio.values())}; above 1.5: {sum(r > 1.5 for r in ratio.values())}")  # fmt: skip


def parse(doc):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="", help="substring of the operations to run")
    p.add_argument("--seconds", type=float, default=0.25, help="of each operation (default 0.25)")
    return p


if __name__ == "__main__":
    parser = parse(__doc__)
    parser.add_argument("--against", metavar="PYTHON", help="run the peers in turn, and print a table")
    parser.add_argument("--turns", type=int, default=3, help="of --against (default 3)")
    options = parser.parse_args()
    if options.against:
        in_turn(options)
    else:
        report("owl", by_owl(options))
