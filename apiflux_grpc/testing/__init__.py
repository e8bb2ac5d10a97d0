"""For tests of code around APIFlux: fakes for the engine's ports, virtual time, served processes.

Public: what is named here keeps its name. The served process is in `testing.served`, which this doesn't import.
"""

from apiflux_grpc.testing.clock import loop_clock
from apiflux_grpc.testing.fakes import FakePacer, FakeUpstream, SilentObserver
from apiflux_grpc.testing.lease_store import FakeLeaseStore
from apiflux_grpc.testing.watch import A_KEY, Watch

__all__ = ["A_KEY", "FakeLeaseStore", "FakePacer", "FakeUpstream", "SilentObserver", "Watch", "loop_clock"]
