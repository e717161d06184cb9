"""What every registered decoder promises, whatever it is told beside its tokens: strictly causal, one function."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectral_core import StateError
from spectral_layers import State
from spectral_models import MODELS, build_model

VOCABULARY = 13
BLOCKS = [
    {"mixer": {"type": "gated_convolution", "filter": {"type": "resonant", "modes": 4}}, "feedforward": "mlp"},
    {"mixer": {"type": "spectral_gating", "head_dim": 8, "block": 8, "window": 16}, "feedforward": "mlp"},
]
STACK = {"vocab_size": VOCABULARY, "hidden_dim": 16, "num_layers": 2, "layers": BLOCKS}
DECODERS: dict[str, dict[str, Any]] = {
    "language_model": {},
    "seq2seq": {
        "fusion": {"type": "source_product", "head_dim": 4, "phases": 8},
        "encoder": {"type": "encoder", "vocab_size": 7, "hidden_dim": 8, "num_layers": 1, "block": BLOCKS[0]},
    },
}
LENGTH = 40


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


class Decoder:
    """A decoder in float64 with random parameters, given the same sources whatever its tokens."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model = build_model({"type": name, **STACK, **DECODERS[name]})
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        self.model.double().eval()
        self.source = [spec.example(4) for spec in self.model.input_specs()[:-1]]
        self.tokens = self.model.decoder if self.source else self.model

    def begin(self, rows: slice) -> State | None:
        """The state of a target of no tokens; a language model begins with none."""
        return self.model.prepare(*(source[rows] for source in self.source)) if self.source else None

    def __call__(self, input_ids: Tensor, mask: Tensor | None = None, *, rows: slice = slice(4)) -> Tensor:
        """Logits of rows of target tokens, in a full pass."""
        given = [source[rows] for source in self.source]
        key = "decoder_attention_mask" if given else "attention_mask"
        return self.model(*given, input_ids, **{key: mask}).logits

    def fed(self, input_ids: Tensor, sizes: tuple[int, ...], state: State | None) -> tuple[Tensor, State]:
        """Logits and state of the tokens in chunks of these sizes, taken in turn."""
        found, turns = [], itertools.cycle(sizes)
        while input_ids.shape[1]:
            size = next(turns)
            output = self.tokens(input_ids[:, :size], state=state, return_state=True)
            found.append(output.logits)
            state, input_ids = output.state, input_ids[:, size:]
        assert state is not None
        return torch.cat(found, 1), state


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return Decoder(request.param)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest of b."""
    assert a.shape == b.shape
    assert b.abs().max() > 1e-3, "a comparison with zeros says nothing"
    return float((a - b).abs().max() / b.abs().max())


def test_every_registered_decoder_is_tried() -> None:
    assert set(DECODERS) == {name for name, config in MODELS.configs().items() if config.decoder}


def leak(decoder: Decoder) -> float:
    """How far logits of earlier tokens, or other rows, move when a row's later tokens change, relative to its own."""
    input_ids, worst = tokens(4, LENGTH), 0.0
    with torch.no_grad():
        logits = decoder(input_ids)
        for position in (1, 8, 9, 15, LENGTH - 1):
            changed = input_ids.clone()
            changed[1, position:] = (changed[1, position:] + 1) % VOCABULARY
            moved = (decoder(changed) - logits).abs()
            own = float(moved[1, position:].max())
            assert own > 1e-3, "later logits must move, or this says nothing"
            worst = max(worst, float(moved[1, :position].max()) / own, float(moved[[0, 2, 3]].max()) / own)
    return worst


def test_no_logit_sees_a_later_token_or_another_row(decoder: Decoder) -> None:
    assert leak(decoder) <= 1e-9


def test_the_causality_test_sees_a_small_leak(decoder: Decoder) -> None:
    norms = [module for module in decoder.tokens.modules() if isinstance(module, nn.RMSNorm)]
    handle = norms[0].register_forward_hook(lambda _, inputs, y: y + 1e-3 * y.mean(1, keepdim=True))
    try:
        assert leak(decoder) > 1e-6
    finally:
        handle.remove()


