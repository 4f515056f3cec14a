"""Response headers that say who answered."""

from motet_api.identity import AdapterId
from motet_api.names import ADAPTER_HEADER, ADAPTER_VERSION_HEADER, MODEL_HEADER, POD_HEADER
from motet_runtime.settings import Settings


def served_by(settings: Settings, adapter: AdapterId | None) -> dict[str, str]:
    """Model, pod, adapter and version; LoRAX's own two names for the same beside them."""
    headers = {MODEL_HEADER: settings.model_name, POD_HEADER: settings.pod_name, "x-model-id": settings.model_name}
    if adapter:
        name, _, version = adapter.partition("@")
        headers |= {ADAPTER_HEADER: name, ADAPTER_VERSION_HEADER: version, "x-adapter-id": adapter}
    return headers
