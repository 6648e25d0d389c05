"""The one vocabulary of events.  Logs, metrics and traces are made of these, and of nothing else.

An event is an immutable value that says what has become so, in the past tense or as a state.  Its
text is one line for a log and holds no secret.  ``level`` is that of ``logging`` at which it is logged.

What repeats while something is broken (``Disconnected``, ``RegistrationFailed``) is told at its
beginning and then twice a minute; and twice a minute at most in the log, where a link may flap.
"""

from __future__ import annotations

from etcd_grpc.telemetry.events.base import Event
from etcd_grpc.telemetry.events.discovery import (
    Changed,
    EntryRejected,
    Fresh,
    HoldEnded,
    HoldStarted,
    Relisted,
    Resolved,
    ServiceConfigChanged,
    ServiceConfigForbidden,
    ServiceConfigLoaded,
    ServiceConfigRejected,
    SnapshotFailed,
    SnapshotLoaded,
    Stale,
)
from etcd_grpc.telemetry.events.endpoints import (
    CertificateRejected,
    CertificateRotated,
    InstanceRefused,
    Misplaced,
    PanicEnded,
    PanicStarted,
)
from etcd_grpc.telemetry.events.etcd import (
    AuthenticationRefused,
    Compacted,
    Connected,
    Disconnected,
    Moved,
    Reconnected,
    StoreReplaced,
    WatchRefused,
)
from etcd_grpc.telemetry.events.listening import Dropped
from etcd_grpc.telemetry.events.registration import (
    KeyLost,
    LeaseGranted,
    LeaseLost,
    Registered,
    RegistrationFailed,
    RegistrationOvertaken,
    Withdrawn,
)
from etcd_grpc.telemetry.events.serving import (
    DrainStarted,
    LoopLagging,
    LoopRecovered,
    ProbeFailed,
    ProbeSucceeded,
    ProgramEnded,
    ServingEnded,
    ServingStarted,
    WorkerCrashed,
    WorkerReady,
    WorkersCounted,
    WorkersEnded,
    WorkersRolled,
)

__all__ = [
    "AuthenticationRefused",
    "CertificateRejected",
    "CertificateRotated",
    "Changed",
    "Compacted",
    "Connected",
    "Disconnected",
    "DrainStarted",
    "Dropped",
    "EntryRejected",
    "Event",
    "Fresh",
    "HoldEnded",
    "HoldStarted",
    "InstanceRefused",
    "KeyLost",
    "LeaseGranted",
    "LeaseLost",
    "LoopLagging",
    "LoopRecovered",
    "Misplaced",
    "Moved",
    "PanicEnded",
    "PanicStarted",
    "ProbeFailed",
    "ProbeSucceeded",
    "ProgramEnded",
    "Reconnected",
    "Registered",
    "RegistrationFailed",
    "RegistrationOvertaken",
    "Relisted",
    "Resolved",
    "ServiceConfigChanged",
    "ServiceConfigForbidden",
    "ServiceConfigLoaded",
    "ServiceConfigRejected",
    "ServingEnded",
    "ServingStarted",
    "SnapshotFailed",
    "SnapshotLoaded",
    "Stale",
    "StoreReplaced",
    "WatchRefused",
    "Withdrawn",
    "WorkerCrashed",
    "WorkerReady",
    "WorkersCounted",
    "WorkersEnded",
    "WorkersRolled",
]
