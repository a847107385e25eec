"""Where the numbers of a block of pairs stand: the constants that loops and their callers share.

A block is at most ROWS × WIDTH pairs. Its state is one flat array of planes of ROWS · STRIDE numbers, entry (i, k) at
i · STRIDE + k of each plane: one array with compile-time offsets lets the compiler see that nothing overlaps, and
vectorise. Four planes (1 MiB) stay in a core's second-level cache.
"""

ROWS = 64
WIDTH = 512
STRIDE = WIDTH + 8  # not a power of two: reading a plane by columns must not hit one cache set only
PLANE = ROWS * STRIDE

# Planes. Q is the correlation ρ of the pre-activations as a signed gap: |q| = 1 − |ρ|, sign of ρ. ρ itself, rounded
# near ±1, would lose half the digits of the angle.
Q = 0
NTK = PLANE
CK = 2 * PLANE
OLD = 3 * PLANE  # the q a layer started from; scratch of loops that need none
SLOPE = 4 * PLANE  # E[σ'σ'], for layers that leave the NTK to `advance`
WORK = 5 * PLANE
ERROR_C = 6 * PLANE  # bounds, for networks with truncated series only: of c = Λ_ij,
ERROR_CK = 7 * PLANE
ERROR_NTK = 8 * PLANE
N_PLANES = 6
N_PLANES_WITH_ERRORS = 9

# Table of rows (HEAD + L · FIELDS, n): two lines on the inputs, then per layer
NORM0 = 0  # norm of the row in K_0
INVERSE0 = 1  # its inverse, 0 for a zero row
HEAD = 2
SCALE = 0  # λ: standard deviation of the pre-activation
INVERSE = 1  # 1/λ, 0 where λ = 0
SHIFT = 2  # E[σ] less the centre
MEAN = 3  # E[f] of the family's plain function f
NORM = 4  # sqrt(E[f²])
NEXT = 5  # λ of the next layer
INVERSE_NEXT = 6  # its inverse, 0 where it is 0 and in the last layer
EXTRA = 7  # two lines of the family's own
VARIANCE = EXTRA  # of series: E[(f − E[f])²]
SLOPE_SQUARED = EXTRA + 1  # and E[f'²]
FIELDS = 9

# Constants of a layer (L, N_CONSTANTS)
W2 = 0
B2 = 1
EXACT = 2  # 1 if nothing is added to or subtracted from the features
OUTER2 = 3  # square of the factor before the family's plain function f
LAST = 4  # 1 for the last layer
ODD = 5  # 1 if the features change sign with the input, so that ρ = −1 stays −1
INPUT = 6  # K_0 = INPUT · X Xᵀ (read in the first layer's line)
FAMILY = 7  # five numbers of the family's own
N_CONSTANTS = 12

NEAR = 0.05  # below this gap a layer hands on the distance of its features rather than one minus their correlation
# Below this gap 1 − |ρ| of two inputs is recomputed from the rows themselves, because products of float64 or float32
# rows leave it with an error of some eps.
DIRECT = 1e-2
DIRECT_SINGLE = 0.05
