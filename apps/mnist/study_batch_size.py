#!/usr/bin/env python3
"""Study on MNIST what the batch size does to a perceptron of four layers: speed, accuracy, sharpness of the minimum.

1. Which learning rate suits which batch size? A grid of both, by SGD with momentum; the last, short batch of an epoch is trained on.
2. Does a larger batch save epochs or steps? Both are counted until the test accuracy reaches a target.
3. Does a large batch, of 10 % of the images, generalise worse than a small one? Both are trained by Adam, from several
   seeds, until the training loss is equally low.
4. Is the minimum that the large batch finds a sharper one? The measure is that of Keskar et al. 2017, "On Large-Batch
   Training for Deep Learning: Generalization Gap and Sharp Minima" (arXiv 1609.04836, Metric 2.1):

       100 * (max f(x + A y) - f(x)) / (1 + f(x)),   over |y_i| <= epsilon * (|(A+ x)_i| + 1)

   f is the training loss, x are all parameters, A is the identity or a matrix of 100 random columns, A+ its
   pseudo-inverse. The paper maximises by ten iterations of L-BFGS-B, which needs scipy; here it is ten steps of projected
   gradient ascent, each as long as the box's half width and in the direction of the gradient's signs, and the largest
   loss on the way counts. Either is a lower bound of the maximum.
5. Does a run that is saved and restored in the middle end with the same bits?
"""

import argparse
import contextlib
import dataclasses
import filecmp
import importlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import owl
import owl.data
import program
from options import EXIT_INTERRUPTED, RunError, say
from owl import elewise as ele, nn, optim, train as training

RATES, MOMENTUM = (0.003, 0.01, 0.03, 0.1, 0.3), 0.9  # of SGD
BATCHES, LARGE_SHARE = (32, 256, 1024), 0.1
TARGET = 0.95  # test accuracy
LOW_LOSS, MOST_EPOCHS = 0.01, 100  # where the comparison of the small with the large batch ends
EPSILONS, COLUMNS = (1e-3, 5e-4), 100
ASCENT_STEPS = 10
MEASURED = 10_000  # training images over which the sharpness is measured
CUT, WHOLE = 23, 60  # steps of the run that is saved and restored


def network(unit):
    layers = []
    for n_in in (784, unit, unit):
        layers += [nn.Linear(n_in, unit), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(unit, 10))


def main(argv=None):
    found = program.parser(__doc__.partition("\n\n")[0], epochs=10, batch_size=256, out="study")
    found.add_argument("--unit", type=program.at_least(1), default=128, metavar="N", help="units a layer (default: 128)")
    found.add_argument("--rates", type=above_0, nargs="+", default=RATES, metavar="X",
                       help=f"learning rates of the grid (default: {' '.join(map(str, RATES))})")  # fmt: skip
    found.add_argument("--batches", type=program.at_least(1), nargs="+", default=BATCHES, metavar="N",
                       help=f"batch sizes of the grid, which also has 10 %% of the images (default: {' '.join(map(str, BATCHES))})")  # fmt: skip
    found.add_argument("--loss", type=above_0, default=LOW_LOSS, metavar="X",
                       help=f"training loss at which a run of the comparison ends, if {MOST_EPOCHS} epochs do not end it (default: {LOW_LOSS})")  # fmt: skip
    found.add_argument("--seeds", type=program.at_least(1), default=3, metavar="N",
                       help="how often --batchsize is compared with 10 %% of the images (default: 3)")  # fmt: skip
    found.add_argument("--resume", action="store_true", help="go on where the study in --out stands")
    return program.run(study, found, argv)


