"""Masked-language-model loss and accuracy of a BERT checkpoint folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

# Before torch is imported: this demo must not ask the network for anything.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from reactions import Masked
    from transformers import BertForMaskedLM

__all__ = ["Score", "load", "score"]

_BATCH = 24


@dataclass(frozen=True)
class Score:
    """Mean loss per hidden token in nats, and the share of hidden tokens guessed right."""

    loss: float
    accuracy: float
    tokens: int

    @property
    def bits(self) -> float:
        """The loss in bits."""
        return self.loss / log(2)


def load(folder: Path) -> BertForMaskedLM:
    """Load a checkpoint as it lies, and insist that none of the model's weights had to be made up.

    Raises:
        ValueError: the folder lacks weights of the model, or has one of another shape.
    """
    import torch
    import transformers

    # A model this small gains nothing from a second thread, and loses tenfold where another program wants the core.
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, told = transformers.BertForMaskedLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    bad = {kind: sorted(map(str, told[kind])) for kind in ("missing_keys", "mismatched_keys") if told[kind]}
    if bad:
        raise ValueError(f"{folder} is not a whole masked-language model: {bad}")
    return model.eval()


def score(model: BertForMaskedLM, rows: Sequence[Masked]) -> Score:
    """Score a model on masked rows; rows of about the same length share a padded batch."""
    import torch

    total, right, tokens = 0.0, 0, 0
    ordered = sorted(rows, key=lambda row: len(row.ids))
    with torch.inference_mode():
        for start in range(0, len(ordered), _BATCH):
            batch = ordered[start : start + _BATCH]
            logits, answers = _guesses(model, batch)
            chances = logits.double().log_softmax(-1)
            total -= float(chances.gather(1, answers[:, None]).sum())
            right += int((chances.argmax(-1) == answers).sum())
            tokens += len(answers)
    return Score(total / tokens, right / tokens, tokens)


def _guesses(model: BertForMaskedLM, batch: Sequence[Masked]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits at the hidden positions of a batch, `[n, vocabulary]`, and the hidden tokens, `[n]`."""
    import torch

    width = max(len(row.ids) for row in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    seen = torch.zeros_like(ids)
    for i, row in enumerate(batch):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        seen[i, : len(row.ids)] = 1
    states = model.bert(input_ids=ids, attention_mask=seen).last_hidden_state
    places = [(i, j) for i, row in enumerate(batch) for j in row.hidden]
    answers = torch.tensor([token for row in batch for token in row.hidden.values()])
    picked = states[[i for i, _ in places], [j for _, j in places]]
    return model.cls(picked), answers
