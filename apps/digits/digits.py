#!/usr/bin/env python3
"""Train a small network on scikit-learn's 1,797 digits of 8 x 8 pixels: seconds, and no download."""

import argparse
import sys

import numpy as np

import owl
from owl import nn, optim, train

TESTED = 360  # images, a fifth


def load():
    """Training and test data `(images, labels)`; images are float32 `[n, 64]` in 0..1."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise ImportError("the digits are scikit-learn's: pip install scikit-learn") from None
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)
    return (images[TESTED:], labels[TESTED:]), (images[:TESTED], labels[:TESTED])


def train_digits(options):
    digits, test = load()
    owl.seed(options.seed)
    model = nn.Sequential(nn.Linear(64, options.unit), nn.ReLU(), nn.Dropout(0.2), nn.Linear(options.unit, 10))
    trainer = train.Trainer(model, "softmax_cross_entropy", optim.Adam(0.003))
    history = trainer.fit(digits, options.epoch, validation=test, batch_size=32, seed=options.seed)
    if len(history):
        print(f"{round(100 * trainer.evaluate(test)['accuracy'], 1)} % of {TESTED} test images", flush=True)
        print(drawn(test[0], trainer.predict(test[0]).argmax(0).to_numpy().ravel(), 5), flush=True)
    if options.plot and len(history):
        history.plot(options.plot)
    return 0 if len(history) == options.epoch else 130  # what shells report for Ctrl-C


def drawn(images, predicted, count):
    """The first images side by side as text, with what they are taken for."""
    rows = [[f"{f'-> {digit}':<16}" for digit in predicted[:count]]]
    for y in range(8):
        rows.append(["".join(" .:-=+*#@"[int(8 * ink)] * 2 for ink in image.reshape(8, 8)[y]) for image in images[:count]])
    return "\n".join("  ".join(row).rstrip() for row in rows)


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, not '{text}'")
    return int(text)


def main(argv=None):
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--unit", type=positive, default=100, help="units of the hidden layer (default: 100)")
    found.add_argument("--epoch", type=positive, default=20, help="(default: 20)")
    found.add_argument("--seed", type=positive, default=1, help="of weights, dropout and shuffling (default: 1)")
    found.add_argument("--plot", metavar="FILE", help="draw loss and accuracy to a .png, .pdf or .svg (needs matplotlib)")
    try:
        return train_digits(found.parse_args(argv))
    except KeyboardInterrupt:
        return 130
    except (owl.Error, ImportError, OSError, ValueError) as error:
        print(f"{found.prog}: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
