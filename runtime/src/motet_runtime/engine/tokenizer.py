"""The base's tokenizer, with as little of transformers as it takes."""

from pathlib import Path
from typing import Any

from motet_runtime.errors import ModelError


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that transformers saved into `folder`.

    Raises:
        ModelError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} has no tokenizer that can be loaded: {error}") from error
