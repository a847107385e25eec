"""The jobs behind the command line, as functions: they compute, and return plain data to print or draw."""

from rmtntk.workflow.analysis import (
    EquivalentOptions,
    KernelOptions,
    SpectrumOptions,
    run_equivalent,
    run_kernel,
    run_spectrum,
)
from rmtntk.workflow.compression import CompressionOptions, CompressionResult, run_compression
from rmtntk.workflow.environment import describe_environment, versions
from rmtntk.workflow.verification import VerificationOptions, run_model_check, run_verification

__all__ = [
    "CompressionOptions",
    "CompressionResult",
    "EquivalentOptions",
    "KernelOptions",
    "SpectrumOptions",
    "VerificationOptions",
    "describe_environment",
    "versions",
    "run_compression",
    "run_equivalent",
    "run_kernel",
    "run_model_check",
    "run_spectrum",
    "run_verification",
]
