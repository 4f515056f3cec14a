"""The pods that serve: every engine, every place where a base can be."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from motet_api.names import MODEL_LABEL
from motet_operator.keys import Kind
from motet_runtime.options import parse_options, settings_of
from tests.operator.factories import MODEL
from tests.operator.manifests import HEX, REMOTE, WITH_STORE, containers, pod, template

NODE_LOCAL = {"prefetch": {"weights": "NodeLocal"}}
VLLM = {"engine": {"type": "VLLM"}, "template": {"image": "vllm/vllm-openai:v1"}}
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def options(container: dict[str, Any]) -> dict[str, str]:
    return dict(word[2:].split("=", 1) for word in container["args"] if word.startswith("--") and "=" in word)


def test_the_runtime_understands_its_command_line() -> None:
    spec = {
        "model": {"source": {"uri": "file:///models/x"}, "maxModelLen": 2048},
        "engine": {"kvMemory": "3Gi", "args": ["--threads=2", "--block-size=32"]},
        "adapters": {"slots": 7, "slotMemory": "512Mi", "hostMemory": "1Gi", "disk": "5Gi", "maxRank": 16},
    }
    made = settings_of(parse_options(containers(**spec)["runtime"]["args"]))
    engine = made.engine
    assert (made.model, made.model_name, engine.max_tokens) == ("file:///models/x", MODEL, 2048)
    assert (engine.kv_bytes, engine.adapter_bytes) == (3 << 30, 512 << 20)
    assert (engine.adapter_slots, engine.max_rank, engine.block_size, made.threads) == (7, 16, 32, 2)
    assert (made.adapter_host_bytes, made.adapter_disk_bytes) == (1 << 30, 5 << 30)


def test_what_is_not_given_is_the_runtimes_to_choose() -> None:
    assert not {"kv-memory", "adapter-memory", "max-model-len"} & set(options(containers()["runtime"]))


def test_less_than_a_mebibyte_is_one() -> None:
    assert options(containers(engine={"kvMemory": "1Ki"})["runtime"])["kv-memory"] == "1"


def test_adapters_are_kept_where_the_pod_may_write() -> None:
    made = containers()["runtime"]
    folder = options(made)["adapter-cache"]
    (mount,) = [entry for entry in made["volumeMounts"] if entry["mountPath"] == folder]
    assert {"name": mount["name"], "emptyDir": {}} in pod()["volumes"]
    assert not mount.get("readOnly")


def test_a_fetched_base_comes_before_the_engine() -> None:
    made = containers(installation=WITH_STORE, model=REMOTE)
    fetch, runtime = made["fetch"], made["runtime"]
    folder = f"/var/lib/motet/models/{HEX}"
    assert fetch["args"] == [
        "fetch",
        "--store=http://store.motet:8002",
        f"--artifact=sha256:{HEX}",
        f"--to={folder}",
    ]
    understood = parse_options(fetch["args"])
    assert (understood.store, understood.artifact, str(understood.to)) == (WITH_STORE.store, f"sha256:{HEX}", folder)
    assert f"--model=file://{folder}" in runtime["args"]
    assert fetch["image"] == "motet-runtime:1"
    written = {entry["mountPath"]: entry for entry in fetch["volumeMounts"]}["/var/lib/motet/models"]
    read = {entry["mountPath"]: entry for entry in runtime["volumeMounts"]}["/var/lib/motet/models"]
    assert (written["name"], written.get("readOnly"), read["readOnly"]) == (read["name"], None, True)
    assert {"name": read["name"], "emptyDir": {}} in pod(installation=WITH_STORE, model=REMOTE)["volumes"]
    assert fetch["securityContext"] == RESTRICTED


def test_node_local_weights_are_the_nodes_and_only_fetching_may_write_them() -> None:
    spec = {"model": REMOTE, "startup": NODE_LOCAL}
    made = containers(installation=WITH_STORE, **spec)
    volume = {"path": "/var/lib/motet/models", "type": "DirectoryOrCreate"}
    assert [entry["hostPath"] for entry in pod(installation=WITH_STORE, **spec)["volumes"] if "hostPath" in entry] == [
        volume
    ]
    assert made["fetch"]["securityContext"] == RESTRICTED | {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}
    assert made["runtime"]["securityContext"] == RESTRICTED


@pytest.mark.parametrize("uri", ["file:///models/x", "pvc://models/x"])
def test_a_base_that_is_there_is_not_fetched(uri: str) -> None:
    assert set(containers(installation=WITH_STORE, model={"source": {"uri": uri}})) == {"runtime"}


def test_pods_are_spread_over_nodes_unless_the_user_says_how() -> None:
    (spread,) = pod()["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"] == {"matchLabels": {MODEL_LABEL: MODEL}}
    own = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    assert pod(template={"topologySpreadConstraints": [own]})["topologySpreadConstraints"] == [own]


def test_the_users_labels_do_not_hide_ours() -> None:
    labels = {MODEL_LABEL: "other", "team": "speech"}
    made = template(template={"labels": labels, "annotations": {"a": "b"}})["metadata"]
    assert made["labels"].items() >= {MODEL_LABEL: MODEL, "team": "speech"}.items()
    assert made["annotations"] == {"a": "b"}


@pytest.mark.parametrize("name", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb"])
def test_devices_are_passed_on_by_name(name: str) -> None:
    resources = {"limits": {name: 1}, "claims": [{"name": "gpu"}]}
    spec = {"resources": resources, "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}
    made = pod(template=spec)
    assert made["containers"][0]["resources"] == resources
    assert made["resourceClaims"] == spec["resourceClaims"]


def test_vllm_and_its_agent() -> None:
    spec = VLLM | {
        "adapters": {"maxRank": 40, "slots": 4, "hostMemory": "1Gi"},
        "model": {**REMOTE, "dtype": "BFloat16"},
    }
    made = containers(installation=WITH_STORE, **spec)
    assert set(made) == {"fetch", "vllm", "agent"}
    vllm, agent = made["vllm"], made["agent"]
    assert (vllm["command"], vllm["args"][0]) == (["vllm", "serve"], f"/var/lib/motet/models/{HEX}")
    said = options(vllm)
    assert "--enable-lora" in vllm["args"]
    assert (said["max-lora-rank"], said["max-loras"], said["max-cpu-loras"]) == ("64", "4", "16")
    assert (said["served-model-name"], said["port"], said["dtype"]) == (MODEL, "8000", "bfloat16")
    assert {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"} in vllm["env"]
    assert (agent["image"], agent["args"][0]) == ("motet-runtime:1", "agent")
    parse_options(agent["args"])
    told = options(agent)
    assert (told["engine-url"], told["admin-port"]) == ("http://127.0.0.1:8000", "8001")
    assert (told["model-name"], told["max-rank"]) == (MODEL, "40")
    assert told["model"] == f"file:///var/lib/motet/models/{HEX}"
    in_its_own_image = containers(**VLLM | {"model": {"source": {"uri": "file:///model"}}})
    assert "model" not in options(in_its_own_image["agent"])


def test_the_agent_is_asked_whether_vllms_pod_is_ready() -> None:
    made = containers(**VLLM)
    vllm, agent = made["vllm"], made["agent"]
    assert (agent["readinessProbe"]["httpGet"], "readinessProbe" in vllm) == (
        {"path": "/readyz", "port": "admin"},
        False,
    )
    for probe in ("startupProbe", "livenessProbe"):
        assert vllm[probe]["httpGet"] == {"path": "/health", "port": "http"}
    start = vllm["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] == 3600


def test_what_the_agent_fetches_vllm_can_read() -> None:
    spec = VLLM | {"adapters": {"claimNames": ["adapters"]}}
    made = containers(**spec)
    seen = [{entry["mountPath"]: entry["name"] for entry in made[name]["volumeMounts"]} for name in ("vllm", "agent")]
    for folder in ("/var/lib/motet/adapters", "/mnt/motet/claims/adapters"):
        assert seen[0][folder] == seen[1][folder]


def test_vllm_is_told_to_stop_when_nothing_is_in_flight() -> None:
    made = containers(**VLLM)["vllm"]
    python, flag, script = made["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, flag) == ("python3", "-c")
    compile(script, "preStop", "exec")
    assert pod(**VLLM)["terminationGracePeriodSeconds"] > 65


def drain(metrics: list[str]) -> tuple[int, int]:
    """Run the script against a vLLM that answers so, one after the other; returns its exit code and its questions."""
    answers = iter(metrics)
    asked = 0

    class Engine(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal asked
            asked += 1
            text = next(answers)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            return

    script = containers(**VLLM)["vllm"]["lifecycle"]["preStop"]["exec"]["command"][2]
    with HTTPServer(("127.0.0.1", 0), Engine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        quick = script.replace(":8000/", f":{server.server_port}/").replace("time.sleep(5)", "").replace("0.5", "0.01")
        assert quick.count(str(server.server_port)) == 1
        done = subprocess.run([sys.executable, "-c", quick], check=False, timeout=20)
        server.shutdown()
        thread.join()
    return done.returncode, asked


def test_the_script_waits_for_what_is_running_and_waiting() -> None:
    line = '# TYPE vllm:num_requests_{0} gauge\nvllm:num_requests_{0}{{engine="0",model_name="llama"}} {1}\n'
    states = [("1.0", "2.0"), ("0.0", "1.0"), ("1.0", "0.0"), ("0.0", "0.0")]
    code, asked = drain([line.format("running", busy) + line.format("waiting", held) for busy, held in states])
    assert (code, asked) == (0, 4)


def test_every_container_of_vllms_pod_is_restricted() -> None:
    assert {name: made["securityContext"] for name, made in containers(**VLLM).items()} == {
        "vllm": RESTRICTED,
        "agent": RESTRICTED,
    }


def test_the_prefetcher_fills_the_nodes_that_pods_may_run_on() -> None:
    nodes = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    where = {
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu"}],
        "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "pull"}],
    }
    user = where | {"affinity": {"nodeAffinity": nodes, "podAntiAffinity": {"x": []}}}
    spec = {"model": REMOTE, "startup": NODE_LOCAL, "template": user}
    made = pod(Kind.PREFETCHER, WITH_STORE, **spec)
    assert {key: made[key] for key in where} == where
    assert made["affinity"] == {"nodeAffinity": nodes}
    assert made["initContainers"] == pod(installation=WITH_STORE, **spec)["initContainers"]
    labels = template(Kind.PREFETCHER, WITH_STORE, **spec)["metadata"]["labels"]
    assert MODEL_LABEL not in labels, "its pods would be sent requests"


@pytest.mark.parametrize(
    ("spec", "images", "fetches"),
    [
        ({"startup": {"prefetch": {"image": "AllNodes"}}, "template": {"image": "mine:1"}}, ["mine:1"], False),
        ({"startup": NODE_LOCAL, "template": {"image": "mine:1"}}, ["motet-runtime:1"], True),
        ({**VLLM, "startup": {"prefetch": {"image": "AllNodes"}}}, ["vllm/vllm-openai:v1", "motet-runtime:1"], False),
    ],
)
def test_what_the_prefetcher_brings(spec: dict[str, Any], images: list[str], fetches: bool) -> None:
    made = containers(Kind.PREFETCHER, WITH_STORE, **{"model": REMOTE, **spec})
    assert ("fetch" in made) is fetches
    idle = [entry for name, entry in made.items() if name != "fetch"]
    assert [entry["image"] for entry in idle] == images
    assert all(entry["securityContext"] == RESTRICTED for entry in idle)
    assert len({entry["name"] for entry in idle}) == len(idle)
