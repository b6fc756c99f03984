"""Hints for arguments that PyTorch, Keras and Chainer call otherwise: what a TypeError says to write."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

# Other names of an argument: the first of owl's names that the call takes is the hint.
_NAMES = {
    "in_features in_channels input_size in_size input_dim": "n_in c_in n",
    "out_features out_channels hidden_size out_size units filters": "n_out c_out n_hidden dim",
    "num_features num_channels normalized_shape num_embeddings vocab_size": "n",
    "embedding_dim embed_dim d_model output_dim": "dim",
    "kernel_size ksize pool_size": "kernel",
    "strides": "stride",
    "pad": "padding",
    "dilation_rate dilate": "dilation",
    "num_layers n_layers": "layers",
    "num_groups": "groups",
    "num_heads n_heads nhead": "heads",
    "dim": "axis",
    "negative_slope": "slope",
    "elementwise_affine scale center": "affine",
    "epsilon": "eps",
    "rate ratio": "p",
    "use_bias nobias": "bias",
    "initialW kernel_initializer initializer embeddings_initializer": "init",
    "learning_rate alpha": "lr",
    "decay": "weight_decay",
    "rho": "alpha",
    "criterion loss_fn": "loss",
    "optim": "optimizer",
    "network net module": "model",
    "validation_data validation_split val_data": "validation",
    "verbose": "progress",
    "n_epochs num_epochs max_epochs": "epochs",
    "batchsize": "batch_size",
    "data train_data x": "dataset data",
}

# Arguments that owl has no counterpart of, and why, or what stands for them.
_REASONS = {
    "betas beta_1 beta_2 beta1 beta2": "write b1 and b2",
    "inplace": "arrays never change",
    "batch_first time_major": "sequences are [features, T, N]",
    "dropout dropout_p": "owl.nn.Dropout is a layer of its own",
    "recurrent_dropout": "owl.nn.Dropout is a layer of its own",
    "return_sequences return_state": "a call gives (y, state): y has all steps, y[:, -1] the last",
    "activation": "an activation is a layer of its own, such as owl.nn.ReLU()",
    "input_shape": "write n_in, or None, which the first call finds out",
    "track_running_stats": "BatchNorm always keeps its statistics; LayerNorm and GroupNorm have none",
    "padding_mode": "padding is zeros; owl.pad and owl.concat make others",
    "ceil_mode": "a last window that is not whole is dropped; owl.conv.Pooler keeps it",
    "return_indices": "owl.conv.Pooler and argmax find places",
    "device dtype": "module.to(device) copies it, and module.to(dtype=...) converts it",
    "params parameters model_parameters": "update(model, grads) is given the parameters",
    "foreach fused capturable": "an update is one pass over memory always",
    "maximize": "minimize the negative loss",
    "dampening": "momentum is m = momentum * m + g",
    "clipnorm clipvalue": "owl.optim.clip_norm(grads, most) clips",
    "lr_decay": "give lr a schedule, such as owl.optim.exponential(lr, factor)",
    "reduction": 'write reduce="mean", "sum" or "none"',
    "num_workers": "threads gather batches anyway, up to prefetch ahead",
    "pin_memory collate_fn persistent_workers sampler batch_sampler": "a data set gives samples by dataset[i], the loader stacks them",
    "y": "the data is one tuple, (x, labels)",
    "run_eagerly jit_compile": "owl plans what it is given anyway",
    "trigger": "every and unit say when",
}

NAMES = {name: own.split() for names, own in _NAMES.items() for name in names.split()}
REASONS = {name: reason for names, reason in _REASONS.items() for name in names.split()}

_Function = TypeVar("_Function", bound=Callable[..., Any])


def hinted(init: _Function) -> _Function:
    """A constructor whose TypeError for a keyword that it does not take says what it takes, and what to write."""

    @functools.wraps(init)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if keywords:
            _refuse_keywords(type(self).__name__, init, keywords)
        return init(self, *arguments, **keywords)

    return call  # type: ignore[return-value]


def with_hints(method: _Function) -> _Function:
    """A method of data whose mistaken keywords, and labels as a second argument, are errors that say what to write."""
    name = method.__name__

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if len(arguments) > 1 and (isinstance(arguments[1], (list, tuple)) or getattr(arguments[1], "ndim", 0) > 0):
            raise TypeError(f"{name} takes the data as one tuple: {name}((x, labels){', epochs' if name == 'fit' else ''})")
        if keywords:
            _refuse_keywords(name, method, keywords)
        return method(self, *arguments, **keywords)

    return call  # type: ignore[return-value]


def _refuse_keywords(name: str, function: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    taken = [name for name in inspect.signature(function).parameters if name != "self"]
    for keyword in keywords:
        if keyword not in taken:
            raise TypeError(_text(name, keyword, taken))


def _text(name: str, keyword: str, taken: list[str]) -> str:
    takes = f"it takes {', '.join(taken)}" if taken else "it takes no arguments"
    own = next((each for each in NAMES.get(keyword, []) if each in taken), None)
    hint = f"write {own}" if own else REASONS.get(keyword, "")
    return f"{name} has no argument {keyword!r}{': ' if hint else ''}{hint}; {takes}"
