"""Shared by the MNIST programs: devices, the training loop, its progress and its closing table."""

import contextlib
import math
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import mnist_io
import owl
import owl.conv as conv
import owl.elewise as ele
from options import EXIT_FAILED, EXIT_INTERRUPTED, RunError, refuse_options, say

try:
    import tqdm
except ImportError:  # Without tqdm there is no bar, only the line per epoch.
    tqdm = None

TEST_BATCH = 1000  # images; their layers' outputs set the memory of a test pass
READ_LAG = 8  # steps between recording a loss and reading it, so that reading never waits for the newest step
WARM_UP = 0.4  # of the run, while the learning rate rises
UPDATES_PER_SECOND = 4  # of the progress bar, at most


@dataclass(frozen=True)
class Network:
    """A network over a list of parameters that alternates weights and biases."""

    initial_parameters: Callable  # () -> params
    loss_and_gradients: Callable  # (params, images, targets) -> [loss, gradient, ...], summed over the minibatch
    predict: Callable  # (params, images) -> logits, [10, n]
    image_shape: tuple  # of one image as the network takes it: (784,) or (28, 28, 1)


# ---- One step -------------------------------------------------------------------------------------------------------


def cross_entropy(logits, target):
    """The cross entropy of `logits` `[10, n]` against one-hot `target` `[10, n]`, summed over the minibatch: `[1]`."""
    return -ele.mult(target, conv.log_softmax(logits)).sum()


def loss_and_gradients_over(shares, network, params):
    """The loss and gradients of a minibatch in `shares`, a list of `(device, images, targets)`.

    Every device works on its share. Then the sums are added in a tree: each round adds those of the second half of the
    devices to the first half.
    """
    devices = [device for device, _, _ in shares]
    sums = []
    for device, images, targets in shares:
        with owl.device(device):
            sums.append(network.loss_and_gradients(params, images, targets))
    while len(sums) > 1:
        half = (len(sums) + 1) // 2
        for i in range(half, len(sums)):
            with owl.device(devices[i - half]):
                sums[i - half] = [a + b for a, b in zip(sums[i - half], sums[i])]
        del sums[half:]
    return sums[0]


def update(params, velocity, gradients, lr, momentum, weight_decay):
    """One step of gradient descent with momentum; replaces the entries of `params` and `velocity`.

    Biases, the odd entries, do not decay.
    """
    for k, gradient in enumerate(gradients):
        if k % 2 == 0 and weight_decay > 0:
            gradient = gradient + weight_decay * params[k]
        velocity[k] = momentum * velocity[k] - lr * gradient
        params[k] += velocity[k]


def one_cycle(progress):
    """The learning rate, in units of its peak, at `progress` (0 to 1) of the run: two half cosines.

    It starts slowly because fresh weights do not bear large steps, and ends slowly to converge.
    """
    if progress < WARM_UP:
        return (1 - math.cos(math.pi * progress / WARM_UP)) / 2
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


# ---- Training and testing -------------------------------------------------------------------------------------------


