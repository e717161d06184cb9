"""Models as programs for other runtimes, torch.export and ONNX, each run and compared after it was written.

A program computes a model's transforms by products with real matrices (``fft: xla``): no complex numbers and no FFT,
which exporters lack. Its matrices have the size of the transforms, so a program has one length, and any batch size.
"""

from spectral_models.export.exporting import TOLERANCE, Exported, ExportError, export_model
from spectral_models.export.formats import SUFFIXES, Format

__all__ = ["SUFFIXES", "TOLERANCE", "ExportError", "Exported", "Format", "export_model"]
