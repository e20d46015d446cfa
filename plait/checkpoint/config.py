"""config.json: read strictly as JSON, loosely as a config; what is odd about it becomes a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plait.errors import CheckpointError

__all__ = ["config_notes", "read_config", "read_json"]


def read_json(file: str) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        CheckpointError: with file and line, where it is no JSON or no object.
    """
    try:
        value = json.loads(Path(file).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}:{error.lineno}: not valid JSON: {error.msg}.") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: not valid JSON: not UTF-8.") from None
    except RecursionError:
        raise CheckpointError(f"{file}: not valid JSON: nested too deeply.") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON: {error}.") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: an object expected ({{...}}), not {type(value).__name__}.")
    return value


def read_config(folder: str) -> dict[str, Any] | None:
    """Read config.json in `folder`; None where there is none."""
    file = Path(folder, "config.json")
    return read_json(str(file)) if file.is_file() else None


def config_notes(config: dict[str, Any] | None) -> list[str]:
    """Say what a reader of the config should know."""
    if config is None:
        return ["There is no config.json."]
    notes = []
    if not config.get("model_type"):
        notes.append("config.json has no model_type; transformers' Auto classes will not load it.")
    count, labels = config.get("num_labels"), config.get("id2label")
    if type(count) is int and isinstance(labels, dict) and count != len(labels):
        notes.append(f"config.json says num_labels {count}, but its id2label has {len(labels)}.")
    return notes
