"""Discrete units for masked prediction: k-means of MFCCs (first iteration) and of a middle layer (second)."""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional

Array = NDArray[np.float32]


def deltas(x: Tensor) -> Tensor:
    """First-order regression deltas over two frames either side of x (B, T, C); edges repeat."""
    padded = functional.pad(x.transpose(1, 2), (2, 2), mode="replicate")
    kernel = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2]).expand(x.shape[-1], 1, 5)
    return functional.conv1d(padded, kernel, groups=x.shape[-1]).transpose(1, 2)


def mfcc(logmel: Tensor, coefficients: int = 13, remove_mean: bool = True) -> Tensor:
    """MFCCs with first and second deltas at 20 ms, (B, T10, mels) to (B, T10 // 2, 3 · coefficients).

    Args:
        logmel: level-normalised log-mel at 10 ms.
        coefficients: cepstra kept.
        remove_mean: subtract the utterance's mean (speaker and channel) first.
    """
    basis = scipy.fft.dct(np.eye(logmel.shape[-1]), norm="ortho")[:, :coefficients].astype(np.float32)
    x = logmel @ torch.from_numpy(basis)
    if remove_mean:
        x = x - x.mean(1, keepdim=True)
    first = deltas(x)
    x = torch.cat([x, 3 * first, 9 * deltas(first)], -1)
    pairs = x.shape[1] // 2
    return x[:, : 2 * pairs].reshape(x.shape[0], pairs, 2, -1).mean(2)


class Codebook(nn.Module):
    """k-means centroids over standardised features; ``forward`` gives the nearest centroid of every frame."""

    mean: Tensor
    std: Tensor
    centroids: Tensor

    def __init__(self, units: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("centroids", torch.zeros(units, dim))

    @classmethod
    def fit(cls, features: Array, units: int, seed: int) -> Codebook:
        """Fit k-means to (N, dim) features."""
        book = cls(units, features.shape[1])
        book.mean = torch.from_numpy(features.mean(0))
        book.std = torch.from_numpy(features.std(0) + 1e-6)
        scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
        kmeans = MiniBatchKMeans(units, batch_size=10_000, n_init=5, max_no_improvement=50, random_state=seed)
        book.centroids = torch.from_numpy(kmeans.fit(scaled).cluster_centers_.astype(np.float32))
        return book

    def forward(self, features: Tensor) -> Tensor:
        """Units (B, T) of features (B, T, dim)."""
        x = (features - self.mean) / self.std
        scores = x @ self.centroids.T - 0.5 * self.centroids.square().sum(1)
        return scores.argmax(-1)
