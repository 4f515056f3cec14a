"""Asks through Motet's gateway with lorax-client, unmodified: what an application written for LoRAX does.

    python examples/ask_lorax.py --url http://127.0.0.1:8080 --adapter call-topic@v2 "I was charged twice."

Without `--adapter` the base answers. A hook on the client's session reads the headers that say which version and pod
answered. `--json` prints one JSON object for each question, for programs.
"""

import argparse
import json
import time
import warnings
from typing import Any

import requests
from lorax import Client

HEADERS = {"version": "x-motet-adapter-version", "pod": "x-motet-pod"}


def ask(url: str, prompt: str, adapter: str | None, user: str | None, tokens: int) -> dict[str, Any]:
    """One answer, with the seconds it took and who gave it."""
    seen: dict[str, str] = {}

    def remember(response: requests.Response, *_: Any, **__: Any) -> None:
        seen.update({key: response.headers.get(header, "") for key, header in HEADERS.items()})

    session = requests.Session()
    session.hooks["response"].append(remember)
    client = Client(url, headers={"x-motet-user": user} if user else None, session=session)
    started = time.monotonic()
    response = client.generate(prompt, adapter_id=adapter, max_new_tokens=tokens, details=False)
    seconds = round(time.monotonic() - started, 3)
    return {"adapter": adapter, **seen, "answer": response.generated_text, "seconds": seconds}


def main() -> None:
    """Ask each question of each adapter in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the gateway")
    parser.add_argument("--adapter", action="append", help="name or name@version; may be given several times")
    parser.add_argument("--user", help="key of the sticky split")
    parser.add_argument("--tokens", type=int, default=12, help="length of the answer at most (default 12)")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("text", nargs="+", help="what the customer says")
    options = parser.parse_args()
    # lorax-client calls pydantic by an older name; its warning is not about this program.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for text in options.text:
        for adapter in options.adapter or [None]:
            found = ask(options.url, f"Customer: {text}\nLabel:", adapter or None, options.user, options.tokens)
            print(json.dumps(found) if options.json else f"{adapter or 'base'}: {found['answer'].strip()}")


if __name__ == "__main__":
    main()
