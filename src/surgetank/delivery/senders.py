"""Which sender an outlet asks for.

Owns: no state. Threads: any.
Invariants: a transport's library is imported only where it is chosen.
"""

from __future__ import annotations

from surgetank.config import OutletConfig
from surgetank.errors import ConfigError
from surgetank.model import Clock, Sender


def sender_for(outlet: OutletConfig, clock: Clock) -> Sender:
    """
    Return a way to the network.

    Raises:
        ConfigError: A TLS file, a header or a proxy is of no use, or gRPC is chosen and not installed.
    """
    # Imported here and not at the top, because urllib3 and grpc are most of what importing this module
    # would cost; and not by the first `send`, where a fork could leave the import's lock taken.
    if outlet.protocol == "grpc":
        try:
            from surgetank.delivery.otlp_grpc import GrpcSender
        except ModuleNotFoundError as error:
            if error.name != "grpc":
                raise
            permitted = "http/protobuf only, where gRPC is not installed: pip install 'surgetank[grpc]'"
            raise ConfigError("protocol", "grpc", permitted) from None
        return GrpcSender(outlet, clock)
    from surgetank.delivery.otlp_http import HttpSender

    return HttpSender(outlet, clock)