def above_0(text):
    """Parses a number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, not '{text}'")


def study(options):
    train, test = owl.data.mnist(options.data, flat=True)
    runs, results = runs_of(options, len(train)), Results(options, len(train))
    budget, code, run = Budget(options.max_steps), 0, runs[0]
    try:
        say(f"{len(runs)} runs, {sum(each.name in results for each in runs)} of them done before")
        for number, run in enumerate(runs, 1):
            if run.name not in results:
                begun = time.perf_counter()
                results[run.name] = found = result_of(run, options, train, test, budget)
                say(f"{number}/{len(runs)} {run.name}: {found['epochs']} epochs, {found['steps']} steps, "
                    f"test accuracy {found['test_accuracy'][-1]:.4f}, {time.perf_counter() - begun:.0f} s")  # fmt: skip
        if "restored" not in results:
            results["restored"] = restored(options, train)
    except (Cut, KeyboardInterrupt) as cut:
        code = cut.code if isinstance(cut, Cut) else EXIT_INTERRUPTED
        say(f"stopped within {run.name}; the same command with --resume goes on here")
    if table := table_of(options, runs, results):
        (options.out / "table.txt").write_text(table)
        say(f"\n{table}")
        program.picture(options.out / "study.png", lambda: draw(options, runs, results))
    return code


# ---- Runs and their results -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """A training: of the grid, by SGD, or of the comparison, by Adam from one of several seeds."""

    batch: int
    epochs: int
    seed: int
    rate: float | None = None  # of SGD; without one it is of the comparison
    loss: float = 0  # training loss at which it ends early

    @property
    def name(self):
        return f"batch-{self.batch}-" + (f"adam-seed-{self.seed}" if self.rate is None else f"sgd-{self.rate:g}")

    def optimizer(self):
        return optim.Adam() if self.rate is None else optim.SGD(self.rate, momentum=MOMENTUM)

    def finished(self, history):
        return len(history) == self.epochs or (len(history) > 0 and history[-1]["loss"] <= self.loss)

    def on_epoch(self, trainer, row):
        """As a callback: ends the training."""
        if self.finished(trainer.history):
            trainer.stop()


def runs_of(options, images):
    large = max(1, round(LARGE_SHARE * images))
    grid = [Run(batch, options.epoch, options.seed, rate) for batch in sorted({*options.batches, large})
            for rate in sorted(set(options.rates))]  # fmt: skip
    return grid + [Run(batch, MOST_EPOCHS, options.seed + i, loss=options.loss) for i in range(options.seeds)
                   for batch in sorted({options.batchsize, large})]  # fmt: skip


class Results(dict):
    """What each finished run gave, by its name; kept in a file, so that another process goes on."""

    def __init__(self, options, images):
        super().__init__()
        self._path = options.out / "results.json"
        self.settings = {"images": images} | {name: getattr(options, name) for name in ("unit", "epoch", "loss", "seed")}
        if options.resume and self._path.exists():
            self._read()

    def _read(self):
        try:
            content = json.loads(self._path.read_text())
            settings, results = dict(content["settings"]), dict(content["results"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._path}: not the results of a study: {error}") from None
        if settings != self.settings:
            other = ", ".join(f"{name} {settings.get(name)}, not {value}" for name, value in self.settings.items()
                              if settings.get(name) != value)  # fmt: skip
            raise RunError(f"{self._path}: of a study with {other}")
        self.update(results)

    def __setitem__(self, name, result):
        super().__setitem__(name, result)
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps({"settings": self.settings, "results": self}, indent=1, sort_keys=True) + "\n")
        os.replace(beside, self._path)


class Cut(Exception):
    """The study ends within a run, whose checkpoint is written."""

    def __init__(self, code):
        self.code = code


class Budget:
    """A callback that ends the training after so many steps of all runs; without a number it never does."""

    def __init__(self, steps):
        self.left = math.inf if steps is None else steps

    def on_step(self, trainer, step):
        self.left -= 1
        if self.left <= 0:
            trainer.stop()


def result_of(run, options, train, test, budget):
    """Trains, or goes on from the run's checkpoint, and measures. Cut: it was ended, and its checkpoint is written."""
    owl.seed(run.seed)
    trainer = training.Trainer(network(options.unit), "softmax_cross_entropy", run.optimizer())
    checkpoint = options.out / f"{run.name}.npz"
    if options.resume and checkpoint.exists():
        trainer.load(checkpoint)
    diverged = False
    if not run.finished(trainer.history):
        try:
            trainer.fit(train, run.epochs, validation=test, batch_size=run.batch, seed=run.seed,
                        callbacks=[run, budget, training.StopOnNaN(), training.Checkpoint(checkpoint)],
                        progress=sys.stderr.isatty())  # fmt: skip
        except owl.NaNError:
            diverged = True
        if not diverged and not run.finished(trainer.history):
            trainer.save(checkpoint)
            raise Cut(0 if trainer.stopping else EXIT_INTERRUPTED)
    accuracies = trainer.history["val_accuracy"] if len(trainer.history) else []
    result = {"epochs": len(trainer.history), "steps": trainer.steps,
              "test_accuracy": accuracies + ([1 / 10] if diverged else [])}  # fmt: skip
    if run.rate is None:
        result["training_accuracy"] = trainer.evaluate(train, batch_size=1000)["accuracy"]
        result |= sharpness(trainer.model, train, run.seed)
    checkpoint.unlink(missing_ok=True)
    return result


# ---- Sharpness ------------------------------------------------------------------------------------------------------


