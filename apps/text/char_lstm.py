#!/usr/bin/env python3
"""Train an LSTM to write text, character by character: by default like the documentation that comes with Python."""

import argparse
import importlib
import math
import sys
from pathlib import Path

import numpy as np

import owl
from owl import nn, optim, train

EMBEDDED, DROPPED = 32, 0.2  # numbers for each character; share of the LSTM's results
VALIDATED = 0.1  # of the text, its end
PEAK_RATE, LARGEST_NORM = 0.01, 1.0
EXIT_FAILED, EXIT_INTERRUPTED = 1, 130  # the latter is what shells report for SIGINT


class Text:
    """A text as numbers: the place of each character among all that it has."""

    def __init__(self, text):
        self.characters = "".join(sorted(set(text)))
        self._place = {character: place for place, character in enumerate(self.characters)}
        self.codes = self.encoded(text)

    def encoded(self, text):
        """ValueError: the text has another character."""
        if unknown := sorted(set(text) - set(self._place)):
            raise ValueError(f"the text has no {unknown[0]!r}")
        return np.array([self._place[character] for character in text], np.int32)

    def windows(self, length):
        """Training and validation data `(x, labels)`, `[n, length]`: the label of a character is the next one."""
        count = (len(self.codes) - 1) // length
        validated = max(1, round(VALIDATED * count))
        if count <= validated:
            raise ValueError(f"the text has {len(self.codes):,} characters; {2 * length + 1} are needed at least")
        x, labels = (self.codes[first : first + count * length].reshape(count, length) for first in (0, 1))
        return (x[:-validated], labels[:-validated]), (x[-validated:], labels[-validated:])


class CharLSTM(nn.Module):
    """Of characters `[T, N]`, the logits of each one's successor, `[characters, T, N]`."""

    def __init__(self, characters, unit, layers):
        self.embedding = nn.Embedding(characters, EMBEDDED)
        self.lstm = nn.LSTM(EMBEDDED, unit, layers)
        self.dropout = nn.Dropout(DROPPED)
        self.output = nn.Linear(unit, characters)

    def forward(self, x):
        return self.step(x)[0]

    def step(self, x, state=None):
        """The logits, and the state after the last character."""
        y, state = self.lstm(self.embedding(x), state)
        return self.output(self.dropout(y)), state

    def write(self, start, count, temperature, rng):
        """`count` characters that follow `start`, each drawn with the probability that the network gives it."""
        self.eval()  # fit sets the mode itself before it trains
        written, codes, state = [], start, None
        for _ in range(count):
            logits, state = self.step(owl.from_numpy(codes.reshape(1, -1)), state)  # [T, 1]
            z = logits.to_numpy()[0, -1].astype(np.float64) / temperature
            p = np.exp(z - z.max())
            written.append(rng.choice(len(p), p=p / p.sum()))
            codes = np.array(written[-1:], np.int32)
        return written


class ClippedAdam(optim.Adam):
    """Adam with gradients whose norm is limited: those of long sequences are sometimes huge."""

    def update(self, model, grads):
        return super().update(model, optim.clip_norm(grads, LARGEST_NORM)[0])


class Sample:
    """A callback that prints what the network writes after each epoch; a checkpoint gets the alphabet."""

    def __init__(self, options, text):
        self.options, self.text = options, text

    def on_epoch(self, trainer, row):
        print(f"{row['val_loss'] / math.log(2):.3f} bits a character in validation. The network writes:", flush=True)
        self.show(trainer)

    def show(self, trainer):
        options, text = self.options, self.text
        rng = np.random.default_rng([options.seed, len(trainer.history)])  # not owl's: training is the same without samples
        written = trainer.model.write(text.encoded(options.start), options.sample, options.temperature, rng)
        sample = options.start + "".join(text.characters[code] for code in written)
        print("".join(f"  | {line}\n" for line in sample.strip("\n").split("\n")), flush=True)

    def state(self):
        return {"characters": self.text.characters}

    def load_state(self, state):
        if state["characters"] != self.text.characters:
            raise owl.DataError(f"{self.options.resume}: of a network for a text with other characters")


class StopAfter:
    """A callback that ends the training after so many steps; without a number it never does."""

    def __init__(self, steps):
        self.steps = steps

    def on_step(self, trainer, step):
        if self.steps is not None and step >= self.steps:
            trainer.stop()


