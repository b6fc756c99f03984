"""The table of benchmarks: owl's command, its references, and the targets (largest ratio wanted)."""
from typing import NamedTuple


class Command(NamedTuple):
    """A process that prints one line of JSON with `best`, and perhaps more figures."""

    kind: str  # "owl": a script beside this one; "peer": a peer's; "floor": a program of the build
    program: str
    arguments: tuple[str, ...] = ()


class Against(NamedTuple):
    name: str
    at_most: float  # owl's best / its best
    command: Command | None = None  # run in turn with owl's
    figure: str = ""  # or one that owl's own script prints beside `best`


class Row(NamedTuple):
    work: str
    command: Command
    against: tuple[Against, ...]


def owl(script, *arguments):
    return Command("owl", script, arguments)


def peer(name, at_most, script, *arguments):
    return Against(name, at_most, Command("peer", script, (name, *arguments)))


def floor(name, at_most, program, *arguments):
    return Against(name, at_most, Command("floor", program, arguments))


WIDER = ("--hidden", "1000", "--epochs", "3")
WIDEST = ("--hidden", "3000", "--epochs", "2")
TALL = ("--classes", "10", "--columns", "100000")
TRAINED = ("--units", "50", "--images", "60000")
TRAINED_WIDEST = ("--units", "3000", "--images", "1000")
TRAINED_WIDER = ("--units", "1000", "--images", "6000")
WIDE = ("--classes", "1000", "--columns", "10000")
PUT_ADD = ("--work", "put_add")

# Of single operations that the script waits for.
CALLS = (
    ("add of 1K floats, waited for", 2.0, ("--work", "add", "--elements", "1024")),
    ("item of (x[0, 0] + 1), waited for", 2.0, ("--work", "item", "--elements", "1024")),
    ("add of 64K floats, waited for", 1.5, ("--work", "add")),
    ("add of 256K floats, waited for", 1.5, ("--work", "add", "--elements", "262144")),
    ("product of 64x64, waited for", 1.5, ("--work", "product", "--elements", "4096")),
    ("product of 128x128, waited for", 1.5, ("--work", "product", "--elements", "16384")),
    ("to_numpy of a sum of 4M floats", 1.0, ("--work", "to_numpy", "--elements", "4194304")),
    ("from_numpy of 4M floats", 1.0, ("--work", "from_numpy", "--elements", "4194304")),
)

ROWS = (
    Row("MLP epoch, H=256, s", owl("mlp.py"), (
        peer("torch-tuned", 0.80, "mlp.py"),
        peer("numpy", 0.85, "mlp.py"),
        peer("jax", 0.60, "mlp.py"),
        floor("its five products, bare loop", 1.08, "products_floor"),
    )),
    Row("MLP epoch, H=1000, s", owl("mlp.py", *WIDER), (peer("torch-tuned", 0.85, "mlp.py", *WIDER),)),
    Row("MLP epoch, H=3000, s", owl("mlp.py", *WIDEST), (peer("torch-tuned", 0.85, "mlp.py", *WIDEST),)),
    Row("CNN minibatch of 256, s", owl("cnn.py"), (
        peer("torch", 0.55, "cnn.py"),
        peer("jax", 0.20, "cnn.py"),
        floor("its five convolutions, bare loop", 1.25, "conv_floor"),
    )),
    Row("elementwise chain, 4M floats, ms", owl("chain.py"), (
        peer("jax", 1.15, "chain.py"),
        peer("torch", 0.20, "chain.py"),
    )),
    Row("softmax over [10, 100000], ms", owl("softmax.py", *TALL), (peer("torch", 0.70, "softmax.py", *TALL),)),
    Row("softmax over [1000, 10000], ms", owl("softmax.py", *WIDE), (peer("torch", 0.70, "softmax.py", *WIDE),)),
    Row("take of 1M rows of 64 floats, ms", owl("take.py"), (peer("numpy", 0.70, "take.py"),)),
    Row("put_add of 1M rows of 64 floats, ms", owl("take.py", *PUT_ADD), (peer("numpy", 0.70, "take.py", *PUT_ADD),)),
    Row("layer norm of [1024, 4096], forward and backward, ms", owl("layer_norm.py"), (peer("torch", 0.70, "layer_norm.py"),)),
    Row("ResNet-18's convolutions, batch of 8, ms", owl("resnet.py"), (peer("torch", 0.90, "resnet.py"),)),
    Row("attention of 8 heads, [256, 128, 8], forward and backward, ms", owl("attention.py"), (
        peer("torch", 0.80, "attention.py"),
    )),
    Row("single operations, geometric mean, us", owl("cliffs.py"), (peer("torch", 0.65, "cliffs.py"),)),
    Row("x = x + 1.0 on 1x1, us", owl("ops.py"), (
        peer("numpy", 0.60, "ops.py"),
        peer("torch", 0.20, "ops.py"),
    )),
    *(Row(f"{named}, us", owl("calls.py", *options), (
        peer("numpy", at_most, "calls.py", *options),
        peer("torch", at_most, "calls.py", *options),
    )) for named, at_most, options in CALLS),
    Row("two chains of 200 products 64x64, two workers, s", owl("chains.py", "--workers", "2"), (
        Against("one worker", 0.55, owl("chains.py", "--workers", "1")),
    )),
    Row("784-50-50-10 with Adam, s", owl("adam.py", *TRAINED), (peer("torch", 0.67, "adam.py", *TRAINED),)),
    Row("784-1000-1000-10 with Adam, s", owl("adam.py", *TRAINED_WIDER), (peer("torch", 0.67, "adam.py", *TRAINED_WIDER),)),
    Row("784-3000-3000-10 with Adam, s", owl("adam.py", *TRAINED_WIDEST), (peer("torch", 0.25, "adam.py", *TRAINED_WIDEST),)),
    Row("Adam over 100 arrays of 64x64, ms a step", owl("updates.py"), (
        Against("one array of as many elements", 1.3, owl("updates.py", "--together", "1")),
    )),
    Row("owl.nn and owl.optim, 784-50-50-10 with Adam, ms a step", owl("layers.py"), (
        Against("by hand", 1.05, owl("layers.py", "--plain", "1")),
    )),
    Row("owl.nn and owl.optim, 784-1000-1000-10 with Adam, ms a step", owl("layers.py", *TRAINED_WIDER), (
        Against("by hand", 1.05, owl("layers.py", *TRAINED_WIDER, "--plain", "1")),
    )),
    Row("owl.train.Trainer, 784-50-50-10 with Adam, ms a step", owl("trainer.py"), (
        Against("by hand", 1.05, owl("trainer.py", "--plain", "1")),
    )),
    Row("MLP epoch, memory beyond weights and data, MB", owl("memory.py"), (
        Against("one step's live set", 1.50, figure="live_set"),
    )),
    Row("CNN minibatch, memory beyond weights, MB", owl("cnn.py", "--memory", "1", "--batches", "4"), (
        Against("the layers' outputs for all images", 0.50, figure="outputs"),
    )),
    Row("MLP epoch, planning and scheduling, CPU s", owl("planning.py"), (
        Against("the whole epoch", 0.03, figure="epoch"),
    )),
    Row("MLP epoch, the loader, CPU s", owl("loader.py"), (
        Against("the whole epoch", 0.03, figure="epoch"),
    )),
    Row("import beyond NumPy's, ms", owl("import_time.py"), ()),
)  # fmt: skip
