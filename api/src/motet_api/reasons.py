"""Condition types and reasons: the words in which Motet explains itself, each with a line of meaning."""

from enum import StrEnum


class ConditionType(StrEnum):
    """Condition types of both kinds."""

    READY = "Ready"
    """The summary: everything that spec asks for is true of the cluster."""
    AVAILABLE = "Available"
    """ModelDeployment: at least one pod serves."""
    ADAPTERS_RESIDENT = "AdaptersResident"
    """ModelDeployment: every version of every adapter is resident on every pod that is up."""
    AUTOSCALING = "Autoscaling"
    """ModelDeployment: a HorizontalPodAutoscaler exists and can read its metric."""
    RESIDENT = "Resident"
    """A version of a LoraAdapter: resident on every pod of its model that is up."""


class AdapterReason(StrEnum):
    """Why a version is, or is not, resident on a pod. Said by the runtime, passed on in conditions."""

    RESIDENT = "Resident"
    """The weights are loaded and verified; requests are served."""
    LOADING = "Loading"
    """The pod is fetching, verifying or copying the weights."""
    DRAINING = "Draining"
    """No longer desired; requests in flight finish before it is unloaded."""
    SOURCE_NOT_FOUND = "SourceNotFound"
    """The folder, or one of the adapter's files in it, does not exist."""
    SOURCE_NOT_MOUNTED = "SourceNotMounted"
    """The claim of a pvc:// source is not mounted: list it in the ModelDeployment's spec.adapters.claimNames."""
    FETCH_FAILED = "FetchFailed"
    """The source did not answer, or answered with an error. Tried again."""
    DIGEST_MISMATCH = "DigestMismatch"
    """The bytes are not those that source.digest names."""
    UNSAFE_FORMAT = "UnsafeFormat"
    """The weights are a pickle; only safetensors is loaded."""
    CORRUPT_WEIGHTS = "CorruptWeights"
    """The safetensors file is truncated or its header is not consistent."""
    INVALID_CONFIG = "InvalidConfig"
    """adapter_config.json is not JSON, or lacks a field that a LoRA needs."""
    UNSUPPORTED = "Unsupported"
    """A valid adapter of a kind that the engine cannot serve (DoRA, modules_to_save, ...); the message says which."""
    RANK_TOO_LARGE = "RankTooLarge"
    """The rank is above the ModelDeployment's spec.adapters.maxRank."""
    LOAD_FAILED = "LoadFailed"
    """A fault while loading that none of the checks foresaw; the pod's log has the traceback. Tried again."""
    BASE_MISMATCH = "BaseMismatch"
    """Target modules or tensor shapes do not fit the base model."""

    @property
    def transient(self) -> bool:
        """Whether trying again can help without anybody changing the object or the bytes."""
        return self in _TRANSIENT

    @property
    def failed(self) -> bool:
        """Whether this is a failure (as against a step on the way)."""
        return self not in _STEPS


_TRANSIENT = frozenset({AdapterReason.FETCH_FAILED, AdapterReason.SOURCE_NOT_FOUND, AdapterReason.LOAD_FAILED})
_STEPS = frozenset({AdapterReason.RESIDENT, AdapterReason.LOADING, AdapterReason.DRAINING})


class Reason(StrEnum):
    """Reasons of the operator's own conditions."""

    READY = "Ready"
    """Everything that spec asks for is true."""
    PROGRESSING = "Progressing"
    """Under way; the message says what is waited for."""
    MODEL_DEPLOYMENT_NOT_FOUND = "ModelDeploymentNotFound"
    """spec.modelRef names a ModelDeployment that does not exist in this namespace."""
    NO_PODS = "NoPods"
    """No pod of the model is up, so nothing can be said about adapters."""
    POD_UNREACHABLE = "PodUnreachable"
    """A pod does not answer the operator; what it holds is unknown."""
    PODS_AVAILABLE = "PodsAvailable"
    """At least one pod serves."""
    PODS_UNAVAILABLE = "PodsUnavailable"
    """No pod serves; the message says what the Deployment reports."""
    ADAPTERS_RESIDENT = "AdaptersResident"
    """Every version is resident on every pod that is up."""
    ADAPTERS_FAILED = "AdaptersFailed"
    """Some version cannot be loaded; the message names it. The others serve."""
    NOT_CONFIGURED = "NotConfigured"
    """spec.autoscaling is absent; spec.replicas is the user's."""
    SCALING_ACTIVE = "ScalingActive"
    """The HorizontalPodAutoscaler reads its metric."""
    METRIC_UNAVAILABLE = "MetricUnavailable"
    """The HorizontalPodAutoscaler cannot read its metric and holds; the message is the HorizontalPodAutoscaler's."""
    NAME_TAKEN = "NameTaken"
    """An object that the ModelDeployment needs exists under its name and belongs to somebody else."""
    INVALID_SPEC = "InvalidSpec"
    """The object passed admission but cannot be understood; the message names the field."""
