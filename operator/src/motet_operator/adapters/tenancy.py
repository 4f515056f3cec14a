"""Who may put adapters on a model (spec.adapters.allowedNamespaces), and from where (installation's policy). Pure."""

from collections.abc import Mapping

from motet_api.modeldeployment import From
from motet_api.policy import CLIMBS, Policy, climbs
from motet_api.reasons import AdapterReason
from motet_api.store import Refusal
from motet_operator.views import Model

Labels = Mapping[str, str]


def selects_namespaces(model: Model) -> bool:
    """Whether the labels of namespaces matter to a model."""
    return model.spec is not None and model.spec.adapters.allowed_namespaces.from_ is From.SELECTOR


def not_allowed(model: Model, namespace: str, labels: Mapping[str, Labels] | None) -> str:
    """Why a model does not take adapters from a namespace; empty if it does.

    Args:
        labels: of every namespace, by its name; None where this operator does not see namespaces.

    A model always takes those of its own namespace.
    """
    if namespace == model.meta.namespace:
        return ""
    whose = f"ModelDeployment {model.meta.namespace}/{model.meta.name}"
    if model.spec is None:
        return f"{whose} cannot be understood, so nothing is known of whom it takes adapters from: {model.error}"
    allowed = model.spec.adapters.allowed_namespaces
    match allowed.from_:
        case From.ALL:
            return ""
        case From.SAME:
            return (
                f"{whose} takes adapters from its own namespace only, not from {namespace!r}: its "
                "spec.adapters.allowedNamespaces must say so"
            )
        case From.SELECTOR:
            if labels is None:
                return (
                    f"{whose} selects namespaces by label, and the operator sees none while it is limited to some "
                    "namespaces (--namespace): use from: Same or All"
                )
            wanted = allowed.selector.match_labels if allowed.selector else {}
            lacking = {key: value for key, value in wanted.items() if labels.get(namespace, {}).get(key) != value}
            if not lacking and wanted:
                return ""
            named = ", ".join(f"{key}={value}" for key, value in sorted(lacking.items())) or "a selector"
            return f"{whose} takes adapters from namespaces with the labels {named}, which {namespace!r} lacks"


def not_readable(model: Model, namespace: str, uri: str) -> str:
    """Why pods of a model must not read a source by themselves for an adapter of a namespace; empty if they may.

    What they can read are the claims and folders of their own namespace, and whoever may put an adapter on the model is
    not thereby allowed to read those.
    """
    if namespace == model.meta.namespace:
        return ""
    return (
        f"source.uri {uri} would be read by the pods of ModelDeployment {model.meta.namespace}/{model.meta.name}, from "
        f"what belongs to its namespace and not to {namespace!r}: name a source that the adapter store fetches (hf://, "
        "s3://, oci:// or https://)"
    )


def source_refusal(uri: str, namespace: str, policy: Policy) -> Refusal | None:
    """Why pods must not read a source by themselves. Of sources that the store fetches, the store says it."""
    rules = policy.of(namespace)
    if climbs(uri):
        return Refusal(reason=AdapterReason.SOURCE_NOT_ALLOWED, message=f"source.uri {uri} is not allowed: {CLIMBS}")
    if not rules.allows(uri):
        message = (
            f"source.uri {uri} is not allowed in namespace {namespace!r}: the administrator of the installation can "
            "add a pattern to allowedSources (chart value policy)"
        )
        return Refusal(reason=AdapterReason.SOURCE_NOT_ALLOWED, message=message)
    if rules.signature is not None:
        message = (
            f"adapters of namespace {namespace!r} must be signed, and only the adapter store checks that: put it where "
            "the store fetches it (hf://, s3://, oci:// or https://)"
        )
        return Refusal(reason=AdapterReason.SIGNATURE_MISSING, message=message)
    return None
