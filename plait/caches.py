"""Where plait keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["own_cache"]


def own_cache() -> Path:
    """Return plait's folder: $PLAIT_CACHE_DIR, or its part of the user's cache folder. All in it may be removed at any time."""
    own = os.environ.get("PLAIT_CACHE_DIR")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"
