"""Exports models as programs for torch.export and ONNX. Each program is run and compared with its model.

Programs compute transforms as products with real matrices (``fft: xla``), since exporters have no FFT and no complex
numbers. The matrices have the size of the transforms, so a program has one length, but any batch size.
"""

from spectral_models.export.exporting import TOLERANCE, Exported, ExportError, export_model
from spectral_models.export.formats import SUFFIXES, Format

__all__ = ["SUFFIXES", "TOLERANCE", "ExportError", "Exported", "Format", "export_model"]
