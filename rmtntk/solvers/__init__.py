r"""Eigenpairs and ridge systems of equivalents, without an n × n matrix where n is large.

The theorem's form c1 X Xᵀ + V A Vᵀ + c I has both exactly from a system of p + K + 1 unknowns; the others by block
Krylov methods whose products and preconditioner use the kernel's structure.
"""

from rmtntk.solvers.interface import Eigenpairs, RidgeSolution, eigenpairs, ridge_solve

__all__ = ["Eigenpairs", "RidgeSolution", "eigenpairs", "ridge_solve"]
