#!/usr/bin/env python3
"""Train a multi-layer perceptron (784-unit-unit-10) on MNIST with Adam: Chainer's first example, written with owl.

Once with owl.train.Trainer, and once (--loop plain) with a loop in which every step stands on the page.
"""

import json
import sys
import time

import numpy as np

import owl
import owl.data
import program
from options import EXIT_INTERRUPTED, RunError
from owl import nn, optim, train as training
from program import say

TABLE_UNITS, TABLE_STEPS, TABLE_WARM_UP = (50, 1000, 3000), 100, 5


def network(unit):
    return nn.Sequential(nn.Linear(784, unit), nn.ReLU(), nn.Linear(unit, unit), nn.ReLU(), nn.Linear(unit, 10))


def main(argv=None):
    found = program.parser(__doc__, epochs=20, batch_size=100, out="result")
    found.add_argument("--unit", type=program.at_least(1), default=50, metavar="N", help="units a layer (default: 50)")
    found.add_argument("--resume", metavar="FILE", help="go on from a snapshot that this program wrote")
    found.add_argument("--loop", choices=("trainer", "plain"), default="trainer",
                       help="how the training is written (default: trainer)")  # fmt: skip
    found.add_argument("--table", action="store_true",
                       help=f"only measure the speed with {', '.join(map(str, TABLE_UNITS))} units")  # fmt: skip
    return program.run(train_mnist, found, argv)


def train_mnist(options):
    train, test = owl.data.mnist(options.data, flat=True)
    if options.table:
        return print_table(options, train)
    say(f"# unit: {options.unit}\n# minibatch: {options.batchsize}\n# epochs: {options.epoch}")
    if options.loop == "plain" and (options.distributed or options.shards):
        raise RunError("--distributed and --shards need --loop trainer")
    loop = {"trainer": by_trainer, "plain": by_plain_loop}[options.loop]
    return loop(options, network(options.unit), train, test)


def report(row):
    say(f"epoch {row['epoch']}")
    say(f"train mean loss={row['loss']:.6f}, accuracy={row['accuracy']:.6f}, throughput={row['images_per_s']:,.0f} images/sec")
    say(f"test  mean loss={row['val_loss']:.6f}, accuracy={row['val_accuracy']:.6f}")


# ---- With Trainer ---------------------------------------------------------------------------------------------------


class Report:
    def on_epoch(self, trainer, row):
        report(row)


def by_trainer(options, model, train, test):
    trainer = training.Trainer(model, "softmax_cross_entropy", optim.Adam(), **program.spread(options))
    if options.resume:
        trainer.load(options.resume)
    snapshot = options.out / "snapshot.npz"
    callbacks = [Report(), program.StopAfter(options.max_steps), training.StopOnNaN(), training.Checkpoint(snapshot),
                 training.CSVLog(options.out / "log.csv")]  # fmt: skip
    history = trainer.fit(train, options.epoch, validation=test, batch_size=options.batchsize, callbacks=callbacks,
                          progress=sys.stderr.isatty(), seed=options.seed)  # fmt: skip
    if len(history):
        program.picture(options.out / "history.png", lambda: history.plot(options.out / "history.png"))
    if len(history) < options.epoch:
        trainer.save(snapshot)
        say(f"stopped after {trainer.steps} steps; --resume {snapshot} goes on there")
        return 0 if trainer.stopping else EXIT_INTERRUPTED
    return 0


# ---- With a plain loop ----------------------------------------------------------------------------------------------


def by_plain_loop(options, model, train, test):
    optimizer, history = optim.Adam(), training.History()
    snapshot = options.out / "snapshot.npz"
    if options.resume:
        history = load(options.resume, model, optimizer)
    try:
        for epoch in range(len(history) + 1, options.epoch + 1):
            left = None if options.max_steps is None else options.max_steps - optimizer.steps
            row = {"epoch": epoch, **train_epoch(options, epoch, model, optimizer, train, left)}
            row |= test_epoch(options, model, test)
            history.rows.append(row)
            report(row)
            save(snapshot, model, optimizer, history)
            if options.max_steps is not None and optimizer.steps >= options.max_steps:
                break
    except KeyboardInterrupt:
        say(f"interrupted: --resume {snapshot} goes on after epoch {len(history)}" if len(history) else "interrupted")
        return EXIT_INTERRUPTED
    finally:
        if len(history):
            program.picture(options.out / "history.png", lambda: history.plot(options.out / "history.png"))
    return 0


