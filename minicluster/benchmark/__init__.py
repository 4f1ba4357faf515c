"""Comparisons of cluster systems on one machine."""
