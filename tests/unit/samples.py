"""Profiles that several tests start from."""

from __future__ import annotations

from pathlib import Path

TOY = Path(__file__).parent / "toy"

#: The least that a profile must say; tests put their own YAML behind it, or another one of its keys in.
LEAST = """\
version: 2
name: least
summary: s
images:
  node: {image: example/node}
roles:
  worker:
    count: 1
    image: node
"""
