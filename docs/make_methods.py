"""Writes docs/methods.md from the methods that are entered: python docs/make_methods.py."""

from __future__ import annotations

from pathlib import Path

from plait.methods.describe import as_markdown

if __name__ == "__main__":
    Path(__file__).with_name("methods.md").write_text(as_markdown(), encoding="utf-8")
