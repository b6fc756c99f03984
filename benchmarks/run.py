"""Times owl beside its peers, in turn (A B A B ...), and prints a table of ratios.

owl's own scripts lie beside this one. Peers are scripts of the same names in a folder of their own (--peers, or
OWL_PEERS), each called as `script.py PEER` and printing one JSON line with `best`; --peer-python names the
interpreter that has them installed. Without a folder only owl's own figures are printed.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# work: (script, options, peers)
WORK = {
    "MLP epoch, H=256, s": ("mlp.py", [], ["torch-tuned", "numpy"]),
    "CNN minibatch of 256, s": ("cnn.py", [], ["torch"]),
    "x = x + 1.0 on 1x1, us": ("ops.py", [], ["numpy", "torch"]),
    "elementwise chain, 4M floats, ms": ("chain.py", [], ["torch", "numpy"]),
    "import beyond NumPy's, ms": ("import_time.py", [], []),
    "MLP epoch's five products, called from a bare loop, s": ("products.py", [], []),
}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"exit code {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1]), None


def machine():
    model = platform.processor() or platform.machine()
    try:
        names = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} CPUs, {platform.system()}, Python {platform.python_version()}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=3, help="turns (default 3)")
    p.add_argument("--only", default="", help="substring of the work to run")
    p.add_argument("--peers", default=os.environ.get("OWL_PEERS"), help="folder of the peers' scripts")
    p.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers installed")
    p.add_argument("--output", type=pathlib.Path, help="also write the table to this file (Markdown)")
    a = p.parse_args()
    lines = [f"Machine: {machine()}; best of each run, {a.runs} runs in turn.", "",
             "| work | owl | peer | peer's figure | owl / peer [range] |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for work, (script, options, peers) in WORK.items():
        if a.only not in work:
            continue
        commands = {"owl": [sys.executable, str(HERE / script), *options]}
        if a.peers:
            for peer in peers:
                commands[peer] = [a.peer_python, str(pathlib.Path(a.peers) / script), peer, *options]
        seen = {name: [] for name in commands}
        failed, more = {}, {}
        for _ in range(a.runs):
            for name, command in commands.items():
                if name in failed:
                    continue
                result, error = run(command)
                if error:
                    failed[name] = error
                else:
                    seen[name].append(result["best"])
                    more[name] = {k: v for k, v in result.items() if k not in ("work", "peer", "best", "median")}
        if "owl" in failed:
            sys.exit(f"{script}: {failed['owl']}")
        own = statistics.median(seen["owl"])
        extra = ", ".join(f"{k} {v:.4g}" for k, v in more["owl"].items())
        rows = [f"| {work} | {own:.4g}{f' ({extra})' if extra else ''} | | | |"] if len(commands) == 1 else []
        for name in list(commands)[1:]:
            if name in failed:
                rows.append(f"| {work} | {own:.4g} | {name} | not run: {failed[name]} | |")
                continue
            ratios = [x / y for x, y in zip(seen["owl"], seen[name])]
            rows.append(f"| {work} | {own:.4g}{f' ({extra})' if extra else ''} | {name} | "
                        f"{statistics.median(seen[name]):.4g} | **{statistics.median(ratios):.2f}** "
                        f"[{min(ratios):.2f}, {max(ratios):.2f}] |")
        print("\n".join(rows), flush=True)
        lines += rows
    if a.output:
        a.output.write_text("\n".join(["# Benchmarks", "", "`python benchmarks/run.py`: see its head.", "", *lines, ""]))


if __name__ == "__main__":
    main()
