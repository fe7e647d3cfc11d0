"""What each operator costs: multiply-accumulates (MACs) by formula, nothing for the rest, and a refusal of the unknown.

A MAC is a product that is summed up: matrix products, convolutions, attention (scores and weighted sum), recurrent
layers, all of these in 8 bits as well, and Fourier transforms as N log2 N butterflies. Elementwise work, norms,
softmax, sums, look-ups and moving data are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

FREE_TAGS = frozenset({torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.view_copy, torch.Tag.inplace_view})
FREE_LIBRARIES = frozenset({"aten", "prim", "prims", "quantized"})

Formula = Callable[[Sequence[Any], Any], int]
"""MACs of one call, from the operator's arguments (in the order of its schema) and its result."""


def formula_of(operator: Any) -> Formula | None:
    """How an operator is counted, or ``None`` where nobody has said so.

    Args:
        operator: an overload, such as ``torch.ops.aten.mm.default``; in-place forms count as the plain ones.
    """
    name = str(operator._overloadpacket).removesuffix("_")
    if name in FORMULAS:
        return FORMULAS[name]
    free = operator.is_view or not FREE_TAGS.isdisjoint(operator.tags)
    library, _, plain = name.partition(".")
    return _nothing if free or (library in FREE_LIBRARIES and plain in FREE) else None


def _nothing(arguments: Sequence[Any], result: Any) -> int:
    return 0


def _product(place: int) -> Formula:
    """(…, n, m) times (…, m, p), the first factor being argument ``place``."""

    def count(arguments: Sequence[Any], result: Any) -> int:
        return int(arguments[place].numel() * arguments[place + 1].shape[-1])

    return count


def _vector(place: int) -> Formula:
    """Matrix times vector, or vector times vector: one MAC per element of argument ``place``."""
    return lambda arguments, result: int(arguments[place].numel())


def _linear(arguments: Sequence[Any], result: Any) -> int:
    """(…, m) with a weight (p, m)."""
    return int(arguments[0].numel() * arguments[1].shape[0])


def _packed_linear(arguments: Sequence[Any], result: Any) -> int:
    """(…, m) with a packed weight: (…, p)."""
    return int(result.numel() * arguments[0].shape[-1])


def _convolution(arguments: Sequence[Any], result: Any) -> int:
    """Weight (out, in / groups, *kernel); the transposed form (in, out / groups, *kernel) spreads each input."""
    transposed = len(arguments) > 6 and isinstance(arguments[6], bool) and arguments[6]
    points = arguments[0] if transposed else result
    return int(points.numel() * arguments[1][0].numel())


def _packed_convolution(arguments: Sequence[Any], result: Any) -> int:
    return int(result.numel() * arguments[1].unpack()[0][0].numel())


def _attention(arguments: Sequence[Any], result: Any) -> int:
    """Queries (B, H, T, E), keys (B, ., S, E), values (B, ., S, V): T · S · (E + V) for each head."""
    query, key, value = arguments[:3]
    heads, steps = query.shape[0] * query.shape[1], query.shape[2]
    return int(heads * steps * key.shape[2] * (query.shape[3] + value.shape[3]))


def _recurrent_layer(arguments: Sequence[Any], result: Any) -> int:
    """One layer and direction on (T, B, in): its two weight matrices once per step."""
    steps: int = math.prod(arguments[0].shape[:-1])
    return steps * int(arguments[1].numel() + arguments[2].numel())


def _recurrent_stack(arguments: Sequence[Any], result: Any) -> int:
    """All layers and directions on (T, B, in), or on packed steps (sum, in): every weight matrix once per step."""
    steps: int = math.prod(arguments[0].shape[:-1])
    return steps * sum(int(weight.numel()) for weight in arguments[1] if weight.dim() > 1)


