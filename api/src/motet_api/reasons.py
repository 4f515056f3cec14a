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
    PREFETCH_COMPLETE = "PrefetchComplete"
    """ModelDeployment: every node that pods may run on holds what spec.startup.prefetch asks for."""
    SOURCE_RESOLVED = "SourceResolved"
    """ModelDeployment: the base's files are known by digest."""
    RECONCILING = "Reconciling"
    """True while something is under way that needs no one's help (kstatus)."""
    STALLED = "Stalled"
    """True when nothing will become better by waiting: somebody must change something (kstatus)."""
    ROLLED_OUT = "RolledOut"
    """LoraAdapter: the split in effect is the one in spec."""
    RESOLVED = "Resolved"
    """A version: its bytes are known by digest."""
    VERIFIED = "Verified"
    """A version: its files are whole, safe and well formed."""
    COMPATIBLE = "Compatible"
    """A version: it fits the base and the largest rank."""
    RESIDENT = "Resident"
    """A version: resident on every pod that must hold it."""
    RETIRING = "Retiring"
    """A version that has left spec: no split leads to it any more, and it goes once its last requests are answered."""


class AdapterReason(StrEnum):
    """Why a version is, or is not, resident on a pod. Said by the runtime, passed on in conditions."""

    RESIDENT = "Resident"
    """The weights are loaded and verified; requests are served."""
    LOADING = "Loading"
    """The pod is fetching, verifying or copying the weights."""
    STANDBY = "Standby"
    """Known and not loaded: the first request that names it loads it (spec.residency OnDemand)."""
    DRAINING = "Draining"
    """No longer desired; requests in flight finish before it is unloaded."""
    SOURCE_NOT_FOUND = "SourceNotFound"
    """The folder, or one of the adapter's files in it, does not exist."""
    SOURCE_NOT_MOUNTED = "SourceNotMounted"
    """The claim of a pvc:// source is not mounted: list it in the ModelDeployment's spec.adapters.claimNames."""
    FETCH_FAILED = "FetchFailed"
    """The source did not answer, or answered with an error. Tried again."""
    SOURCE_FORBIDDEN = "SourceForbidden"
    """The source refused the credentials, or wants some and source.secretRef names none."""
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    """Policy: the address, redirect or path is none that this installation lets the store read."""
    TOO_LARGE = "TooLarge"
    """A file, their sum, their number or what an archive unpacks to is above the store's limits."""
    INVALID_SOURCE = "InvalidSource"
    """source.uri cannot be understood, or what is there is no folder of files: the message says what to change."""
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
    SIGNATURE_MISSING = "SignatureMissing"
    """The installation's policy wants a signature here, and no adapter.sig lies beside the files."""
    SIGNATURE_INVALID = "SignatureInvalid"
    """adapter.sig is no signature of these files by any key of the installation's policy."""
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, no secret
    """The Secret of source.secretRef is not there, not meant for sources, or not for the store to read. Tried again."""
    STORE_FULL = "StoreFull"
    """The store has no room for it and nothing that it may delete; the message says how many bytes are missing."""

    @property
    def transient(self) -> bool:
        """Whether trying again can help without anybody changing the object or the bytes."""
        return self in _TRANSIENT

    @property
    def by_policy(self) -> bool:
        """Whether it is the installation's policy that refuses, whatever the bytes are."""
        return self in _BY_POLICY

    @property
    def failed(self) -> bool:
        """Whether this is a failure (as against a step on the way)."""
        return self not in _STEPS


_TRANSIENT = frozenset(
    {
        AdapterReason.FETCH_FAILED,
        AdapterReason.SOURCE_NOT_FOUND,
        AdapterReason.LOAD_FAILED,
        AdapterReason.SECRET_NOT_FOUND,
        AdapterReason.STORE_FULL,
    }
)
_BY_POLICY = frozenset(
    {AdapterReason.SOURCE_NOT_ALLOWED, AdapterReason.SIGNATURE_MISSING, AdapterReason.SIGNATURE_INVALID}
)
_STEPS = frozenset({AdapterReason.RESIDENT, AdapterReason.LOADING, AdapterReason.STANDBY, AdapterReason.DRAINING})


class Reason(StrEnum):
    """Reasons of the operator's own conditions."""

    READY = "Ready"
    """Everything that spec asks for is true."""
    PROGRESSING = "Progressing"
    """Under way; the message says what is waited for."""
    MODEL_DEPLOYMENT_NOT_FOUND = "ModelDeploymentNotFound"
    """The ModelDeployment of spec.modelRef, or of a version's, does not exist."""
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
    """spec does not ask for it: spec.autoscaling is absent, or spec.startup.prefetch names nothing."""
    SCALING_ACTIVE = "ScalingActive"
    """The HorizontalPodAutoscaler reads its metric."""
    METRIC_UNAVAILABLE = "MetricUnavailable"
    """The HorizontalPodAutoscaler cannot read its metric and holds; the message is the HorizontalPodAutoscaler's."""
    NAME_TAKEN = "NameTaken"
    """An object that the ModelDeployment needs exists under its name and belongs to somebody else."""
    INVALID_SPEC = "InvalidSpec"
    """The object passed admission but cannot be understood; the message names the field."""
    RESOLVED = "Resolved"
    """The digest is known and recorded."""
    VERIFIED = "Verified"
    """Every check of the files holds."""
    COMPATIBLE = "Compatible"
    """It fits the base."""
    FETCHING = "Fetching"
    """The store resolves, fetches or verifies it; the message says how far it is."""
    BASE_UNKNOWN = "BaseUnknown"
    """No pod of the model has said yet what its base looks like."""
    STORE_UNREACHABLE = "StoreUnreachable"
    """The adapter store does not answer; what it holds is unknown."""
    STORE_NOT_CONFIGURED = "StoreNotConfigured"
    """The source needs the adapter store, and this installation has none (chart value store.enabled)."""
    GATEWAY_NOT_CONFIGURED = "GatewayNotConfigured"
    """spec.rollout has limits, and the operator knows no gateway that could say what became of requests."""
    DOES_NOT_FIT = "DoesNotFit"
    """The pods have no room for it; the message says how many bytes are missing where."""
    NOT_ALLOWED = "NotAllowed"
    """The ModelDeployment does not take adapters from this namespace (spec.adapters.allowedNamespaces)."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace has as many adapters, or bytes of them, as the installation's policy gives it."""
    ROLLED_OUT = "RolledOut"
    """The split in effect is the one in spec."""
    WAITING = "Waiting"
    """The next step of the rollout waits for versions to be resident, or for something to be known."""
    BAKING = "Baking"
    """The rollout is at a step, within its limits; the next follows when the step's time is over."""
    PAUSED = "Paused"
    """spec.rollout.action holds the rollout at its step."""
    ROLLED_BACK = "RolledBack"
    """A limit of spec.rollout was passed, and the split goes back to what it was; the message says which limit it was,
    and whether the split before the rollout is in effect yet."""
    ABORTED = "Aborted"
    """spec.rollout.action took the rollout back."""
    PREFETCHED = "Prefetched"
    """Every node holds what spec.startup.prefetch asks for."""
    NOT_STALLED = "NotStalled"
    """Nothing needs anybody's help."""
