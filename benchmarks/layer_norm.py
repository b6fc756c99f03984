"""Layer normalisation of vectors, forward and backward with the gradients of x, weight and bias: milliseconds."""
import owl
from common import arguments, report, timed

A = arguments(__doc__, features=1024, vectors=4096, rounds=15)
x, err = owl.randn([A.features, A.vectors]), owl.randn([A.features, A.vectors])
weight, bias = owl.rand([A.features], 0.5, 1.5), owl.randn([A.features])
owl.wait_for_all()


def work():
    with owl.Tape() as tape:
        y = owl.layer_norm(x, weight, bias)
    gradients = tape.gradient(y, [x, weight, bias], seed=err)
    for each in (y, *gradients):
        each.wait_for_eval()


work()
report("layer-norm-ms", [timed(work) * 1e3 for _ in range(A.rounds)])
