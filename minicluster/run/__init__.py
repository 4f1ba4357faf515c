"""Carries out a plan, in parallel. Decides nothing."""