def test_a_full_pass_chunks_and_single_tokens_give_the_same_logits(decoder: Decoder) -> None:
    input_ids = tokens(4, LENGTH)
    with torch.no_grad():
        logits = decoder(input_ids)
        for sizes in ((1,), (5, 1, 13, 3), (LENGTH,)):
            streamed, state = decoder.fed(input_ids, sizes, decoder.begin(slice(4)))
            assert difference(streamed, logits) < 1e-9
            assert state.position.tolist() == [LENGTH] * 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_the_rows_alone(decoder: Decoder, side: str) -> None:
    """Their logits, and what is decoded from the state behind them."""
    lengths, width = (7, 20, 1, 13), 21
    more, mask = tokens(4, 5, seed=99), torch.zeros(4, width, dtype=torch.long)
    batch = tokens(4, width, seed=2)
    for row, length in enumerate(lengths):
        mask[row, width - length if side == "left" else 0 : width if side == "left" else length] = 1
    with torch.no_grad():
        logits = decoder(batch, mask)
        output = decoder.tokens(batch, mask, state=decoder.begin(slice(4)), return_state=True)
        continued, _ = decoder.fed(more, (1, 4), output.state)
        for row, length in enumerate(lengths):
            whole = torch.cat([batch[row][mask[row] == 1], more[row]])[None]
            alone = decoder(whole, rows=slice(row, row + 1))[0]
            assert difference(logits[row][mask[row] == 1], alone[:length]) < 1e-9
            assert difference(continued[row], alone[length:]) < 1e-9


def test_the_state_is_cloned_reordered_saved_and_rewound(decoder: Decoder) -> None:
    input_ids, more, order = tokens(4, 9), tokens(4, 6, seed=2), torch.tensor([2, 0, 0])
    with torch.no_grad():
        whole = decoder(torch.cat([input_ids, more], 1))[:, 9:]
        _, state = decoder.fed(input_ids, (9,), decoder.begin(slice(4)))
        clone, chosen, saved = state.clone(), state.select(order), state.save()
        _, state = decoder.fed(tokens(4, 3, seed=3), (1,), state.reserve(rewind=3))
        rewound = decoder.tokens.rewind(state, 3)
        for kept in (clone, State.load(saved), rewound):
            assert difference(decoder.fed(more, (2,), kept)[0], whole) < 1e-9
        assert difference(decoder.fed(more[order], (2,), chosen)[0], whole[order]) < 1e-9
        with pytest.raises(StateError, match="already continued"):
            decoder.fed(more, (2,), clone)


def test_an_empty_batch_gives_empty_logits(decoder: Decoder) -> None:
    with torch.no_grad():
        assert decoder(tokens(0, 5), torch.ones(0, 5), rows=slice(0)).shape == (0, 5, VOCABULARY)


def test_beams_are_reordered_with_their_states(decoder: Decoder) -> None:
    """What a search finds has the log-probability that a full pass over it gives, and no sequence less likely."""
    prompt = tokens(4, 3)
    with torch.no_grad():
        options = {"state": decoder.begin(slice(4)), "max_new_tokens": 6}
        made = decoder.tokens.generate(prompt, num_beams=5, num_return_sequences=2, **options).view(4, 2, 9)
        options["state"] = decoder.begin(slice(4))
        greedy = decoder.tokens.generate(prompt, **options)

        def likelihood(sequences: Tensor) -> Tensor:
            steps = decoder(sequences[:, :-1]).log_softmax(-1)[:, 2:]
            return steps.gather(-1, sequences[:, 3:, None]).sum((1, 2))

        best, second = likelihood(made[:, 0]), likelihood(made[:, 1])
        assert (best >= second).all()
        assert (best >= likelihood(greedy) - 1e-9).all()
        assert (best > likelihood(greedy) + 1e-3).any(), "a search that finds what greedy finds says little"
