"""Demos: Markdown files whose commands are run and whose expectations are checked. docs/demos.md has the format."""
