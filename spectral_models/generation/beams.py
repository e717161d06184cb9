"""Beam search: the likeliest sequences rather than the likeliest next tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_models.generation.settings import Settings


class Beams:
    """For each of B rows, the K likeliest running sequences, and the K best finished ones.

    A sequence of n tokens has the log-probability s, the sum over its tokens; a finished one has the score
    s / n^length_penalty. Each step ranks a row's K V continuations by s: those among the best K that end with a stop
    token compete by score for the K finished places; the best K without one keep running. At max_new_tokens all finish.

    With early_stopping a row is done when K sequences have finished; otherwise when no running one can still beat the
    worst of K finished ones. Since s only falls, its best score is s / max_new_tokens^length_penalty (or
    s / (n + 1)^length_penalty, if the penalty is not positive). The search is exact if K is the number of sequences.

    O(B K V) a step. A row starts with one sequence; the other K - 1 places have probability 0.
    """

    def __init__(self, rows: int, settings: Settings, device: torch.device) -> None:
        self.beams = beams = settings.num_beams
        self.max_new_tokens = settings.max_new_tokens
        self.pad_token_id = settings.pad_token_id
        self.length_penalty = settings.length_penalty
        self.early_stopping = settings.early_stopping
        self.length = 0
        self.stops = torch.tensor(settings.stop_tokens, dtype=torch.long, device=device)
        self.running = torch.full((rows, beams, self.max_new_tokens), self.pad_token_id, device=device)
        self.ended = self.running.clone()
        self.log_probability = torch.full((rows, beams), -torch.inf, device=device)
        self.log_probability[:, 0] = 0.0
        self.scores = torch.full((rows, beams), -torch.inf, device=device)
        self.lengths = torch.zeros((rows, beams), dtype=torch.long, device=device)
        self._done = torch.zeros(rows, dtype=torch.bool, device=device)

    @property
    def done(self) -> bool:
        return bool(self._done.all())

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """One step, from the logits (B K, V) of the running sequences.

        Returns the last token of each sequence that now runs, and the index of the earlier one that it continues, each
        (B K,).
        """
        rows, beams, vocabulary = *self.log_probability.shape, logits.shape[-1]
        steps = logits.float().log_softmax(-1).view(rows, beams, vocabulary)
        total = (self.log_probability[..., None] + steps).flatten(1)
        # Enough candidates for K that do not end: each of K sequences can end by each of the stop tokens.
        best = total.topk(min(beams * (1 + len(self.stops)), total.shape[1]), -1)
        parents, tokens = best.indices // vocabulary, best.indices % vocabulary
        longer = self.running.gather(1, self._wide(parents))
        longer[..., self.length] = tokens
        self.length += 1
        ends = torch.isin(tokens, self.stops) | (self.length == self.max_new_tokens)
        score = best.values / self.length**self.length_penalty
        self._end(longer[:, :beams], score[:, :beams].masked_fill(~ends[:, :beams], -torch.inf))
        goes_on = best.values.masked_fill(ends, -torch.inf).topk(beams, -1)
        self.log_probability = goes_on.values
        self.running = longer.gather(1, self._wide(goes_on.indices))
        self._done |= self._nothing_to_gain()
        first = beams * torch.arange(rows, device=logits.device)[:, None]
        return tokens.gather(1, goes_on.indices).flatten(), (first + parents.gather(1, goes_on.indices)).flatten()

    def _end(self, sequences: Tensor, scores: Tensor) -> None:
        """Update the best K finished sequences by these, in rows that are not done."""
        best = torch.cat([self.scores, scores], 1).topk(self.beams, -1)
        ended = torch.cat([self.ended, sequences], 1).gather(1, self._wide(best.indices))
        lengths = F.pad(self.lengths, (0, scores.shape[1]), value=self.length).gather(1, best.indices)
        self.ended = torch.where(self._done[:, None, None], self.ended, ended)
        self.scores = torch.where(self._done[:, None], self.scores, best.values)
        self.lengths = torch.where(self._done[:, None], self.lengths, lengths)

    def _nothing_to_gain(self) -> Tensor:
        """(B,) whether no running sequence of a row can enter the finished ones."""
        worst, likeliest = self.scores[:, -1], self.log_probability[:, 0]
        if self.early_stopping:
            return (worst > -torch.inf) | (likeliest == -torch.inf)
        longest = self.max_new_tokens if self.length_penalty > 0 else self.length + 1
        return worst >= likeliest / longest**self.length_penalty

    def sequences(self, count: int) -> Tensor:
        """The best ``count`` of each row, best first: (B count, N). Missing ones are all padding."""
        none = self.scores[:, :count] == -torch.inf
        longest = int(self.lengths[:, :count].masked_fill(none, 0).max())
        return self.ended[:, :count, :longest].masked_fill(none[..., None], self.pad_token_id).flatten(0, 1)

    def _wide(self, index: Tensor) -> Tensor:
        """An index of sequences (B, N), expanded over their tokens."""
        return index[..., None].expand(-1, -1, self.max_new_tokens)