def sharpness(model, train, seed):
    """{"sharpness": [...], "sharpness_subspace": [...]}: a value for each epsilon, with and without random columns."""
    images, labels = map(owl.from_numpy, train[:MEASURED])
    x = model.parameters()
    flat = owl.concat([each.reshape([-1]) for each in x.values()], 0)
    owl.seed(seed)
    a = owl.randn([flat.size, COLUMNS])
    inverse = np.linalg.solve((a.T * a).to_numpy().astype(np.float64).T, (a.T * flat.reshape([-1, 1])).to_numpy().ravel())
    center = owl.from_numpy(inverse.astype(np.float32)).reshape([COLUMNS, 1])  # A+ x

    def loss(parameters):
        model.update(parameters)
        return nn.softmax_cross_entropy(model(images), labels)

    def along_columns(y):
        return loss(pieces(flat + (a * y["columns"]).reshape([-1]), x))

    def everywhere(y):
        return loss({name: x[name] + y[name] for name in x})

    try:
        return {
            "sharpness": [rise(everywhere, box(x, epsilon)) for epsilon in EPSILONS],
            "sharpness_subspace": [rise(along_columns, box({"columns": center}, epsilon)) for epsilon in EPSILONS],
        }
    finally:
        model.update(x)


def pieces(flat, like):
    """A flat array cut into arrays of the shapes, and with the names, of others."""
    parts = owl.split(flat, np.cumsum([each.size for each in like.values()])[:-1].tolist(), 0)
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts)}


def box(x, epsilon):
    return {name: epsilon * (ele.abs(each) + 1.0) for name, each in x.items()}


def rise(f, width):
    """100 * (the maximum of f over |y| <= width, as projected ascent finds it, - f(0)) / (1 + f(0))."""
    y, values = {name: owl.zeros_like(each) for name, each in width.items()}, []
    for _ in range(ASCENT_STEPS + 1):
        with owl.Tape() as tape:
            values.append(f(y))
        gradients = tape.gradient(values[-1], y)
        for name, most in width.items():
            y[name] = ele.clip(y[name] + ele.mult(ele.sign(gradients[name]), most), -most, most)
    first, *others = map(float, values)
    return 100 * (max(first, *others) - first) / (1 + first)


# ---- Saved and restored ---------------------------------------------------------------------------------------------


def restored(options, train):
    """Whether a run that is saved within an epoch and goes on in another trainer ends with the bits of a run in one go."""

    def trainer(seed):
        owl.seed(seed)
        return training.Trainer(network(options.unit), "softmax_cross_entropy", "adam")

    def go(trainer, steps, name):
        trainer.fit(train, WHOLE, batch_size=options.batchsize, callbacks=[program.StopAfter(steps)], progress=False)
        if not trainer.stopping:
            raise KeyboardInterrupt
        trainer.save(options.out / name)

    go(trainer(options.seed), WHOLE, "whole.npz")
    go(trainer(options.seed), CUT, "cut.npz")
    other = trainer(options.seed + 1)  # other weights, until the file is loaded
    other.load(options.out / "cut.npz")
    go(other, WHOLE, "cut.npz")
    equal = filecmp.cmp(options.out / "whole.npz", options.out / "cut.npz", shallow=False)
    for name in ("whole.npz", "cut.npz"):
        (options.out / name).unlink()
    return equal


# ---- The table ------------------------------------------------------------------------------------------------------


def table_of(options, runs, results):
    """The answers, a column for each batch size; empty if no run is finished."""
    runs = [run for run in runs if run.name in results]
    images = results.settings["images"]
    columns = {batch: Column(batch, runs, results) for batch in sorted({run.batch for run in runs})}
    small = columns.get(options.batchsize)
    rows: list[tuple[str, Callable]] = [
        ("steps an epoch", lambda c: f"{-(-images // c.batch):,}"),
        ("SGD: best learning rate", lambda c: f"{c.best.rate:g}"),
        (f"  test accuracy after {options.epoch} epochs, %", lambda c: f"{100 * c.reached(c.best):.2f}"),
        (f"  epochs until {TARGET:.0%}", lambda c: f"{c.fewest_epochs()}"),
        (f"  steps until {TARGET:.0%}", lambda c: f"{c.fewest_epochs() * -(-images // c.batch):,}"),
        (f"Adam until the loss is {options.loss:g}: runs", lambda c: c.count()),
        ("  epochs", lambda c: c.spread("epochs", digits=0)),
        ("  training accuracy, %", lambda c: c.spread("training_accuracy", 100)),
        ("  test accuracy, %", lambda c: c.spread("test_accuracy", 100)),
        (f"  test accuracy below that of batch {options.batchsize}, %", lambda c: c.gap(small)),
    ]
    for key, name in (("sharpness", "sharpness"), ("sharpness_subspace", f"sharpness along {COLUMNS} random columns")):
        rows += [(f"  {name}, epsilon {epsilon:g}", lambda c, key=key, i=i: c.spread(key, at=i))
                 for i, epsilon in enumerate(EPSILONS)]  # fmt: skip
    lines = [["batch size", *(f"{batch:,}" for batch in columns)]]
    for name, cell in rows:
        lines.append([name])
        for column in columns.values():
            try:
                lines[-1].append(cell(column))
            except Missing:
                lines[-1].append("-")
    lines = [line for line in lines if set(line[1:]) != {"-"}]
    widths = [max(map(len, each)) for each in zip(*lines)]
    text = "".join(f"{first:{widths[0]}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(rest, widths[1:])) + "\n"
                   for first, *rest in lines)  # fmt: skip
    if "restored" in results:
        text += f"saved after {CUT} of {WHOLE} steps and restored: {'the same' if results['restored'] else 'OTHER'} bits\n"
    return text if columns else ""


