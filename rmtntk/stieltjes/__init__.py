r"""Limiting spectrum of the Gram matrix G = Z Zᵀ of a Gaussian mixture, rows z_i ~ N(0, C_a/p).

.. math::
    \tilde Q(\zeta) = \Bigl(\sum_b \frac{n_b}{p} \frac{C_b}{1+\delta_b} - \zeta I\Bigr)^{-1}, \quad
    \delta_b = \frac{\mathrm{tr} C_b \tilde Q}{p}, \quad q_a = \frac{-1}{\zeta (1 + \delta_a)}, \quad
    m = \sum_a \frac{n_a}{n} q_a

q_a is the limit of the diagonal of (G − ζ)^{-1} on class a, and Im m(x + i0)/π the density of eigenvalues.

References
----------
Benaych-Georges and Couillet (2016), Spectral analysis of the Gram matrix of mixture models.
Silverstein and Choi (1995), Analysis of the limiting spectral distribution of large-dimensional random matrices: K = 1.
"""

from rmtntk.stieltjes.bulk import Bulk, Point

__all__ = ["Bulk", "Point"]
