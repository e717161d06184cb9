"""The conformance kit for FFT backends: one function per promise, each a few milliseconds.

A plugin's author runs it on their backend::

    import pytest
    from spectral_core import fft_backend
    from spectral_core.testing import BACKEND_CHECKS

    @pytest.mark.parametrize("check", BACKEND_CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(fft_backend("acme/name"))
"""

from __future__ import annotations

from typing import Protocol

from spectral_core.backends.base import FFTBackend
from spectral_core.testing import convolutions, higher_order, transforms


class Check(Protocol):
    """A promise of a backend. Raises AssertionError, saying what was expected and what came, when it is broken."""

    __name__: str

    def __call__(self, backend: FFTBackend, /) -> None: ...


BACKEND_CHECKS: tuple[Check, ...] = (
    transforms.check_transform_matches_its_definition,
    transforms.check_inverse_undoes_the_transform,
    transforms.check_parseval,
    transforms.check_real_symmetry,
    transforms.check_transform_is_linear,
    transforms.check_modulation_matches_its_definition,
    transforms.check_phase_ramp_is_a_shift,
    transforms.check_modulation_in_lower_precision,
    transforms.check_modulation_gradients,
    transforms.check_modulation_of_strided_and_empty_inputs,
    transforms.check_nan_comes_through_modulation,
    convolutions.check_convolution_matches_the_direct_sum,
    convolutions.check_any_length_and_any_kernel_length,
    convolutions.check_one_kernel_per_row,
    convolutions.check_float32_is_as_accurate_as_torch,
    convolutions.check_half_precision_is_transformed_in_float32,
    convolutions.check_gates_keep_their_precision,
    convolutions.check_autocast_rounds_nothing,
    convolutions.check_convolution_is_linear,
    convolutions.check_convolution_commutes_with_shifts,
    convolutions.check_causality,
    convolutions.check_convolution_gradients,
    convolutions.check_convolution_of_strided_inputs,
    convolutions.check_convolution_of_an_empty_batch,
    convolutions.check_prepared_kernels,
    convolutions.check_convolution_leaves_its_inputs_alone,
    convolutions.check_nan_comes_through_convolution,
    higher_order.check_gradients_of_gradients,
    higher_order.check_transforms_of_torch_func,
)
"""Every promise of an FFT backend, in the order in which to mend them."""
