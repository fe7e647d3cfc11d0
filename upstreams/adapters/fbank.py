"""Kaldi filter banks with deltas: the baseline without any learning (SUPERB's ``fbank``, protocol section 3.5).

80 log-mel channels, 25 ms windows every 10 ms, two orders of deltas over 5 frames, then mean and variance
normalisation over the time of each utterance, as ``s3prl/upstream/baseline/{extracter.py,fbank.yaml}``. Waveforms stay
in [-1, 1], as there. With ``cmvn: false`` the last step is left out (``logmel``): after CMVN the time mean is zero in
every channel, so that a head which reads time means can learn nothing.
"""

from __future__ import annotations

import torch
import torchaudio.compliance.kaldi
from torch import Tensor
from torchaudio.functional import compute_deltas

from harness.cards import Card
from harness.identity import digest_json
from harness.interface import SAMPLE_RATE, HiddenStates
from upstreams.adapters.batching import alone, together

VERSION = 1
MELS, WINDOW_MS, SHIFT_MS, DELTA_WINDOW = 80, 25.0, 10.0, 5
EPSILON = 1e-10


class Fbank:
    """Filter banks as an upstream of one state, 240 wide, at 100 Hz; computed utterance by utterance.

    Card options: ``cmvn`` (default true).
    """

    num_states = 1
    width = 3 * MELS
    frame_ms = SHIFT_MS
    min_samples = 400
    batch_invariant = True
    variable_rate = False

    def __init__(self, card: Card, device: str = "cpu") -> None:
        options = card.settings({"cmvn": True})
        self.name = card.name
        self.device = torch.device(device)
        self.cmvn = bool(options["cmvn"])
        self.fingerprint = digest_json({"adapter": "fbank", "version": VERSION, "cmvn": self.cmvn})

    def module(self) -> None:
        """There are no weights."""
        return

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Tensor) -> HiddenStates:
        """Features of ``waves`` (B, S) with ``lengths`` (B,) valid samples: one state (B, T, 240).

        T = (samples - 400) // 160 + 1. An utterance of a single frame has no variance; its CMVN is zero
        (s3prl yields NaN there).
        """
        rows = [[self._features(wave)] for wave in alone(waves.to(self.device), lengths)]
        return together(rows, self.frame_ms, self.device)

    def _features(self, wave: Tensor) -> Tensor:
        """(S,) samples to (T, 240)."""
        mel = torchaudio.compliance.kaldi.fbank(
            wave[None], num_mel_bins=MELS, frame_length=WINDOW_MS, frame_shift=SHIFT_MS, sample_frequency=SAMPLE_RATE
        )
        delta = compute_deltas(mel.T, DELTA_WINDOW)
        x = torch.cat([mel.T, delta, compute_deltas(delta, DELTA_WINDOW)]).T
        if not self.cmvn:
            return x
        std = x.std(0, keepdim=True) if len(x) > 1 else torch.zeros_like(x)
        return (x - x.mean(0, keepdim=True)) / (std + EPSILON)
