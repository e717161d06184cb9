"""Our byte tokenizer as one of Hugging Face's, for pipelines and tools that load a tokenizer beside a model."""

from __future__ import annotations

import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from spectral_models.data.byte_files import SETTINGS, TOKENIZER, byte_files


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Token b is byte b of the text's UTF-8 form, as in :class:`spectral_models.data.ByteTokenizer`.

    ``save_pretrained`` writes it beside a model. The NUL byte, which ends documents, is the end-of-text token and the
    padding, on the left, where ``generate`` wants it. The mask token, for masked language models, is byte 255, which no
    text in UTF-8 has; in a text it is written ``tokenizer.mask_token``. Decoding with skip_special_tokens leaves both
    out.
    """
    files = byte_files()
    settings = json.loads(files[SETTINGS])
    del settings["tokenizer_class"]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(files[TOKENIZER]), **settings)
