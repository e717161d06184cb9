"""Our byte tokenizer as a tokenizer of Hugging Face, for pipelines and other tools."""

from __future__ import annotations

import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from spectral_models.data.byte_files import SETTINGS, TOKENIZER, byte_files


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Token b is byte b of the text's UTF-8 form, as in :class:`spectral_models.data.ByteTokenizer`.

    ``save_pretrained`` writes it beside a model. The NUL byte, which ends documents, is the end-of-text token and the
    padding token; padding is on the left, as ``generate`` expects. The mask token of masked language models is byte
    255, which does not occur in UTF-8; texts contain it as ``tokenizer.mask_token``. Decoding with skip_special_tokens
    omits both.
    """
    files = byte_files()
    settings = json.loads(files[SETTINGS])
    del settings["tokenizer_class"]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(files[TOKENIZER]), **settings)
