"""Weights -> numbers, figures and the report page."""
