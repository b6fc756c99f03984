"""Times owl on a GPU and its peers in turn (A B A B ...), and writes benchmarks/gpu.md.

The table is in table.py. owl's scripts are in this folder, those of the peers in peers/; each prints one line of JSON
with `best`, the best figure of that run. The table has the best figure of all runs; the range of a ratio is over the
pairs of runs. --peer-python names the interpreter that has PyTorch, JAX and CuPy; a missing peer gets a row that says
so. `--device cpu --tiny` checks without a GPU that all scripts work; it writes no file.
"""
import argparse
import datetime
import pathlib
import shlex
import subprocess
import sys
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # before this folder, which has a `run` too

from run import NotRun, figures, machine, other_figures  # noqa: E402

sys.path.append(str(HERE))
import table  # noqa: E402

HEAD = ["| work | owl | against | its figure | ratio [range] | wanted | met |", "|---|---|---|---|---|---|---|"]


class Line(NamedTuple):
    """A line of the table."""

    work: str
    own: float | None = None
    goal: table.Goal | None = None
    theirs: float | None = None
    ratios: tuple[float, ...] = ()  # of each pair of runs
    reason: str = ""  # why the peer, or owl, has no figure

    @property
    def figure(self):
        """The figure that the goal applies to."""
        return self.own / self.theirs if self.ratios else self.own

    def text(self):
        if self.own is None:
            return f"| {self.work} | not run: {self.reason} | | | | | |"
        wanted = met = ratio = ""
        theirs = f"not run: {self.reason}" if self.reason else "" if self.theirs is None else f"{self.theirs:.4g}"
        if self.ratios:
            ratio = f"**{self.figure:.3g}** [{min(self.ratios):.3g}, {max(self.ratios):.3g}]"
        if self.goal.wanted is not None:
            wanted = f"at {'least' if self.goal.at_least else 'most'} {self.goal.wanted:,g}"
        if wanted and not self.reason:
            reached = self.figure >= self.goal.wanted if self.goal.at_least else self.figure <= self.goal.wanted
            met = "yes" if reached else "no"
        return f"| {self.work} | {self.own:.4g} | {self.goal.name} | {theirs} | {ratio} | {wanted} | {met} |"


def measure(row, options):
    """The output of each command, run by run, and the reason for each command without one; owl's name is ""."""
    small = ("--device", options.device, *(row.tiny if options.tiny else ()))
    commands = {"": row.command, **{g.name: g.command for g in row.against if g.command}}
    seen, reasons = {name: [] for name in commands}, {}
    for _ in range(options.runs):
        for name, command in commands.items():
            if name in reasons or "" in reasons:
                continue
            try:
                seen[name].append(figures(command._replace(arguments=command.arguments + small), options))
            except NotRun as reason:
                reasons[name] = str(reason)
    return seen, reasons


def lines_of(row, seen, reasons):
    if "" in reasons:
        return [Line(row.work, reason=reasons[""])]
    best = max if row.more_is_better else min
    own = [printed["best"] for printed in seen[""]]
    lines = []
    for goal in row.against:
        if goal.name in reasons:
            lines.append(Line(row.work, best(own), goal, reason=reasons[goal.name]))
        elif goal.command is None:
            lines.append(Line(row.work, best(own), goal))
        else:
            theirs = [printed["best"] for printed in seen[goal.name]]
            lines.append(Line(row.work, best(own), goal, best(theirs), tuple(a / b for a, b in zip(own, theirs))))
    return lines


def card():
    """nvidia-smi's line for the first GPU; None without a GPU."""
    ask = ["nvidia-smi", "--id=0", "--query-gpu=name,memory.total,clocks.max.sm,driver_version",
           "--format=csv,noheader"]  # fmt: skip
    try:
        done = subprocess.run(ask, capture_output=True, text=True)
    except OSError:
        return None
    if done.returncode or done.stdout.count(",") != 3:
        return None
    name, memory, clock, driver = (word.strip() for word in done.stdout.strip().split(","))
    return f"{name}, {memory}, at most {clock}; driver {driver}"


def description(options):
    libraries = ("nvidia-cuda-nvrtc", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13")
    processor, owls, *_ = machine.description(sys.executable, options.peer_python)
    return [
        f"{datetime.date.today()}; {card() or 'no GPU'}",
        processor,
        owls.partition("; peers")[0] + f", {machine.versions(sys.executable, *libraries)}",
        "peers: " + machine.versions(options.peer_python, "numpy", "torch", "jax", "cupy-cuda13x", *libraries),
    ]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=3, help="turns (default 3)")
    p.add_argument("--only", default="", help="substring of the work to run")
    p.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers installed")
    p.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    p.add_argument("--tiny", action="store_true", help="small sizes: checks the scripts, measures nothing")
    p.add_argument("--output", type=pathlib.Path,
                   help="the Markdown file (default benchmarks/gpu.md, for a whole run on a GPU)")  # fmt: skip
    options = p.parse_args()
    if options.output is None and options.device == "gpu" and not options.tiny and not options.only:
        options.output = HERE.parent / "gpu.md"
    options.peers, options.build, options.avx2 = str(HERE / "peers"), None, False  # that ../run.py expects
    return options


def said(options):
    words = ["python", "benchmarks/gpu/run.py", "--runs", str(options.runs)]
    words += ["--only", options.only] if options.only else []
    words += ["--device", options.device] if options.device != "gpu" else []
    words += ["--tiny"] if options.tiny else []
    words += ["--peer-python", "PYTHON"] if options.peer_python != sys.executable else []
    return f"`{shlex.join(words)}`: best figures of each run, in turn; see that file's docstring."


def main():
    options = parse()
    if options.device == "gpu" and card() is None:
        sys.exit("nvidia-smi shows no GPU here: nothing is measured (--device cpu --tiny: do the scripts work?)")
    where = description(options)
    print("\n".join([*where, "", *HEAD]), flush=True)
    lines, others = [], []
    for row in table.ROWS:
        if options.only not in row.work:
            continue
        seen, reasons = measure(row, options)
        new = lines_of(row, seen, reasons)
        print("\n".join(line.text() for line in new), flush=True)
        lines += new
        others += other_figures(row, seen)
        if options.output:  # after each row, so that a later failure loses no figures
            text = ["# Benchmarks on a GPU", "", said(options), "", *(f"- {line}" for line in where), "", *HEAD,
                    *(line.text() for line in lines), "", "Further output of the last runs:", "", *others, ""]  # fmt: skip
            options.output.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(["", *others]))
    failed = [line for line in lines if line.own is None]
    if failed:
        sys.exit(f"{failed[0].work}: {failed[0].reason}")


if __name__ == "__main__":
    main()
