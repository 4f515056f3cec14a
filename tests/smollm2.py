"""SmolLM2-135M-Instruct, dequantised from the 4-bit file that its package carries; made once by hack/smollm2."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def smollm2() -> Path:
    """Folder of the model as transformers saves it, float32."""
    done = subprocess.run([sys.executable, ROOT / "hack/smollm2"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1])
