"""Carries out plans. Decides nothing."""
