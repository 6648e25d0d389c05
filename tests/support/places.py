"""Worker processes as a test of the supervisor sees them: names for what it asked for."""

from __future__ import annotations

from collections.abc import Iterator

from etcd_grpc.server.workers.supervisor import (
    Effect,
    Go,
    Hurry,
    Kill,
    Phase,
    Spawn,
    Stop,
    Supervisor,
)

__all__ = ["Delays", "House"]


class Delays:
    """0, 1, 2, 4 seconds and so on."""

    def __init__(self) -> None:
        self.failures = 0

    def next_delay(self) -> float:
        self.failures += 1
        return 0.0 if self.failures == 1 else 2.0 ** (self.failures - 2)

    def reset(self) -> None:
        self.failures = 0


class House:
    """A supervisor and a clock; ``told`` are all effects, ``places`` says where each process lives."""

    def __init__(self, places: int, *, exclusive: bool = False, grace_s: float = 10.0) -> None:
        self.now = 0.0
        self.machine = Supervisor(places, exclusive=exclusive, grace_s=grace_s, delays=Delays)
        self.told: list[Effect] = []
        self.places: dict[int, int] = {}
        self.listening: set[int] = set()  # those that were let go
        self.do(self.machine.begin())

    @property
    def alive(self) -> list[int]:
        """Keys of the processes that have not exited."""
        return sorted(self.places)

    def do(self, effects: Iterator[Effect]) -> list[Effect]:
        """Carry out and note."""
        done = list(effects)
        for effect in done:
            if isinstance(effect, Spawn):
                assert effect.key not in self.places
                self.places[effect.key] = effect.place
            elif isinstance(effect, Go):
                self.listening.add(effect.key)
            elif isinstance(effect, (Stop, Hurry, Kill)):
                assert effect.key in self.places
        self.told += done
        return done

    def loaded(self, key: int) -> list[Effect]:
        return self.do(self.machine.loaded(key, self.now))

    def ready(self, key: int) -> list[Effect]:
        return self.do(self.machine.ready(key, self.now))

    def exited(self, key: int, status: int = 1, *, hopeless: bool = False) -> list[Effect]:
        del self.places[key]
        self.listening.discard(key)
        return self.do(self.machine.exited(key, status, self.now, hopeless=hopeless))

    def stop(self) -> list[Effect]:
        return self.do(self.machine.stop(self.now))

    def roll(self) -> list[Effect]:
        return self.do(self.machine.roll())

    def later(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.do(self.machine.tick(self.now))

    def serve(self) -> None:
        """Let every process that starts come to serve."""
        for key in self.alive:
            if self.machine.phase(key) is Phase.STARTING:
                self.loaded(key)
            if self.machine.phase(key) is Phase.LOADED and key in self.listening:
                self.ready(key)
