"""How well a network predicts tokens: perplexity, and divergence from the original token by token.

Figures are gathered batch by batch, because the scores of a whole text (tokens x vocabulary) may not fit into memory.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_iter

from polyad.batches import Batch, is_integer
from polyad.outcome import Evaluation


def predicts_tokens(output: Tensor, batch: Any) -> bool:
    """Whether an output (batch, positions, vocabulary) scores, at each position, the token that the labels name.

    Labels beside named inputs that only repeat those do not count: so networks of transformers get them, to shift them
    inside.

    Args:
        output: what a network gave for the batch.
        batch: a `Batch`, or anything else that runs a network, which has no labels.
    """
    labels = batch.labels if isinstance(batch, Batch) else None
    if labels is None or not is_integer(labels) or not output.is_floating_point():
        return False
    if labels.dim() != 2 or output.dim() != 3 or output.shape[:2] != labels.shape or output.shape[2] < 2:
        return False
    positional, named = (
        [leaf for leaf in tree_iter(inputs) if is_integer(leaf) and leaf.shape == labels.shape]
        for inputs in (batch.args, batch.kwargs)
    )
    return bool(positional or named) and not any(bool(((labels == leaf) | (labels < 0)).all()) for leaf in named)


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) in nats of each row (rows, classes) of logits, (rows,)."""
    expected, found = teacher.log_softmax(1), student.log_softmax(1)
    return (expected.exp() * (expected - found)).sum(1)


@dataclass
class TokenFigures:
    """What is kept of the sequences so far: a few numbers for each, float64, and not their scores."""

    tokens: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    original_losses: list[Tensor] = field(default_factory=list)
    divergence: float = 0.0
    changed: int = 0

    def add(self, found: Tensor, labels: Tensor, original: Tensor | None) -> None:
        """More sequences.

        Args:
            found: logits (sequences * positions, vocabulary).
            labels: the tokens that came, int64 (sequences, positions).
            original: logits of the original network, or None.
        """
        scores = found.double()
        self.tokens.append(torch.full((len(labels),), labels.shape[1], dtype=torch.float64))
        self.losses.append(_losses(scores, labels))
        if original is not None:
            expected = original.double()
            self.original_losses.append(_losses(expected, labels))
            self.divergence += float(kl(expected, scores).sum())
            self.changed += int((found.argmax(1) != original.argmax(1)).sum())

    def evaluation(self) -> Evaluation:
        """Perplexity P = exp(mean loss per token), and its difference from the original's, P0, on the same tokens."""
        tokens, losses = torch.cat(self.tokens), torch.cat(self.losses)
        samples = int(tokens.sum())
        value, loss = _perplexity(losses, samples), float(losses.sum()) / samples
        figures: dict[str, Any] = {"value": value, "loss": loss, "samples": samples}
        if self.original_losses:
            original = torch.cat(self.original_losses)
            before = _perplexity(original, samples)
            figures |= {
                "divergence": max(0.0, self.divergence / samples),  # rounding may leave -1e-17
                "changed": self.changed,
                "difference": value - before,
                "standard_error": standard_error(value * losses - before * original, tokens),
            }
        return Evaluation(metric="perplexity", **figures)


def standard_error(moves: Tensor, tokens: Tensor) -> float | None:
    """Of the difference P - P0 of two perplexities on the same tokens, paired, by the delta method.

    P = exp(mean l) and P0 = exp(mean l0), so a token with the losses l and l0 moves P - P0 by r = P l - P0 l0; where P
    is near P0 that is P times its loss difference. The tokens of one sequence are not independent, sequences are taken
    to be: the sum of r - mean(r) over a sequence is what varies, and for G sequences with n tokens in all

        standard error = sqrt(G / (G - 1) * sum over sequences of (sum of r - mean(r))^2) / n

    Args:
        moves: sum of r over each sequence, (sequences,).
        tokens: in each sequence, (sequences,).

    Returns:
        In units of perplexity; None for a single sequence, or for numbers too large to square.
    """
    groups, samples = len(moves), tokens.sum()
    if groups < 2:
        return None
    apart = moves - tokens * moves.sum() / samples
    error = float((groups / (groups - 1) * apart.square().sum()).sqrt() / samples)
    return error if isfinite(error) else None


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy of each sequence, in nats, (sequences,)."""
    return F.cross_entropy(scores, labels.flatten(), reduction="none").view(labels.shape).sum(1)


def _perplexity(losses: Tensor, tokens: int) -> float:
    """exp of the mean; of a network that is broken the largest number there is, for infinity is none in JSON."""
    return float((losses.sum() / tokens).exp().clamp_max(torch.finfo(torch.float64).max))
