"""Configuration files that are written only when they change: kube-proxy ends itself when its own is touched."""

from pathlib import Path


def write_changed(path: Path, text: str, mode: int = 0o644) -> Path:
    """Have `path` hold `text`, touching it only if it does not; returns the path."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(path.suffix + ".new")
        new.write_text(text)
        new.chmod(mode)
        new.replace(path)
    return path
