"""What the answers must be: each version's own text, told apart from the base's and from every other version's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.e2e.asking import Answer
from tests.e2e.objects import adapter, model_deployment, source
from tests.e2e.world import World

REFERENCE = "reference"
VOICES = ("voice-1", "voice-2", "voice-3")


@dataclass(frozen=True, slots=True)
class Truth:
    """Texts by name of the version."""

    texts: Mapping[str, str]

    def wrong(self, answers: Iterable[Answer]) -> list[Answer]:
        """Answers that are not what the version in their header says."""
        return [answer for answer in answers if answer.status == 200 and answer.text != self.texts.get(answer.version)]


def references(world: World, pods: int) -> dict[str, str]:
    """Have a model with so many pods and an adapter with every sound set of weights; returns the texts by folder."""
    world.apply(
        model_deployment(world.namespace, "tiny", max_batch_size=16, replicas=pods),
        adapter(world.namespace, REFERENCE, "tiny", {voice: source(voice) for voice in VOICES}, {VOICES[0]: 1}),
    )
    world.wait_ready("mdep/tiny", f"lora/{REFERENCE}", seconds=120)
    texts = {voice: world.served(f"{REFERENCE}@{voice}").text for voice in VOICES}
    assert len({world.ask("tiny").text, *texts.values()}) == len(VOICES) + 1
    return texts
