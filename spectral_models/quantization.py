"""Int8 weights of linear layers, by torchao (extra ``quantize``): a quarter of the size, floating-point activations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from spectral_core import ConfigError
from spectral_layers import Filter
from spectral_models.block import Block
from spectral_models.errors import needs_extra
from spectral_models.model import SpectralModel
from spectral_models.quiet import quietly

SCHEME = "int8_weight_only"
_PARTS = ("qdata", "scale")


def quantize(model: SpectralModel) -> list[str]:
    """Make the weights of a model's linear layers int8, in place. Returns the names of these layers.

    Each row of a weight becomes integers q = round(w / s) from -128 to 127 and a scale s, about 1/127 of the row's
    largest weight; the error is at most s / 2. Activations are not quantised: y = (x q^T) s. Quantised are the linear
    layers in the mixers, feed-forwards and fusions of blocks. Embeddings, heads and norms keep their precision, and so
    do filters, whose error would affect every token, and matrices outside of linear layers
    (:class:`spectral_layers.projection.Projection`): phases of ``holographic`` and routers.

    Afterwards the model can only be evaluated. Raises ConfigError if torchao is missing, and for a model that is
    already quantised or has nothing to quantise.
    """
    if int8_layers(model):
        raise ConfigError("this model has int8 weights already. Quantise the checkpoint that it was made from.")
    names = _projections(model)
    if not names:
        raise ConfigError(f"a {model.config.type} without linear layers in blocks has nothing to quantise.")
    library = torchao()
    library.quantize_(model.eval(), library.Int8WeightOnlyConfig(), lambda _, name: name in names)
    return names


def int8_layers(model: nn.Module) -> list[str]:
    """The names of the layers whose weights are int8."""
    return [name for name, module in model.named_modules() if _is_int8(getattr(module, "weight", None))]


def flattened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of plain tensors: an int8 weight becomes ``weight.qdata``, integers, and ``weight.scale``."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = {f"{name}.{part}": getattr(tensor, part) for part in _PARTS} if _is_int8(tensor) else {name: tensor}
        plain.update(parts)
    return plain


def take_int8(weights: dict[str, Tensor], layers: Collection[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Removes the integers and scales of layers from :func:`flattened` weights. Raises KeyError if one is missing."""
    qdata, scale = _PARTS
    return {layer: (weights.pop(f"{layer}.weight.{qdata}"), weights.pop(f"{layer}.weight.{scale}")) for layer in layers}


def put_int8(model: nn.Module, weights: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Set int8 weights, integers and scales, by layer. Raises ConfigError if torchao is missing."""
    if not weights:
        return
    library = torchao()
    for layer, (integers, scale) in weights.items():
        module = model.get_submodule(layer)
        assert isinstance(module, nn.Linear)
        weight = library.Int8Tensor(integers, scale, block_size=[1, integers.shape[1]], dtype=scale.dtype)
        module.weight = nn.Parameter(weight, requires_grad=False)


def _is_int8(tensor: Any) -> bool:
    return all(hasattr(tensor, part) for part in _PARTS)


def _projections(model: nn.Module) -> list[str]:
    """The linear layers in blocks, except those of filters."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    filters = [part for block in blocks for part in block.modules() if isinstance(part, Filter)]
    inside, excluded = ({part for whole in wholes for part in whole.modules()} for wholes in (blocks, filters))
    chosen = {module for module in inside - excluded if isinstance(module, nn.Linear)}
    return [name for name, module in model.named_modules() if module in chosen]


def torchao() -> Any:
    """torchao.quantization. Raises ConfigError naming the extra to install."""
    # Its import logs which CUDA kernels do not support this machine.
    with needs_extra("int8 weights need", "quantize"), quietly("torchao", "torch.utils._pytree"):
        from torchao import quantization
    return quantization