def run(options, network):
    """Trains and tests `network` as `options` say, and prints the results. Returns the program's exit code."""
    report, log = Report(options), Log(options)
    try:
        try:
            devices = pick_devices(options)
            train_set, test_set = mnist_io.load(options.data)
            with owl.device(devices[0]):
                train(options, network, devices, train_set, test_set, report, log)
            log.close()
        except KeyboardInterrupt:
            report.close("interrupted")
            log.close()
            return EXIT_INTERRUPTED
        except (owl.Error, RunError, MemoryError):
            with contextlib.suppress(RunError):
                log.close()
            if report.rows:
                report.close("stopped by an error")
            raise
        report.close()
    except (owl.Error, RunError, MemoryError) as error:
        print(f"{options.program}: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def train(options, network, devices, train_set, test_set, report, log):
    """The training loop. The first of `devices`, which is the current one, has the parameters."""
    owl.seed(options.seed)
    rng = np.random.default_rng(options.seed)
    params = network.initial_parameters()
    velocity = [owl.zeros(p.shape) for p in params]
    images, labels = train_set
    if "batch-size" in options.given and options.batch_size > len(images):
        print(f"{options.program}: --batch-size {options.batch_size} is more than the {len(images)} training images: "
              "every step takes all of them", file=sys.stderr)  # fmt: skip
    total_steps = options.epochs * math.ceil(len(images) / options.batch_size)
    losses = Losses(report, log)
    step = 0

    for epoch in range(1, options.epochs + 1):
        report.begin_epoch(epoch, len(images))
        order = rng.permutation(len(images))
        for start in range(0, len(order), options.batch_size):
            chosen = order[start : start + options.batch_size]
            shares = share_out(images[chosen], labels[chosen], network.image_shape, devices)
            loss, *gradients = loss_and_gradients_over(shares, network, params)
            gradients = [g / len(chosen) for g in gradients]
            lr = options.lr * one_cycle((step + 1) / (total_steps + 1))
            update(params, velocity, gradients, lr, options.momentum, options.weight_decay)
            losses.add(loss / len(chosen), len(chosen))
            step += 1
            if step == options.max_steps:
                break
        losses.read()
        report.end_epoch(accuracy(network, params, *test_set))
        if step == options.max_steps:
            break


def share_out(images, labels, image_shape, devices):
    """The minibatch as `(device, images, targets)` for each device that gets a part."""
    shares = []
    for device, part in zip(devices, np.array_split(np.arange(len(images)), len(devices))):
        if len(part):
            with owl.device(device):
                targets = owl.from_numpy(mnist_io.one_hot(labels[part]))
                shares.append((device, to_input(images[part], image_shape), targets))
    return shares


def to_input(images, image_shape):
    """uint8 `[n, 28, 28]` to a float32 NArray `[*image_shape, n]` in 0..1 on the current device."""
    return owl.from_numpy(mnist_io.as_samples(images)).reshape([*image_shape, len(images)])


def accuracy(network, params, images, labels):
    """The fraction of `images` for which the network's first choice is the label."""
    hits = []
    for start in range(0, len(images), TEST_BATCH):
        part = slice(start, start + TEST_BATCH)
        logits = network.predict(params, to_input(images[part], network.image_shape))
        truth = owl.from_numpy(labels[part].astype(np.int32).reshape(-1, 1))  # [1, n]
        hits.append((logits.argmax(0) == truth).sum())
    return sum(int(h) for h in hits) / len(images)


class Log:
    """The file for --log."""

    def __init__(self, options):
        self.name, self.file = f"--log {options.log}", None
        if options.log is None:
            return
        try:
            self.file = open(options.log, "w", encoding="ascii")
        except OSError as error:
            refuse_options(options, f"{self.name}: {error.strerror}")

    def write(self, step, loss):
        if self.file is not None:
            self._do(self.file.write, f"{step} {loss:.9g}\n")

    def close(self):
        if self.file is not None:
            self._do(self.file.close)

    def _do(self, action, *arguments):
        try:
            action(*arguments)
        except OSError as error:
            raise RunError(f"{self.name}: {error.strerror}") from None


class Losses:
    """Reads losses for the report and the log, some steps after they were recorded."""

    def __init__(self, report, log):
        self.report, self.log = report, log
        self.pending: deque[tuple[owl.NArray, int]] = deque()
        self.steps = 0  # whose losses were read

    def add(self, loss, images):
        """Takes the mean loss, an NArray `[1]`, of a step over so many images."""
        self.pending.append((loss, images))
        self.read(leave=READ_LAG)

    def read(self, leave=0):
        """Reads the oldest losses until only `leave` are left."""
        while len(self.pending) > leave:
            loss, images = self.pending.popleft()
            value = float(loss)
            self.steps += 1
            self.log.write(self.steps, value)
            if not math.isfinite(value):
                raise RunError(f"the loss became {value} at step {self.steps}; a smaller --lr may help")
            self.report.step(value, images)


# ---- Output of a run ------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """The figures of an epoch, complete or so far."""

    epoch: int
    images: int = 0
    loss_sum: float = 0.0  # over the images
    seconds: float = 0.0  # of training
    test_accuracy: float | None = None  # not tested yet

    @property
    def cells(self):
        """Mean loss, test accuracy, images per second and seconds, as they are printed."""
        tested = "-" if self.test_accuracy is None else f"{100 * self.test_accuracy:.2f} %"
        loss, rate = self.loss_sum / self.images, self.images / self.seconds
        return f"{loss:.4f}", tested, f"{rate:,.0f}", f"{self.seconds:.1f}"


class Report:
    """A progress bar on a terminal, a line after each epoch, and a table at the end."""

    def __init__(self, options):
        self.epochs, self.quiet = options.epochs, options.quiet
        self.rows = []
        self.bar = None
        self.started = time.perf_counter()

    def begin_epoch(self, epoch, images):
        self.rows.append(Row(epoch))
        self.epoch_started = time.perf_counter()
        if tqdm is not None and sys.stderr.isatty() and not self.quiet:
            tqdm.tqdm.monitor_interval = 0  # no thread that redraws an idle bar
            # Passed to tqdm, which shows nothing on a terminal of unknown size.
            columns, lines = shutil.get_terminal_size()
            self.bar = tqdm.tqdm(total=images, desc=f"epoch {epoch}/{self.epochs}", unit=" images", leave=False,
                                 ncols=columns, nrows=lines, mininterval=1 / UPDATES_PER_SECOND)  # fmt: skip

    def step(self, loss, images):
        row = self.rows[-1]
        row.images += images
        row.loss_sum += loss * images
        row.seconds = time.perf_counter() - self.epoch_started
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update(images)

    def end_epoch(self, test_accuracy):
        self.close_bar()
        row = self.rows[-1]
        row.test_accuracy = test_accuracy
        if not self.quiet:
            loss, tested, rate, seconds = row.cells
            say(f"epoch {row.epoch}/{self.epochs}  loss {loss}  test {tested}  {rate} images/s  {seconds} s")

    def close_bar(self):
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def close(self, ending=None):
        """Prints the table; `ending` says why the run ended early."""
        self.close_bar()
        reached = [row for row in self.rows if row.images]
        lines = [] if ending is None else ["", ending if reached else f"{ending} before the first step was done"]
        if reached:
            table = [("epoch", "loss", "test", "images/s", "seconds")]
            table += [(str(row.epoch), *row.cells) for row in reached]
            widths = [max(map(len, column)) for column in zip(*table)]
            lines += ["", *("  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in table)]
            tested = [row for row in reached if row.test_accuracy is not None]
            if tested:
                last = tested[-1]
                lines.append(f"test accuracy {100 * last.test_accuracy:.2f} % after epoch {last.epoch}")
            lines.append(f"{time.perf_counter() - self.started:.1f} s in all")
        say("\n".join(lines))


# ---- Devices --------------------------------------------------------------------------------------------------------


def pick_devices(options):
    """The ids of the devices that `options` choose, the parameters' device first."""
    if options.num_gpus is not None:
        if options.device not in ("auto", "gpu"):
            refuse_options(options, f"--num-gpus {options.num_gpus} takes the first GPUs; it does not go with "
                           f"--device {options.device}")
        if options.num_gpus > options.batch_size:
            refuse_options(options, f"--num-gpus {options.num_gpus} leaves nothing to share in --batch-size "
                           f"{options.batch_size}")
        return [owl.create_gpu_device(i) for i in range(options.num_gpus)]
    if options.device == "cpu" or (options.device == "auto" and owl.get_gpu_device_count() == 0):
        return [0]  # the CPU device, which always exists
    _, _, index = options.device.partition(":")
    return [owl.create_gpu_device(int(index or 0))]
