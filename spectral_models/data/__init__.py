"""Data: tokenizers, text corpora and windows of their tokens, examples in rows, synthetic tasks.

The synthetic tasks are recall (``mqar_batch``), tones in noise (``tones_batch``), reversing and sorting
(``sequences_batch``), and events that coincide in two modalities (``coincidence_batch``).
"""

from spectral_models.data.coincidence import coincidence_batch
from spectral_models.data.config import DataConfig
from spectral_models.data.corpus import Corpus, load_corpus
from spectral_models.data.mqar import mqar_batch
from spectral_models.data.sequences import SequenceTask, sequences_batch
from spectral_models.data.subwords import SubwordTokenizer
from spectral_models.data.tokenizer import ByteTokenizer, Tokenizer
from spectral_models.data.tones import tones_batch
from spectral_models.data.windows import ContiguousWindows, RandomWindows
from spectral_models.errors import DataError

__all__ = [
    "ByteTokenizer",
    "ContiguousWindows",
    "Corpus",
    "DataConfig",
    "DataError",
    "RandomWindows",
    "SequenceTask",
    "SubwordTokenizer",
    "Tokenizer",
    "coincidence_batch",
    "load_corpus",
    "mqar_batch",
    "sequences_batch",
    "tones_batch",
]