def train_char_lstm(options):
    text = Text(read(options.text))
    training, validation = text.windows(options.length)
    text.encoded(options.start)
    owl.seed(options.seed)
    model = CharLSTM(len(text.characters), options.unit, options.layers)
    steps = options.epoch * -(-len(training[0]) // options.batchsize)
    print(f"{len(text.codes):,} characters, {len(text.characters)} different ones; {steps:,} steps of {options.batchsize} x "
          f"{options.length} characters\n{model.summary([options.length, options.batchsize], 'int32')}\n", flush=True)  # fmt: skip
    trainer = train.Trainer(model, "softmax_cross_entropy", ClippedAdam(optim.one_cycle(PEAK_RATE, steps)))
    if options.resume:
        trainer.load(options.resume)
    checkpoint, plot, sample = options.out / "checkpoint.npz", options.out / "history.png", Sample(options, text)
    history = trainer.fit(training, options.epoch, validation=validation, batch_size=options.batchsize, seed=options.seed,
                          callbacks=[sample, StopAfter(options.max_steps), train.StopOnNaN(), train.Checkpoint(checkpoint)])  # fmt: skip
    if len(history):
        draw(history, plot)
    if len(history) < options.epoch:
        trainer.save(checkpoint)
        print(f"stopped after {trainer.steps} steps; --resume {checkpoint} goes on there", flush=True)
        return 0 if trainer.stopping else EXIT_INTERRUPTED
    return 0


def read(path):
    """The text of a file, or without one the topics of Python's help()."""
    if path is None:
        topics = importlib.import_module("pydoc_data.topics").topics
        return "\n".join(topics[name] for name in sorted(topics))
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8: {error}") from None


def draw(history, path):
    try:
        history.plot(path)
    except ImportError:
        print(f"{path} is not drawn: plots need matplotlib, pip install matplotlib", flush=True)
    else:
        print(f"{path} is drawn", flush=True)


def number(kind, least, what):
    """A parser of numbers: of integers from `least` on, or of floats above it."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (value > least or (kind is int and value == least)) or value == math.inf:
            raise argparse.ArgumentTypeError(f"expected {what}, not '{text}'")
        return value

    return parse


def main(argv=None):
    count, positive = number(int, 1, "an integer of at least 1"), number(float, 0, "a number above 0")
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                                    epilog="Ctrl-C ends the run with what was reached (exit code 130).")  # fmt: skip
    found.add_argument("--text", type=Path, metavar="FILE", help="text in UTF-8; without it, the topics of Python's help()")
    found.add_argument("--epoch", type=count, default=10, metavar="N", help="passes over the text")
    found.add_argument("--batchsize", type=count, default=32, metavar="N", help="pieces of text per step")
    found.add_argument("--length", type=count, default=64, metavar="N", help="characters of a piece")
    found.add_argument("--unit", type=count, default=256, metavar="N", help="units of a layer")
    found.add_argument("--layers", type=count, default=1, metavar="N", help="layers of LSTM")
    found.add_argument("--sample", type=count, default=400, metavar="N", help="characters written after each epoch")
    found.add_argument("--start", default="The ", metavar="TEXT", help="what they follow")
    found.add_argument("--temperature", type=positive, default=0.7, metavar="X",
                       help="1 draws as the network says, less draws what is more likely")  # fmt: skip
    found.add_argument("--gpu", type=number(int, -1, "an integer of at least -1"), default=-1, metavar="N", help="which GPU; -1 is the CPU")
    found.add_argument("--out", type=Path, default=Path("char_lstm"), metavar="FOLDER", help="where files are written")
    found.add_argument("--resume", metavar="FILE", help="go on from a checkpoint that this program wrote")
    found.add_argument("--seed", type=number(int, 0, "an integer of at least 0"), default=1, metavar="N", help="of weights, shuffling and samples")
    found.add_argument("--max-steps", type=count, metavar="N", help="stop the training after N steps in all")
    options = found.parse_args(argv)
    if not options.start:
        found.error("argument --start: expected at least one character")
    try:
        with owl.device(0 if options.gpu < 0 else owl.create_gpu_device(options.gpu)):
            options.out.mkdir(parents=True, exist_ok=True)
            return train_char_lstm(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (owl.Error, MemoryError, ImportError, OSError, ValueError) as error:
        print(f"{found.prog}: error: {error}", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
