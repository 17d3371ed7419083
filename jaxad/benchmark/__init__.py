"""Grids of runs, and the tables of papers that they fill."""
