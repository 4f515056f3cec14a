"""`motet-gateway`: reads the command line and puts the parts together."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from motet_gateway.app import Lifecycle, Parts, make_app
from motet_gateway.bodies import BodyBudget
from motet_gateway.dispatch import Dispatcher
from motet_gateway.errors import SourceError
from motet_gateway.file_source import FileSource, read_table
from motet_gateway.logs import FORMATS, configure_logging
from motet_gateway.metrics import Metrics, QueueCollector
from motet_gateway.mirroring import Mirroring
from motet_gateway.outcomes import Outcomes
from motet_gateway.pod_client import PodClient
from motet_gateway.pods import HttpReportFetcher, make_session
from motet_gateway.proxy import Proxy
from motet_gateway.residency import ResidencyPoller
from motet_gateway.routing import Routing
from motet_gateway.server import make_server, stop_in_order

MIB = 1 << 20


def main() -> None:
    """The console script."""
    arguments = parse_arguments(sys.argv[1:])
    configure_logging(arguments.log_level, arguments.log_format)
    try:
        asyncio.run(run(arguments))
    except SourceError as error:
        sys.exit(f"motet-gateway: {error}")


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="motet-gateway", description="The front door of Motet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help="route requests until SIGTERM")
    command.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 (it is a server)
    command.add_argument("--port", type=int, default=8080, help="port to listen on")
    command.add_argument("--table", type=Path, metavar="FILE.yaml", help="routing table; without Kubernetes")
    command.add_argument("--kubeconfig", metavar="PATH", help="cluster to follow; the pod's own when absent")
    command.add_argument(
        "--namespace", nargs="+", default=[], metavar="NS", help="namespaces to follow; all of them when absent"
    )
    command.add_argument(
        "--default-namespace",
        default="",
        metavar="NS",
        help="whose objects bare names mean first; nobody's when absent",
    )
    command.add_argument("--max-body-bytes", type=int, default=8 * MIB, help="larger bodies are answered 413")
    command.add_argument(
        "--max-held-bytes", type=int, default=256 * MIB, help="bodies of all requests held at once; beyond it, 429"
    )
    command.add_argument(
        "--read-timeout", type=float, default=600.0, metavar="SECONDS", help="longest silence of a pod that answers"
    )
    command.add_argument(
        "--grace", type=float, default=5.0, metavar="SECONDS", help="after SIGTERM: how long to accept requests yet"
    )
    command.add_argument(
        "--finish", type=float, default=45.0, metavar="SECONDS", help="after that: how long requests may take to end"
    )
    command.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    command.add_argument("--log-format", default="json", choices=FORMATS)
    arguments = parser.parse_args(words)
    if arguments.table and (arguments.kubeconfig or arguments.namespace):
        parser.error("--table is for running without Kubernetes: leave out --kubeconfig and --namespace")
    return arguments


async def run(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Raises: SourceError, as `serve`."""
    stop_requested = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
    await serve(arguments, stop_requested)


async def serve(arguments: argparse.Namespace, stop_requested: asyncio.Event) -> None:
    """Serve until told to stop.

    Raises:
        SourceError: there is no routing table to start with.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = Metrics(registry)
    routing = Routing()
    dispatcher = Dispatcher(time.monotonic)
    lifecycle = Lifecycle()
    async with make_session() as session, source(arguments, routing, metrics) as follow_source:
        poller = ResidencyPoller(routing, HttpReportFetcher(session), time.monotonic, metrics.poll_failed)
        outcomes = Outcomes(time.monotonic)
        for listener in (poller.follow, dispatcher.update, metrics.prune, outcomes.prune):
            routing.listen(listener)
        registry.register(QueueCollector(routing, dispatcher))
        pods = PodClient(session, poller, arguments.read_timeout)
        mirroring = Mirroring(pods, dispatcher, outcomes, metrics, routing)
        proxy = Proxy(pods, dispatcher, metrics, outcomes, mirroring)
        budget = BodyBudget(arguments.max_body_bytes, arguments.max_held_bytes)
        app = make_app(Parts(routing, dispatcher, proxy, outcomes, metrics, registry, budget, lifecycle))
        server = make_server(app, arguments.host, arguments.port, arguments.finish)
        stopping = stop_in_order(server, lifecycle, stop_requested, arguments.grace, asyncio.sleep)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(work) for work in (follow_source(), dispatcher.run(asyncio.sleep), stopping)
            ]
            await server.serve()
            for task in background:
                task.cancel()
        await mirroring.close()
        await poller.close()


@asynccontextmanager
async def source(
    arguments: argparse.Namespace, routing: Routing, metrics: Metrics
) -> AsyncIterator[Callable[[], Coroutine[None, None, None]]]:
    """What follows the source of the table: a file, or the cluster.

    Raises:
        SourceError: the file is wrong, or it is not known which cluster to follow.
    """
    if arguments.table is not None:
        read_table(arguments.table)
        yield FileSource(
            arguments.table, routing, lambda: metrics.source_failed("file"), arguments.default_namespace
        ).run
        return
    # Loading the client takes most of a second and 60 MB, which a gateway with a table file does without.
    from motet_gateway.watch import KubernetesSource, Reader, connect, resources

    async with await connect(arguments.kubeconfig) as api:
        readers = [(resource, Reader(api, resource)) for resource in resources(arguments.namespace)]
        yield KubernetesSource(
            readers,
            routing,
            lambda: metrics.source_failed("kubernetes"),
            default_namespace=arguments.default_namespace,
        ).run


if __name__ == "__main__":
    main()
