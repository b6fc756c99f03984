#!/usr/bin/env python3
"""A Keras course's exercise on MNIST with owl: which activation learns, what overfits, and what dropout does.

Networks 784-684-684-10 are trained by SGD (rate 0.01, minibatch 128) on 6,000 images and validated on 5,000 others:
sigmoid, whose small gradients leave it behind; relu, which learns and overfits; relu with dropout of 20 %, which fits less
and validates better. --full is Keras's own example, mnist_mlp.py: 784-512-512-10 with dropout on all images by RMSprop (rate
0.001), 20 epochs.
"""

import functools
import importlib
import sys

import numpy as np

import owl
import owl.data
import program
from options import EXIT_INTERRUPTED
from owl import nn, optim, train as training
from program import say

TRAINED, VALIDATED = 6000, 5000
UNITS, FULL_UNITS, DROPPED = 684, 512, 0.2
EPOCHS, FULL_EPOCHS = 40, 20
KERAS_RMSPROP = functools.partial(optim.RMSprop, 0.001, alpha=0.9, eps=1e-7)  # Keras's defaults; owl's are PyTorch's


def network(units, activation, dropout):
    """784-units-units-10 with Keras's first weights (Glorot and Bengio 2010)."""
    layers = []
    for n_in in (784, units):
        layers += [nn.Linear(n_in, units, init=nn.init.glorot_uniform), activation()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(units, 10, init=nn.init.glorot_uniform))


def main(argv=None):
    found = program.parser(__doc__, epochs=None, batch_size=128, out="keras_exercise")
    found.add_argument("--full", action="store_true", help=f"all images, dropout, RMSprop; {FULL_EPOCHS} epochs by default")
    return program.run(exercise, found, argv)


def exercise(options):
    options.epoch = options.epoch or (FULL_EPOCHS if options.full else EPOCHS)
    train, validation, test = prepared(options)
    say(f"{len(train[0]):,} training images, {len(validation[0]):,} validation images, {len(test[0]):,} test images")
    runs = {"sigmoid": (nn.Sigmoid, 0), "relu": (nn.ReLU, 0), f"relu, dropout {DROPPED}": (nn.ReLU, DROPPED)}
    if options.full:
        runs = dict([runs.popitem()])
    histories, results = {}, {}
    for name, (activation, dropout) in runs.items():
        say(f"\n{name}")
        owl.seed(options.seed)  # the same weights for all
        trainer = training.Trainer(network(FULL_UNITS if options.full else UNITS, activation, dropout), "softmax_cross_entropy",
                                   KERAS_RMSPROP() if options.full else optim.SGD(0.01), **program.spread(options))  # fmt: skip
        histories[name] = trainer.fit(train, options.epoch, validation=validation, batch_size=options.batchsize,
                                      callbacks=[program.StopAfter(options.max_steps)], seed=options.seed)  # fmt: skip
        interrupted = len(histories[name]) < options.epoch and not trainer.stopping
        results[name] = {"validation": trainer.evaluate(validation), "test": trainer.evaluate(test)}
        if interrupted:
            break
    print_results(histories, results)
    draw_histories(options, {name: history for name, history in histories.items() if len(history)})
    return EXIT_INTERRUPTED if interrupted else 0


def prepared(options):
    """Training, validation and test data: standardised by the training set, labels one-hot.

    The validation images are the 5,000 behind the 6,000. With --full, as in Keras's example, they are the test images, and
    pixels are from 0 to 1.
    """
    (images, labels), test = (part.arrays for part in owl.data.mnist(options.data, flat=True))
    count = len(images) if options.full else min(TRAINED, len(images) * TRAINED // (TRAINED + VALIDATED))
    mean, deviation = (0, 1) if options.full else (images[:count].mean(), images[:count].std())

    def standardised(images, labels):
        return (images - mean) / deviation, np.eye(10, dtype=np.float32)[labels]

    behind = slice(count, count + VALIDATED)
    return (standardised(images[:count], labels[:count]),
            standardised(*test) if options.full else standardised(images[behind], labels[behind]),
            standardised(*test))  # fmt: skip


def print_results(histories, results):
    width = max(map(len, results))
    say(f"\n{'':{width}}  {'training':>18}  {'validation':>18}  {'test':>18}\n{'':{width}}" + f"  {'loss':>8}  {'accuracy':>8}" * 3)
    for name, result in results.items():
        last = histories[name][-1] if len(histories[name]) else {}
        say(f"{name:{width}}" + "".join(f"  {measured['loss']:8.4f}  {measured['accuracy']:8.4f}" if measured else f"  {'-':>8}  {'-':>8}"
                                        for measured in (last, result["validation"], result["test"])))  # fmt: skip


def draw_histories(options, histories):
    """Loss above, accuracy below; a column for each network, on the same scale."""
    if not histories:
        return
    path = options.out / ("full.png" if options.full else "histories.png")

    def draw():
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=(4.5 * len(histories), 7), layout="constrained")
        places = figure.subplots(2, len(histories), sharex=True, sharey="row", squeeze=False)
        for column, (name, history) in enumerate(histories.items()):
            for axes, what in zip(places[:, column], ("loss", "accuracy")):
                axes.plot(history["epoch"], history[what], label="training")
                axes.plot(history["epoch"], history[f"val_{what}"], label="validation")
                axes.set_title(f"{name}: {what}")
                axes.legend(loc="upper right" if what == "loss" else "lower right")
            axes.set_xlabel("epoch")
        figure.savefig(path)

    program.picture(path, draw)


if __name__ == "__main__":
    sys.exit(main())