def _fourier(flops: float, on_result: bool = False) -> Formula:
    """A transform of N points over the named dimensions: ``flops`` / 2 · N · log2 N MACs (2.5 real, 5 complex)."""

    def count(arguments: Sequence[Any], result: Any) -> int:
        real: Tensor = result if on_result else arguments[0]
        points: int = math.prod(real.shape[dim] for dim in arguments[1])
        return round(flops / 2 * real.numel() * math.log2(points))

    return count


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("aten.mm", "aten.bmm", "aten._int_mm", "aten._scaled_mm"), _product(0)),
    **dict.fromkeys(("aten.addmm", "aten.baddbmm", "aten.addbmm", "aten._addmm_activation"), _product(1)),
    **dict.fromkeys(("aten.mv", "aten.dot", "aten.vdot"), _vector(0)),
    "aten.addmv": _vector(1),
    **dict.fromkeys(("aten.linear", "aten.mkldnn_linear", "aten._weight_int8pack_mm"), _linear),
    **dict.fromkeys(("aten.convolution", "aten._convolution", "aten.convolution_overrideable"), _convolution),
    **dict.fromkeys(("aten.cudnn_convolution", "aten.mkldnn_convolution"), _convolution),
    **dict.fromkeys(
        (
            f"aten._scaled_dot_product_{kind}"
            for kind in (
                "flash_attention",
                "flash_attention_for_cpu",
                "efficient_attention",
                "cudnn_attention",
                "fused_attention_overrideable",
            )
        ),
        _attention,
    ),
    "aten.mkldnn_rnn_layer": _recurrent_layer,
    "aten._cudnn_rnn": _recurrent_stack,
    "aten._fft_r2c": _fourier(2.5),
    "aten._fft_c2r": _fourier(2.5, on_result=True),
    "aten._fft_c2c": _fourier(5.0),
    **dict.fromkeys(
        (f"quantized.linear{kind}" for kind in ("", "_relu", "_dynamic", "_relu_dynamic", "_dynamic_fp16")),
        _packed_linear,
    ),
    **dict.fromkeys(
        (f"quantized.conv{n}d{kind}" for n in (1, 2, 3) for kind in ("", "_relu", "_dynamic")), _packed_convolution
    ),
}
"""Operators that multiply and sum, by name without the overload."""

FREE = frozenset(
    # memory: made, copied, moved, joined, cut, turned
    "empty empty_strided empty_like empty_permuted new_empty new_empty_strided new_zeros new_ones new_full zeros ones "
    "full zeros_like ones_like full_like arange linspace logspace eye scalar_tensor tensor rand randn randint "
    "randperm rand_like randn_like uniform normal bernoulli exponential tril_indices triu_indices hann_window "
    "hamming_window kaiser_window bartlett_window blackman_window clone copy copy_ _to_copy to lift lift_fresh "
    "lift_fresh_copy detach contiguous alias resize set fill zero cat stack split_with_sizes unsafe_split "
    "unsafe_split_with_sizes unsafe_chunk _unsafe_view _reshape_copy repeat repeat_interleave expand roll flip rot90 "
    "tril triu diag_embed unfold im2col col2im constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d "
    "replication_pad2d pixel_shuffle channel_shuffle view_as_real view_as_complex _conj conj_physical real imag "
    "_neg_view "
    # look-ups and places
    "embedding embedding_renorm index _unsafe_index index_put _index_put_impl _unsafe_index_put index_select "
    "index_fill index_copy index_add gather scatter scatter_add scatter_reduce masked_select masked_scatter "
    "masked_fill nonzero nonzero_static take put where select_scatter slice_scatter diagonal_scatter "
    "as_strided_scatter one_hot bucketize searchsorted bincount histc "
    # order and sums
    "sort argsort topk kthvalue unique_dim _unique2 unique_consecutive median nanmedian mode cumsum cumprod cummax "
    "cummin _cummax_helper _cummin_helper logcumsumexp max min argmax argmin amax amin aminmax sum mean prod std var "
    "std_mean var_mean norm linalg_vector_norm logsumexp all any count_nonzero diff trace "
    # norms, pools, dropout, softmax
    "native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training cudnn_batch_norm _batch_norm_with_update _batch_norm_no_update "
    "native_rms_norm _fused_rms_norm _weight_norm_interface native_dropout _softmax _log_softmax _safe_softmax "
    "_masked_softmax avg_pool2d avg_pool3d _adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices "
    "max_pool3d_with_indices upsample_nearest1d upsample_linear1d upsample_nearest2d upsample_bilinear2d "
    # elementwise, but not tagged so by torch
    "floor_divide remainder fmod rsub leaky_relu _prelu_kernel glu hardswish log_sigmoid_forward polar complex isin "
    # gates of recurrent cells whose matrix products are called on their own
    "_thnn_fused_lstm_cell _thnn_fused_gru_cell "
    # values read, checks, packing of sequences, sides of numbers in 8 bits
    "_local_scalar_dense item is_nonzero equal is_same_size _assert_async _assert_tensor_metadata sym_size sym_numel "
    "isnan isinf isfinite _pack_padded_sequence _pad_packed_sequence q_scale q_zero_point q_per_channel_scales "
    "q_per_channel_zero_points q_per_channel_axis qscheme int_repr quantize_per_tensor quantize_per_tensor_dynamic "
    "quantize_per_channel dequantize linear_prepack linear_unpack device layout".split()
)
"""Operators without multiply-accumulates, besides views and what torch itself tags as elementwise or as a reduction."""


def unpacked_shape(operator: Any, arguments: Sequence[Any]) -> tuple[int, ...] | None:
    """Shape of what an 8-bit linear layer gives, which torch cannot tell without computing; ``None`` for all others."""
    if FORMULAS.get(str(operator._overloadpacket)) is not _packed_linear:
        return None
    weight: Tensor = arguments[1].unpack()[0]
    return (*arguments[0].shape[:-1], weight.shape[0])
