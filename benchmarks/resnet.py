"""ResNet-18's convolutions with their activations and sums, forward and both gradients: milliseconds for a batch."""
import owl
from common import arguments, report, timed

A = arguments(__doc__, samples=8, size=224, rounds=12)
relu = owl.elewise.relu
pool = owl.conv.Pooler(3, 3, 2, 2, 1, 1)


class Conv:
    """A convolution without bias; its padding keeps the size, but for the stride."""

    def __init__(self, n_in, n_out, kernel, stride=1):
        self.weight = owl.randn([kernel, kernel, n_in, n_out], 0, (2 / (n_in * kernel * kernel)) ** 0.5)
        self.zeros = owl.zeros([n_out])
        self.convolver = owl.conv.Convolver(kernel // 2, kernel // 2, stride, stride)
        weights.append(self)

    def __call__(self, x):
        return self.convolver.ff(x, self.weight, self.zeros)


weights = []
first = Conv(3, 64, 7, 2)
blocks = []
for stage, n_out in enumerate((64, 128, 256, 512)):
    for block in range(2):
        stride = 2 if stage and not block else 1
        n_in = n_out // stride
        shortcut = Conv(n_in, n_out, 1, stride) if stride > 1 else lambda x: x
        blocks.append((Conv(n_in, n_out, 3, stride), Conv(n_out, n_out, 3), shortcut))
x = owl.randn([A.size, A.size, 3, A.samples])
owl.wait_for_all()


def work():
    with owl.Tape() as tape:
        h = pool.ff(relu(first(x)))
        for one, other, shortcut in blocks:
            h = relu(other(relu(one(h))) + shortcut(h))
        loss = h.mean()
    gradients = tape.gradient(loss, [x, *(conv.weight for conv in weights)])
    for each in gradients:
        each.wait_for_eval()
    return loss


loss = float(work().item())
report("resnet-ms", [timed(work) * 1e3 for _ in range(A.rounds)], loss=loss)
