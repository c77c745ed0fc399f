"""Several processes, one of them running at a time: handed over hand by hand at their calls.

Each process has a thread of its own, which runs until the coordinator's `pause` says at one of its calls that another
one's turn has come. The coordinator waits meanwhile, so every run with the same plan is the same run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from tests.world.simulated.dispatcher import Process
from tests.world.simulated.faults import Crash, Violation
from tests.world.simulated.world import World


class Player:
    """One process in a thread that runs only between `run` and its return."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.dead = False
        self.calls = 0
        self._pause: Callable[[int], bool] = lambda call: False
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._state = ""
        self._killed = False
        self._violation: Violation | None = None
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def run(self, pause: Callable[[int], bool] = lambda call: False) -> str:
        """On with its tick, until it ends ("idle"), `pause` (number of its call) says so ("call"), or it is dead."""
        if self.dead:
            return "dead"
        self._pause = pause
        self._go.release()
        self._back.acquire()
        if self._violation is not None:
            raise self._violation
        return self._state

    @property
    def busy(self) -> bool:
        """Whether it stands at a call, or has Jobs in mind: those that have vanished are told later."""
        return self._state == "call" or bool(self.process.known())

    def kill(self) -> None:
        """SIGKILL, wherever it stands."""
        if not self.dead:
            self._killed = True
            self._go.release()
            self._back.acquire()
        self._thread.join()

    def at_call(self) -> None:
        """In the player's own thread, before each call."""
        if threading.current_thread() is self._thread:
            number, self.calls = self.calls, self.calls + 1
            if self._pause(number):
                self._hand_back("call")

    def _live(self) -> None:
        self._go.acquire()
        try:
            while not self._killed:
                self.process.tick()
                self._hand_back("idle")
        except Crash:
            pass
        except Violation as violation:
            self._violation = violation
        except BaseException as error:  # a defect of the stages
            self._violation = Violation(f"the process died of {error!r}")
            self._violation.__cause__ = error
        self.dead = True
        self._state = "dead"
        self._back.release()

    def _hand_back(self, state: str) -> None:
        self._state = state
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise Crash("killed")


class Table:
    """Players around one world; use it as a context manager, so that no thread is left."""

    def __init__(self, world: World, make: Callable[[], Process]) -> None:
        self.world = world
        self._make = make
        self.players: list[Player] = []
        inner = world.director

        def director(process: str, call: str, side: str) -> None:
            self.passing(process, call, side)
            inner(process, call, side)

        world.director = director

    def passing(self, process: str, call: str, side: str) -> None:
        """A director that only hands over."""
        if side == "before" and call != "cluster.list":
            for player in self.players:
                if player.process.name == process:
                    player.at_call()

    def sit(self) -> Player:
        player = Player(self._make())
        self.players.append(player)
        return player

    def rounds(self, player: Player, most: int, pause: Callable[[int], bool] = lambda call: False) -> str:
        """Ticks of one player with 30 seconds after each, until it pauses, dies or everything is settled."""
        for _ in range(most):
            state = player.run(pause)
            if state != "idle":
                return state
            if self.world.settled:
                return "settled"
            self.world.advance(self.world.pace)
        return "idle"

    def finish(self, most: int = 150) -> None:
        """Everybody alive goes on, a new one comes where nobody is, until everything is settled."""
        for _ in range(most):
            if all(player.dead for player in self.players):
                self.sit()
            for player in self.players:
                player.run()
            if self.world.settled and not any(p.busy for p in self.players if not p.dead):
                return
            self.world.advance(self.world.pace)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for player in self.players:
            player.kill()
