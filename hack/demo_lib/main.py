"""The demo from nothing to a table of answers and a burst that scales; the order of things, and what is printed."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from demo_lib.burst import Target, burst_bodies, hpa_line, observed, send_burst
from demo_lib.console import Console, table
from demo_lib.installation import Installation, InstallationError
from demo_lib.material import Material, lorax_python, prepare_model, put_into_volumes, train_adapters
from demo_lib.proxy import kube_proxy
from demo_lib.questions import ASKED, HEADINGS, Answer, ask_lorax, ask_openai, count_split, look_alike, prompt
from demo_lib.stages import Timeline
from localkube_lib import binaries
from localkube_lib.cluster import Cluster
from localkube_lib.errors import LocalKubeError
from localkube_lib.paths import REPOSITORY
from motet_api.names import MODEL_LABEL

CLUSTER: Final = "motet"
NAMESPACE: Final = "demo"
MODEL: Final = "smollm2"
QUESTION: Final = "I have been charged twice this month and nobody answers my mails!"
BURST_AT_ONCE: Final = 24
BURST_TOKENS: Final = 24
BURST_SECONDS: Final = 120
TARGET_DEPTH: Final = 8
SETTLE_SECONDS: Final = 240


def set_up(console: Console) -> tuple[Installation, str, Path]:
    """Everything up to Ready objects; returns the installation, the gateway's address and lorax-client's Python."""
    console.section("The base model and the adapters")
    with console.step("SmolLM2-135M-Instruct (dequantised from 4 bits)"):
        model = prepare_model()
    with console.step("three adapter versions, trained on examples/data (cached)"):
        adapters = train_adapters(model)
    for name, shares in json.loads((adapters / "accuracy.json").read_text()).items():
        console.say(f"{name}, right on held-out: " + "; ".join(f"{who} {share:.0%}" for who, share in shares.items()))
    with console.step("files for the volumes"):
        put_into_volumes(Material(model, adapters))
    with console.step("lorax-client's own environment"):
        python = lorax_python()

    console.section("A Kubernetes cluster, and Motet in it")
    cluster = Cluster(CLUSTER)
    with console.step(f"localkube up --name {CLUSTER}"):
        cluster.up()
    installation = Installation(cluster)
    with console.step("images"):
        tags = installation.load_images()
    with console.step("helm upgrade --install motet charts/motet"):
        installation.install(tags)

    console.section("kubectl apply -f examples/")
    print(cluster.kubectl("apply", "-f", str(REPOSITORY / "examples")), end="", flush=True)
    with console.step("kubectl wait --for=condition=Ready"):
        cluster.kubectl(
            *("wait", "--for=condition=Ready", "modeldeployments,loraadapters", "--all"),
            *("--namespace", NAMESPACE, f"--timeout={SETTLE_SECONDS}s"),
            timeout=SETTLE_SECONDS + 30,
        )
    return installation, installation.gateway_url(), python


def texts() -> list[str]:
    """What customers say, in the held-out examples."""
    rows = [json.loads(line) for line in (REPOSITORY / "examples" / "data" / "calls.jsonl").read_text().splitlines()]
    return [row["text"] for row in rows if row["split"] == "heldout"]


async def ask(console: Console, url: str, python: Path) -> list[Answer]:
    """The base, the adapters and each version, by both APIs, then the split."""
    console.section(f"Questions through the gateway: {QUESTION!r}")
    with console.step("lorax-client and the OpenAI API"):
        answers = await ask_lorax(python, url, QUESTION) + await ask_openai(url, QUESTION)
    print(table(HEADINGS, [answer.row() for answer in answers]), flush=True)
    with console.step("200 requests to call-topic from 200 users, split 80/20"):
        split = await count_split(url, "call-topic", texts())
    console.say("answered by " + ", ".join(f"{version}: {count}" for version, count in sorted(split.items())))
    return answers


async def scale(console: Console, installation: Installation, url: str) -> list[str]:
    """A burst, and what the cluster does about it; returns what went wrong."""
    cluster = installation.cluster
    console.section(f"A burst: {BURST_AT_ONCE} requests at once until a second pod answers")
    names = cluster.kubectl(
        *("get", "pods", "-n", NAMESPACE, "-l", f"{MODEL_LABEL}={MODEL}", "-o", "jsonpath={.items[*].metadata.name}")
    )
    timeline = Timeline(known_pods=frozenset(names.split()))
    target = Target(NAMESPACE, MODEL, TARGET_DEPTH * len(timeline.known_pods))
    shown: list[str] = []

    def on_hpa(hpa: dict[str, Any]) -> None:
        line = hpa_line(hpa)
        if shown[-1:] != [line]:
            shown.append(line)
            console.say(line)

    bodies = burst_bodies(ASKED[:1] * 3 + ASKED[1:], [prompt(text) for text in texts()], BURST_TOKENS)
    with kube_proxy(binaries.kubectl(), cluster.kubeconfig) as proxy:
        async with observed(proxy, url, target, timeline, on_hpa):
            tally = await send_burst(url, bodies, BURST_AT_ONCE, timeline, BURST_SECONDS)
    answered = ", ".join(f"{pod} {count}" for pod, count in sorted(tally.answered.items()))
    console.say(f"answers by pod: {answered}; failed: {len(tally.failed)}")
    print(table(("stage", "seconds since first queued", "of which this stage"), timeline.rows()), flush=True)
    missed = [] if timeline.complete else ["no second pod answered"]
    return missed + [f"a request failed: {failure}" for failure in tally.failed[:5]]


def settle_to_one(console: Console, cluster: Cluster) -> None:
    """A run that finds two pods of the last one waits until the autoscaler has taken the second away."""
    with console.step("one pod to begin with"):
        cluster.kubectl(
            *("wait", "--for=jsonpath={.status.replicas}=1", f"modeldeployment/{MODEL}", "--namespace", NAMESPACE),
            f"--timeout={SETTLE_SECONDS}s",
            timeout=SETTLE_SECONDS + 30,
        )


def say_goodbye(console: Console, cluster: Cluster, url: str, answers: list[Answer]) -> None:
    """The table again, the objects, and how to go on."""
    console.section("Who answered what")
    print(table(HEADINGS, [answer.row() for answer in answers]))
    console.section("kubectl get mdep,lora -n demo")
    print(cluster.kubectl("get", "mdep,lora", "-n", NAMESPACE), end="")
    console.section("Go on by hand")
    print(f"""export KUBECONFIG={cluster.kubeconfig}
{binaries.kubectl()} get mdep,lora,hpa,pods -n {NAMESPACE}
curl -s {url}/v1/models
curl -s {url}/v1/completions -H 'content-type: application/json' \\
  -d '{{"model": "call-topic@v2", "prompt": "Customer: Where is my parcel?\\nLabel:", "max_tokens": 12}}'
hack/localkube down --name {CLUSTER}     # ends it; images and certificates stay for the next time""")
    console.say("done")


def main() -> int:
    """Entry point; what goes wrong is said in one place, and the exit code is 1."""
    console = Console()
    try:
        installation, url, python = set_up(console)
        settle_to_one(console, installation.cluster)
        answers = asyncio.run(ask(console, url, python))
        wrong = look_alike(answers) + asyncio.run(scale(console, installation, url))
        say_goodbye(console, installation.cluster, url, answers)
    except (InstallationError, LocalKubeError, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    for what in wrong:
        print(f"demo: {what}", file=sys.stderr)
    return 1 if wrong else 0
