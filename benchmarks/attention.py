"""Self-attention in several heads between its four projections, forward and backward with the gradients of x and of all
parameters: milliseconds."""
import owl
from common import arguments, report, timed

A = arguments(__doc__, features=256, heads=8, steps=128, samples=8, rounds=40)
x, err = (owl.randn([A.features, A.steps, A.samples]) for _ in range(2))
attention = owl.nn.MultiHeadAttention(A.features, A.heads)
parameters = attention.parameters()
owl.wait_for_all()


def work():
    with owl.Tape() as tape:
        y = attention(x)
    gradients = tape.gradient(y, [x, *parameters.values()], seed=err)
    for each in (y, *gradients):
        each.wait_for_eval()


work()
report("attention-ms", [timed(work) * 1e3 for _ in range(A.rounds)])
