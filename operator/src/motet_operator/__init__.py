"""The control plane: makes the cluster equal to the ModelDeployments and LoraAdapters in it, and says how far it is.

Where to look, from the cluster inwards:

    kube         the API server: watches, the index of what they told, lists, our own client
    running      the queue of keys, the leader, probes and pages
    passes       one pass over one key: observe, decide, act, report
    models       what a ModelDeployment becomes, and what its status says; pure
    adapters     placement, rollout, quota, residency and status of LoraAdapters; pure
    clients      whom the operator asks and tells: pods, gateways, the adapter store
    metrics_api  custom.metrics.k8s.io, a process of its own
    store        the adapter store, a process of its own

The modules beside them are what all of them speak in (`keys`, `views`, `snapshot`, `conditions`, `errors`, `metrics`)
and what puts them together (`main`, `command_line`, `operate`, the options).

Nothing here may load the engine's libraries (torch, transformers, peft), and nothing but `kube` and the three places
where a process is put together (`operate`, `metrics_api.main`, `store.main`) knows a Kubernetes client.
"""
