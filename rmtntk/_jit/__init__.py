"""Compiled loops: no validation, no imports from the rest of the package."""
