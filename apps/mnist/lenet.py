#!/usr/bin/env python3
"""Train LeNet (two convolutions with max pooling, two full connections) on MNIST with owl: 99 % of the test images."""

import sys

import owl
import owl.data
import program
from options import EXIT_INTERRUPTED
from owl import nn, optim, train as training
from program import say

PEAK_RATE = 3e-3


class LeNet(nn.Module):
    """LeCun et al. 1998, as it is trained today: ReLU, max pooling, and no subsampled connections."""

    def __init__(self):
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.full1 = nn.Linear(50 * 4 * 4, 500)
        self.full2 = nn.Linear(500, 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        """`x` is `[28, 28, 1, n]`; the logits are `[10, n]`."""
        x = self.pool(owl.relu(self.conv1(x)))  # [12, 12, 20, n]
        x = self.pool(owl.relu(self.conv2(x)))  # [4, 4, 50, n]
        return self.full2(self.dropout(owl.relu(self.full1(self.flatten(x)))))


def main(argv=None):
    found = program.parser(__doc__, epochs=5, batch_size=128, out="lenet")
    found.add_argument("--resume", metavar="FILE", help="go on from a checkpoint that this program wrote")
    return program.run(train_lenet, found, argv)


def train_lenet(options):
    train, test = owl.data.mnist(options.data)
    model = LeNet()
    say(f"{model.summary([28, 28, 1, options.batchsize])}\n")
    steps = options.epoch * -(-len(train) // options.batchsize)
    trainer = training.Trainer(model, "softmax_cross_entropy", optim.Adam(optim.one_cycle(PEAK_RATE, steps)),
                               **program.spread(options))  # fmt: skip
    if options.resume:
        trainer.load(options.resume)
    checkpoint, weights, plot = (options.out / name for name in ("checkpoint.npz", "weights.npz", "history.png"))
    callbacks = [program.StopAfter(options.max_steps), training.StopOnNaN(), training.Checkpoint(checkpoint)]
    history = trainer.fit(train, options.epoch, validation=test, batch_size=options.batchsize, callbacks=callbacks,
                          seed=options.seed)  # fmt: skip
    say(f"test accuracy {100 * trainer.evaluate(test)['accuracy']:.2f} % after {trainer.steps} steps")
    if program.writes():
        model.save(weights)
    if len(history):
        program.picture(plot, lambda: history.plot(plot))
    if len(history) < options.epoch:
        trainer.save(checkpoint)
        say(f"stopped: --resume {checkpoint} goes on here")
        return 0 if trainer.stopping else EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
