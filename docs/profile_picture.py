"""Draws docs/profile.png: where the time of two steps of the MLP goes, a lane for each thread.

    pip install matplotlib
    python docs/profile_picture.py

The steps are the tutorial's: 784 inputs, 256 hidden units, 10 classes, minibatches of 256 (random numbers stand for the
images; the arithmetic is the same). The first steps, in which memory is taken from the system, are left out, and of
many recordings the shortest in which most threads took part is drawn: other programs disturb it least.
"""

import argparse
import json
import tempfile
from pathlib import Path

import owl
import owl.conv as conv
import owl.elewise as ele

KINDS = {
    "fused": ("#f4b942", "elementwise operations, fused"),
    "kernel": ("#5b8fd6", "kernel"),
    "copy": ("#7fb77e", "copy"),
    "wait": ("#dddddd", "waiting"),
    "plan": ("#c9a6d4", "planning"),
}


def train(steps, params, batch, target):
    w1, b1, w2, b2 = params
    for _ in range(steps):
        hidden = ele.relu(w1 * batch + b1)
        scores = conv.softmax(w2 * hidden + b2)
        err2 = scores - target
        err1 = ele.relu_back(w2.trans() * err2, hidden)
        w1 -= 0.1 / 256 * (err1 * batch.trans())
        b1 -= 0.1 / 256 * err1.sum(1)
        w2 -= 0.1 / 256 * (err2 * hidden.trans())
        b2 -= 0.1 / 256 * err2.sum(1)
    return w1, b1, w2, b2


def record(steps, tries, warm_up=20):
    """The events of a profile, and the names of its lanes."""
    owl.seed(1)
    params = owl.randn([256, 784], 0.0, 0.01), owl.zeros([256, 1]), owl.randn([10, 256], 0.0, 0.01), owl.zeros([10, 1])
    batch, target = owl.rand([784, 256]), owl.randb([10, 256], 0.1)
    params = train(warm_up, params, batch, target)
    owl.wait_for_all()
    recordings = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        for _ in range(tries):
            with owl.profile(path):
                params = train(steps, params, batch, target)
                owl.wait_for_all()
            recordings.append(json.loads(path.read_text())["traceEvents"])
    return min(map(split, recordings), key=lambda found: (-len({e["tid"] for e in found[0]}), duration(found[0])))


def split(events):
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    return [e for e in events if e["ph"] == "X"], lanes


def duration(events):
    return max(e["ts"] + e["dur"] for e in events) - min(e["ts"] for e in events)


def kind(event):
    return event["name"] if event["cat"] == "engine" else event["cat"]


def draw(events, lanes, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    start = min(e["ts"] for e in events)
    shown = [tid for tid in sorted(lanes, key=lanes.get) if any(e["tid"] == tid for e in events)]
    figure, axes = plt.subplots(figsize=(12, 1.0 + 0.95 * len(shown)), dpi=110)
    for e in sorted(events, key=lambda e: -e["dur"]):  # what lies inside another bar is drawn over it
        row, left = shown.index(e["tid"]), e["ts"] - start
        axes.barh(row, e["dur"], left=left, height=0.8, color=KINDS[kind(e)][0], edgecolor="white", linewidth=0.4)
    axes.set_yticks(range(len(shown)), [lanes[tid] for tid in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, duration(events))
    axes.set_xlabel("microseconds")
    figure.tight_layout()
    label(axes, events, shown, start)
    found = [KINDS[each] for each in KINDS if any(kind(e) == each for e in events)]
    axes.legend(handles=[plt.Rectangle((0, 0), 1, 1, color=colour) for colour, _ in found],
                labels=[text for _, text in found], ncols=len(found), loc="lower right", bbox_to_anchor=(1, 1),
                frameon=False, fontsize=8)  # fmt: skip
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    print(f"{path}: {len(events)} events in {len(shown)} lanes")


def label(axes, events, shown, start):
    """Names inside the bars that have room for them, across or upright."""
    pixels = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]  # to a microsecond
    for e in events:
        width = e["dur"] * pixels
        upright = len(e["name"]) * 6.2 > width
        if not upright or width >= 9:
            axes.text(e["ts"] - start + e["dur"] / 2, shown.index(e["tid"]), e["name"], ha="center", va="center",
                      fontsize=6 if upright else 7, rotation=90 if upright else 0)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tries", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("profile.png"))
    args = parser.parse_args()
    draw(*record(args.steps, args.tries), args.out)


if __name__ == "__main__":
    main()
