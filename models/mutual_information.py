"""How much an expert's use tells of the data set that an image came from, and the penalty that raises it.

E experts, M data sets. P(i|j) is the mean probability that the router of data set j gives expert i; P(j) = 1/M.
"""

import torch
from torch import Tensor

LEAST = 1e-12  # a probability below it counts as this much under a logarithm


def mutual_information(probs_ME: Tensor) -> Tensor:
    """Map P(i|j) [M, E] to I(expert; data set) in nats (MTHL, Eq. 3): 0 for equal rows, log M for disjoint ones."""
    log_ME, log_E = _logarithms(probs_ME)
    return (probs_ME * (log_ME - log_E)).sum() / len(probs_ME)


def mutual_information_loss(probs: Tensor, buffer: Tensor, dataset: int) -> Tensor:
    """Map one data set's P(i|j) [E] and the running estimate B(i|j) [M, E] of all to a penalty (MTHL, Eq. 5).

    It is -(1/M) Σ_i P(i|j) [log B(i|j) - log B(i)], B(i) the mean over data sets; the logarithms are constants. Where
    B equals P its gradient is that of -I. From one data set alone I is always 0, hence the estimate of the others.
    """
    with torch.no_grad():
        log_ME, log_E = _logarithms(buffer)
        gain_E = log_ME[dataset] - log_E
    return -(probs * gain_E).sum() / len(buffer)


def _logarithms(probs_ME: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of P(i|j) and of their mean over data sets."""
    return probs_ME.clamp(min=LEAST).log(), probs_ME.mean(0).clamp(min=LEAST).log()
