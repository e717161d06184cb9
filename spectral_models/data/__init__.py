"""Text as bytes: the tokenizer, corpora with a held-out part, windows over them, and synthetic tasks."""

from spectral_models.data.coincidence import coincidence_batch
from spectral_models.data.config import DataConfig
from spectral_models.data.corpus import Corpus, load_corpus
from spectral_models.data.documents import DataError
from spectral_models.data.mqar import mqar_batch
from spectral_models.data.tokenizer import ByteTokenizer
from spectral_models.data.tones import tones_batch
from spectral_models.data.windows import ContiguousWindows, RandomWindows

__all__ = [
    "ByteTokenizer",
    "ContiguousWindows",
    "Corpus",
    "DataConfig",
    "DataError",
    "RandomWindows",
    "coincidence_batch",
    "load_corpus",
    "mqar_batch",
    "tones_batch",
]
