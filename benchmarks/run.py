"""Times owl, its peers and floors in turn (A B A B ...), and prints a table of ratios.

The table is in rows.py. owl's scripts are in this folder; each prints one line of JSON with `best`, the best time of
that run. A ratio is owl's best time by the reference's best time over all runs; its range is over the pairs of runs.
Peers are scripts in a separate folder (--peers, or OWL_PEERS), each called as `script.py PEER`, or in peers/ here;
--peer-python names the interpreter that has them installed. Floors are C++ programs of the build. A missing peer or
floor gets a row that says so.
"""
import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
from typing import NamedTuple

import figure
import machine
from rows import ROWS

HERE = pathlib.Path(__file__).resolve().parent
HEAD = ["| work | owl | against | its figure | ratio [range] | at most | met |", "|---|---|---|---|---|---|---|"]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Settings for another NumPy, which would slow the peers down.
NOT_FOR_PEERS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# Keeps owl, the floors and the peers' libraries from newer instructions.
AVX2_ONLY = {"OWL_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
             "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell",
             "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}  # fmt: skip


class NotRun(Exception):
    """The reason why a command has no figures."""


class Result(NamedTuple):
    """A line of the table."""

    work: str
    own: float | None = None
    name: str = ""
    theirs: float | None = None
    ratios: tuple[float, ...] = ()  # of each pair of runs
    at_most: float | None = None
    reason: str = ""  # why there is no ratio

    @property
    def ratio(self):
        return self.own / self.theirs

    @property
    def met(self):
        return self.ratio <= self.at_most

    def line(self):
        at_most = "" if self.at_most is None else f"{self.at_most:g}"
        theirs = f"not run: {self.reason}" if self.reason else "" if self.theirs is None else f"{self.theirs:.4g}"
        ratio = met = ""
        if self.ratios:
            ratio = f"**{self.ratio:.3g}** [{min(self.ratios):.3g}, {max(self.ratios):.3g}]"
            met = "yes" if self.met else "no"
        own = "" if self.own is None else f"{self.own:.4g}"
        return f"| {self.work} | {own} | {self.name} | {theirs} | {ratio} | {at_most} | {met} |"


def command_line(command, options):
    """The command to run, and its environment."""
    environment = {k: v for k, v in os.environ.items() if k != "OWL_PEERS"}
    if command.kind == "owl":
        start = [sys.executable, HERE / command.program]
    elif command.kind == "floor":
        start = [options.build / command.program]
        if not start[0].exists():
            raise NotRun(f"{command.program} is not built")
    else:
        folders = [HERE / "peers", *([pathlib.Path(options.peers)] if options.peers else [])]
        script = next((folder / command.program for folder in folders if (folder / command.program).exists()), None)
        if script is None:
            where = f"no {command.program} in {options.peers}" if options.peers else "no folder of peers is given"
            raise NotRun(where)
        start = [options.peer_python, script]
        environment = {k: v for k, v in environment.items() if k not in NOT_FOR_PEERS}
        environment |= dict.fromkeys(THREADS, str(len(os.sched_getaffinity(0))))
    environment |= AVX2_ONLY if options.avx2 else {}
    return [*map(str, start), *command.arguments], environment


def figures(command, options):
    line, environment = command_line(command, options)
    try:
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
    except OSError as error:
        raise NotRun(str(error)) from None
    if done.returncode:
        raise NotRun((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(row, options):
    """The output of each command, run by run, and the reason for each command without one; owl's name is ""."""
    commands = {"": row.command, **{a.name: a.command for a in row.against if a.command}}
    seen, reasons = {name: [] for name in commands}, {}
    for _ in range(options.runs):
        for name in [name for name in commands if name not in reasons]:
            try:
                seen[name].append(figures(commands[name], options))
            except NotRun as reason:
                reasons[name] = str(reason)
                if name == "":
                    return seen, reasons
    return seen, reasons


def results_of(row, seen, reasons):
    if "" in reasons:
        return [Result(row.work, reason=reasons[""])]
    own = [printed["best"] for printed in seen[""]]
    results = []
    for name, at_most, _, figure_of_own in row.against:
        if name in reasons:
            results.append(Result(row.work, min(own), name, at_most=at_most, reason=reasons[name]))
            continue
        theirs = [p[figure_of_own] for p in seen[""]] if figure_of_own else [p["best"] for p in seen[name]]
        ratios = tuple(a / b for a, b in zip(own, theirs))
        results.append(Result(row.work, min(own), name, min(theirs), ratios, at_most))
    return results or [Result(row.work, min(own))]


def other_figures(row, seen):
    """What the last run printed besides `best`: accuracies, which must agree, and the parts of a figure."""
    for name, turns in seen.items():
        more = {k: v for k, v in (turns or [{}])[-1].items() if k not in ("work", "peer", "best", "median", "times")}
        if more:
            yield f"- {row.work}: {name or 'owl'}: " + ", ".join(f"{k} {v:.4g}" for k, v in more.items())


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=3, help="turns (default 3)")
    p.add_argument("--only", default="", help="substring of the work to run")
    p.add_argument("--peers", default=os.environ.get("OWL_PEERS"), help="folder of the peers' scripts")
    p.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers installed")
    p.add_argument("--build", type=pathlib.Path, default=os.environ.get("BUILD", HERE.parent / "build"),
                   help="folder of the built floors")  # fmt: skip
    p.add_argument("--avx2", action="store_true", help="without newer instructions than AVX2, owl and peers alike")
    p.add_argument("--output", type=pathlib.Path, nargs="?", const=HERE / "results.md",
                   help="also write machine, command and table as Markdown (default benchmarks/results.md)")  # fmt: skip
    p.add_argument("--figure", type=pathlib.Path, help="also draw the ratios, as a PNG; needs matplotlib")
    return p.parse_args()


def said(options):
    """The command, without this machine's folders."""
    words = ["python", "benchmarks/run.py", "--runs", str(options.runs)]
    words += ["--only", options.only] if options.only else []
    words += ["--avx2"] if options.avx2 else []
    words += ["--peers", "FOLDER"] if options.peers else []
    words += ["--peer-python", "PYTHON"] if options.peer_python != sys.executable else []
    return f"`{shlex.join(words)}`: best times of each run, in turn; see that file's docstring."


def main():
    options = parse()
    if options.figure:
        figure.require()
    where = machine.description(sys.executable, options.peer_python)
    where += ["without newer instructions than AVX2 (owl, floors and peers)"] if options.avx2 else []
    print("\n".join([*where, "", *HEAD]), flush=True)
    results, others = [], []
    for row in ROWS:
        if options.only not in row.work:
            continue
        seen, reasons = measure(row, options)
        new = results_of(row, seen, reasons)
        print("\n".join(r.line() for r in new), flush=True)
        results += new
        others += other_figures(row, seen)
    print("\n".join(["", *others]))
    if options.output:
        lines = [r.line() for r in results]
        text = ["# Benchmarks", "", said(options), "", *(f"- {line}" for line in where), "", *HEAD, *lines, "",
                "Further output of the last runs:", "", *others, ""]  # fmt: skip
        options.output.write_text("\n".join(text), encoding="utf-8")
    if options.figure:
        figure.draw(results, where[0], options.figure)
    failed = [r for r in results if r.own is None]
    if failed:
        sys.exit(f"{failed[0].work}: {failed[0].reason}")


if __name__ == "__main__":
    main()
