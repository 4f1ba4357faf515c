"""Computes plans from the observed to the desired state. Pure: nothing here calls an engine."""
