r"""Learning curves of kernel ridge regression and gradient flow on Gaussian mixtures, without sampling or training.

Given the population, the sample size and the network, training error, test error and accuracy follow from
deterministic equivalents of the resolvent of K̃ = c1 X Xᵀ + V A Vᵀ + c I; the cost does not grow with n.
"""

from rmtntk.learning.curves import BestRidge, LearningCurve, learning_curve
from rmtntk.learning.flow import GradientFlow, KernelFlow, gradient_flow, kernel_flow

__all__ = [
    "BestRidge",
    "GradientFlow",
    "KernelFlow",
    "LearningCurve",
    "gradient_flow",
    "kernel_flow",
    "learning_curve",
]
