"""Shared by PyTorch's scripts: the device, unrounded float32, and steps as CUDA graphs."""
import torch

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False


def choose(device):
    """The device; an error if it does not exist."""
    if device == "gpu":
        torch.zeros(1, device="cuda")
    return torch.device("cuda" if device == "gpu" else "cpu")


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def captured(step, *inputs):
    """`step` as a CUDA graph over its own copies of the inputs, as in PyTorch's manual; each call copies to them."""
    if inputs[0].device.type != "cuda":
        return step  # only checks that the script works
    own = [x.clone(memory_format=torch.preserve_format) for x in inputs]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step(*own)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(*own)

    def replay(*inputs):
        for mine, given in zip(own, inputs):
            mine.copy_(given, non_blocking=True)
        graph.replay()

    return replay