def train_epoch(options, epoch, model, optimizer, train, most=None):
    """The training phase: a step for each minibatch of a permutation of the images, or for the first `most` of them."""
    images, labels = train.arrays
    order = np.random.default_rng([options.seed, epoch]).permutation(len(images))
    losses, hits, trained, begun = [], [], 0, time.perf_counter()
    for start in program.bar(range(0, len(order), options.batchsize)[:most], f"epoch {epoch}/{options.epoch}"):
        chosen = order[start : start + options.batchsize]
        x, t = owl.from_numpy(images[chosen]), owl.from_numpy(labels[chosen])  # [784, n] and [n]
        with owl.Tape() as tape:
            y = model(x)
            loss = nn.softmax_cross_entropy(y, t)
        optimizer.update(model, tape.gradient(loss, model))
        losses.append(loss * float(len(chosen)))  # recorded, not read: the loop never waits
        hits.append((y.argmax(0).reshape([-1]) == t).sum())
        trained += len(chosen)
    row = {"loss": sum(map(float, losses)) / trained, "accuracy": sum(map(int, hits)) / trained}
    return {**row, "images_per_s": trained / (time.perf_counter() - begun)}


def test_epoch(options, model, test):
    """The test phase: the same without tape and optimizer."""
    images, labels = test.arrays
    losses, hits = [], []
    for start in range(0, len(images), options.batchsize):
        part = slice(start, start + options.batchsize)
        x, t = owl.from_numpy(images[part]), owl.from_numpy(labels[part])
        y = model(x)
        losses.append(nn.softmax_cross_entropy(y, t, reduce="sum"))
        hits.append((y.argmax(0).reshape([-1]) == t).sum())
    return {"val_loss": sum(map(float, losses)) / len(images), "val_accuracy": sum(map(int, hits)) / len(images)}


def save(path, model, optimizer, history):
    """Writes parameters and optimizer as arrays by name; numbers are metadata."""
    state = optimizer.state()
    arrays = {f"adam/{name}": x for name, x in state.items() if isinstance(x, owl.NArray)}
    numbers = {name: value for name, value in state.items() if not isinstance(value, owl.NArray)}
    arrays |= {f"model/{name}": x for name, x in model.state().items()}
    owl.save(path, arrays, {"adam": json.dumps(numbers), "history": json.dumps(history.rows)})


def load(path, model, optimizer):
    """Goes on from what save() wrote; gives the history."""
    arrays, texts = owl.load(path), owl.load_metadata(path)
    if not {"adam", "history"} <= set(texts):
        raise owl.DataError(f"{path}: not a snapshot of --loop plain")
    state = {name.removeprefix("adam/"): x for name, x in arrays.items() if name.startswith("adam/")}
    optimizer.load_state(state | json.loads(texts["adam"]))
    model.load_state({name.removeprefix("model/"): x for name, x in arrays.items() if name.startswith("model/")})
    return training.History(json.loads(texts["history"]))


# ---- --table --------------------------------------------------------------------------------------------------------


def print_table(options, train):
    """Images per second of the training phase, by the number of units."""
    say(f"{'units':>7}  {'images/s':>10}")
    for unit in TABLE_UNITS:
        model, optimizer = network(unit), optim.Adam()
        for steps in (TABLE_WARM_UP, options.max_steps or TABLE_STEPS):
            row = train_epoch(options, 1, model, optimizer, train, steps)
        say(f"{unit:>7}  {row['images_per_s']:>10,.0f}")


if __name__ == "__main__":
    sys.exit(main())
