"""Gaussian sums of step functions, the recursion of their networks, and what the search for matches does with them."""

from rmtntk._jit.steps_bounds import best_segmentation, least_inflation
from rmtntk._jit.steps_network import n_parameters, network_jacobian, network_rows, pull_back, unpack
from rmtntk._jit.steps_project import project, project_all
from rmtntk._jit.steps_roots import cell_angles, corner_table, solve_cells, solve_two, two_equations
from rmtntk._jit.steps_sums import gradient_table, layer_gradient, layer_sums, step_sums, sums_table

__all__ = [
    "best_segmentation", "cell_angles", "corner_table", "gradient_table", "layer_gradient", "layer_sums",
    "least_inflation", "n_parameters", "network_jacobian", "network_rows", "project", "project_all", "pull_back",
    "solve_cells", "solve_two", "step_sums", "sums_table", "two_equations", "unpack",
]  # fmt: skip