class Missing(Exception):
    """A cell whose runs are not there."""


class Column:
    """The finished runs of a batch size."""

    def __init__(self, batch, runs, results):
        self.batch, self._results = batch, results
        self.grid = [run for run in runs if run.batch == batch and run.rate is not None]
        self.compared = [run for run in runs if run.batch == batch and run.rate is None]

    def reached(self, run):
        return self._results[run.name]["test_accuracy"][-1]

    @property
    def best(self):
        if not self.grid:
            raise Missing
        return max(self.grid, key=self.reached)

    def fewest_epochs(self):
        """Until the target is reached, with the learning rate that is first there."""
        counts = [epoch for run in self.grid
                  for epoch, accuracy in enumerate(self._results[run.name]["test_accuracy"], 1) if accuracy >= TARGET]  # fmt: skip
        if not counts:
            raise Missing
        return min(counts)

    def values(self, key, at=-1):
        """What the compared runs gave, by their seed."""
        found = {run.seed: self._results[run.name][key] for run in self.compared}
        return {seed: value[at] if isinstance(value, list) else value for seed, value in found.items()}

    def count(self):
        if not self.compared:
            raise Missing
        return str(len(self.compared))

    def spread(self, key, factor=1, digits=2, at=-1):
        return spread([factor * value for value in self.values(key, at).values()], digits)

    def gap(self, small):
        """How far the test accuracy is below that of another column, seed by seed, in percent."""
        if small is None or small is self:
            raise Missing
        others, own = small.values("test_accuracy"), self.values("test_accuracy")
        return spread([100 * (others[seed] - own[seed]) for seed in own if seed in others])


def spread(values, digits=2):
    """Mean and deviation of several values."""
    if not values:
        raise Missing
    deviation = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


# ---- The figure -----------------------------------------------------------------------------------------------------


def draw(options, runs, results):
    """Errors by learning rate, by epochs and by steps; test error by sharpness."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(11, 8), layout="constrained")
    (by_rate, by_epoch), (by_step, by_sharpness) = figure.subplots(2, 2)
    runs = [run for run in runs if run.name in results]
    batches = sorted({run.batch for run in runs})
    colors = {batch: f"C{i}" for i, batch in enumerate(batches)}
    columns = [Column(batch, runs, results) for batch in batches]
    for column in columns:
        if not column.grid:
            continue
        style = {"color": colors[column.batch], "marker": ".", "label": f"batch {column.batch:,}"}
        by_rate.plot([run.rate for run in column.grid], [error(column.reached(run)) for run in column.grid], **style)
        result = results[column.best.name]
        errors = [error(accuracy) for accuracy in result["test_accuracy"]]
        epochs = range(1, len(errors) + 1)
        style["label"] += f", rate {column.best.rate:g}"
        by_epoch.plot(epochs, errors, **style)
        by_step.plot([epoch * result["steps"] / len(errors) for epoch in epochs], errors, **style)
    for column in columns:
        if column.compared:
            sharp, accuracy = column.values("sharpness", 0), column.values("test_accuracy")
            by_sharpness.plot(list(sharp.values()), [error(each) for each in accuracy.values()], "o",
                              color=colors[column.batch], label=f"batch {column.batch:,}")  # fmt: skip
    for axes, title, what in [(by_rate, f"SGD, {options.epoch} epochs", "learning rate"),
                              (by_epoch, "SGD, best rate", "epochs"), (by_step, "SGD, best rate", "steps"),
                              (by_sharpness, f"Adam until the training loss is {options.loss:g}, a point a seed",
                               f"sharpness, epsilon {EPSILONS[0]:g}")]:  # fmt: skip
        axes.set(title=title, xlabel=what, ylabel="test error, %")
        if axes in (by_rate, by_step):
            axes.set_xscale("log")
        if axes is not by_sharpness:
            axes.set_yscale("log")
            axes.set_yticks([2, 5, 10, 20, 50, 90], labels=["2", "5", "10", "20", "50", "90"])
            axes.yaxis.set_minor_formatter("")
        if axes.lines:
            axes.legend()
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    by_rate.set_xticks(options.rates, labels=[f"{rate:g}" for rate in options.rates])
    by_rate.xaxis.set_minor_formatter("")
    figure.savefig(options.out / "study.png")


def error(accuracy):
    return 100 * (1 - accuracy)


if __name__ == "__main__":
    sys.exit(main())
