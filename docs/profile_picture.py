"""Draws docs/profile.png and docs/profile_cnn.png: the spans of a training step, a lane for each thread.

    pip install matplotlib
    python docs/profile_picture.py
    python docs/profile_picture.py cnn

The MLP's steps are the tutorial's: 784 inputs, 256 hidden units, 10 classes, minibatches of 256; the CNN's those of
apps/mnist/walkthrough_cnn.py (with random numbers for the images; the arithmetic is the same). Skips the first steps,
which allocate memory from the system, and of many recordings draws the shortest in which most threads took part,
because other programs disturb it least.
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
    "strips": ("#3f6fae", "kernels over images, depth first"),
    "copy": ("#7fb77e", "copy"),
    "wait": ("#dddddd", "waiting"),
    "plan": ("#c9a6d4", "planning"),
}


class Mlp:
    steps, tries = 2, 1500

    def __init__(self):
        w1, w2 = owl.randn([256, 784], 0.0, 0.01), owl.randn([10, 256], 0.0, 0.01)
        self.params = w1, owl.zeros([256, 1]), w2, owl.zeros([10, 1])
        self.batch, self.target = owl.rand([784, 256]), owl.randb([10, 256], 0.1)

    def step(self):
        w1, b1, w2, b2 = self.params
        hidden = ele.relu(w1 * self.batch + b1)
        scores = conv.softmax(w2 * hidden + b2)
        err2 = scores - self.target
        err1 = ele.relu_back(w2.trans() * err2, hidden)
        w1 -= 0.1 / 256 * (err1 * self.batch.trans())
        b1 -= 0.1 / 256 * err1.sum(1)
        w2 -= 0.1 / 256 * (err2 * hidden.trans())
        b2 -= 0.1 / 256 * err2.sum(1)
        self.params = w1, b1, w2, b2


class Cnn:
    steps, tries = 1, 200

    def __init__(self):
        shapes = [5, 5, 1, 16], [16], [5, 5, 16, 32], [32], [10, 512], [10, 1]
        self.params = [owl.randn(shape, 0.0, 0.1) for shape in shapes]
        self.batch, self.target = owl.rand([28, 28, 1, 256]), owl.randb([10, 256], 0.1)

    def step(self):
        conv1, conv2 = conv.Convolver(), conv.Convolver(2, 2)
        pool1, pool2 = conv.Pooler(2, 2, 2, 2), conv.Pooler(3, 3, 3, 3)
        w1, b1, w2, b2, w3, b3 = self.params
        a1 = ele.relu(conv1.ff(self.batch, w1, b1))
        p1 = pool1.ff(a1)
        a2 = ele.relu(conv2.ff(p1, w2, b2))
        p2 = pool2.ff(a2)
        flat = p2.reshape([512, 256])
        err3 = conv.softmax(w3 * flat + b3) - self.target
        err2 = ele.relu_back(pool2.bp((w3.trans() * err3).reshape(p2.shape), p2, a2), a2)
        err1 = ele.relu_back(pool1.bp(conv2.bp(err2, p1, w2), p1, a1), a1)
        gradients = [conv1.weight_grad(err1, self.batch, w1), conv1.bias_grad(err1), conv2.weight_grad(err2, p1, w2),
                     conv2.bias_grad(err2), err3 * flat.trans(), err3.sum(1)]  # fmt: skip
        self.params = [p - 0.1 / 256 * g for p, g in zip(self.params, gradients, strict=True)]


NETWORKS = {"mlp": Mlp, "cnn": Cnn}


def record(network, steps, tries, warm_up=20):
    """The events of a profile, and the names of its lanes."""
    owl.seed(1)
    trained = NETWORKS[network]()
    for _ in range(warm_up):
        trained.step()
    owl.wait_for_all()
    recordings = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        for _ in range(tries):
            with owl.profile(path):
                for _ in range(steps):
                    trained.step()
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
    for e in sorted(events, key=lambda e: -e["dur"]):  # nested bars are drawn over the outer one
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
    """Writes names into the bars that have room, horizontally or vertically; if too long, only the kernel's."""
    origin, one = axes.transData.transform([(0, 0), (1, 0.8)])
    to_pixels, height = one[0] - origin[0], abs(one[1] - origin[1])  # of a microsecond; of a bar
    for e in events:
        width, name = e["dur"] * to_pixels, e["name"]
        upright = len(name) * 6.2 > width
        if upright and len(name) * 5.2 > height:
            name = name.split(" ")[0]
        if not upright or width >= 9:
            axes.text(e["ts"] - start + e["dur"] / 2, shown.index(e["tid"]), name, ha="center", va="center",
                      fontsize=6 if upright else 7, rotation=90 if upright else 0)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", choices=NETWORKS, default="mlp")
    parser.add_argument("--steps", type=int, help="default: 2 of the MLP, 1 of the CNN")
    parser.add_argument("--tries", type=int, help="recordings to choose from (default: 1500 of the MLP, 200 of the CNN)")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    network = NETWORKS[a.network]
    out = a.out or Path(__file__).with_name("profile.png" if a.network == "mlp" else f"profile_{a.network}.png")
    draw(*record(a.network, a.steps or network.steps, a.tries or network.tries), out)


if __name__ == "__main__":
    main()
