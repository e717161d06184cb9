"""Our byte tokenizer as one of Hugging Face's, for pipelines and tools that load a tokenizer beside a model."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

_END = "\0"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Token b is byte b of the text's UTF-8 form, as in :class:`spectral_models.data.ByteTokenizer`.

    ``save_pretrained`` writes it beside a model. The NUL byte, which ends documents, is the end-of-text token and the
    padding; decoding with skip_special_tokens leaves it out. Padding is on the left, where ``generate`` wants it.
    """
    # The library spells each byte as one printable character; byte 0 is spelt as the special token it is.
    vocabulary = {**{character: byte for byte, character in bytes_to_unicode().items() if byte}, _END: 0}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(_END, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_END,
        pad_token=_END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
