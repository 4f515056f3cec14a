"""What the autoscaler reads: requests waiting and running, by model."""

from motet_api.wire import Demand, ModelDemand
from motet_gateway.dispatch import Dispatcher
from motet_gateway.table import Table


def demand(table: Table, dispatcher: Dispatcher, at: float) -> Demand:
    """The demand of every model there is, idle ones with zeros: a model that is left out would be unknown, not idle.

    Args:
        at: Unix seconds.
    """
    return Demand(
        at=at,
        models=[
            ModelDemand(
                namespace=key.namespace,
                name=key.name,
                waiting=dispatcher.waiting(key),
                running=dispatcher.running(key),
            )
            for key in sorted(table.models)
        ],
    )
