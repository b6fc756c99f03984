"""The table of benchmarks on a GPU: owl's command, its references and the targets."""
from typing import NamedTuple


class Command(NamedTuple):
    """A process that prints one line of JSON with `best`. ../run.py uses the fields."""

    kind: str  # "owl": a script beside this one; "peer": one in peers/
    program: str
    arguments: tuple[str, ...] = ()


class Goal(NamedTuple):
    """The reference for a figure of owl, and the target for the ratio, or for the figure itself."""

    name: str
    wanted: float | None = None  # None: no target
    command: Command | None = None  # None: the figure itself
    at_least: bool = False  # otherwise at most


class Row(NamedTuple):
    work: str
    command: Command
    against: tuple[Goal, ...]
    tiny: tuple[str, ...]  # arguments for a small size, to check that the script works
    more_is_better: bool = False


def owl(script, *arguments):
    return Command("owl", "gpu/" + script, arguments)


def peer(name, wanted, script, *arguments, at_least=False):
    return Goal(name, wanted, Command("peer", script, (name, *arguments)), at_least)


def matmul(precision, label):
    chosen = ("--precision", precision)
    return Row(f"product of two 8192x8192 matrices, {label}, ms", owl("matmul.py", *chosen),
               (peer("torch", 1.02, "matmul.py", *chosen),), ("--size", "64", "--rounds", "2"))  # fmt: skip


def train(units, images_a_second):
    chosen = ("--units", str(units))
    return Row(
        f"train_mnist, 784-{units}-{units}-10, Adam, minibatches of 100 from NumPy, images/s", owl("train.py", *chosen),
        (Goal("", images_a_second, at_least=True), peer("torch", None, "train.py", *chosen)),
        ("--units", "16", "--images", "2000", "--epochs", "1"), more_is_better=True,
    )  # fmt: skip


SMALL_EPOCH = ("--hidden", "16", "--images", "1024", "--epochs", "1")

ROWS = (
    Row("MLP epoch, H=256, data on the card, s", owl("mlp.py"), (
        peer("torch", 0.15, "mlp.py"),
        peer("torch-graphs", 0.9, "mlp.py"),
        peer("jax", 0.5, "mlp.py"),
    ), SMALL_EPOCH),
    Row("MLP epoch, H=256, minibatches from NumPy, s", owl("mlp.py", "--from-numpy", "1"), (
        Goal("data on the card", 1.5, owl("mlp.py")),
    ), SMALL_EPOCH),
    Row("CNN minibatch of 256, s", owl("cnn.py"), (
        peer("torch", 0.5, "cnn.py"),
        peer("torch-graphs", 1.0, "cnn.py"),
    ), ("--batches", "2", "--rounds", "1")),
    matmul("float32", "float32"),
    matmul("tf32", "TF32"),
    matmul("bfloat16", "bfloat16"),
    Row("elementwise chain, 256M floats, GB/s", owl("chain.py"), (
        peer("torch-copy", 0.9, "chain.py", at_least=True),
        peer("cupy", None, "chain.py"),
    ), ("--size", "4096", "--rounds", "2"), more_is_better=True),
    train(1000, 380_000),
    train(3000, 130_000),
    Row("first result of a fresh process, s", owl("first.py"), (Goal("", 1.5),), ("--runs", "1")),
)  # fmt: skip
