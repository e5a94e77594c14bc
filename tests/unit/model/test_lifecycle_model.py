"""A horde of real services in which everything breaks, in any order: a job that was answered with 201 comes to
one end, everywhere the same.

Time, disks, wires and processes are the model's: see the other files of this folder. A killed process is dropped
where it stands, and its successor finds the same database. Wires lose what is on its way when they are cut,
hold it back when they stall, and say things twice that may be said twice. Within one wire nothing is reordered, as
on TCP.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.model.checks import check_always, check_quiet, unfinished
from tests.unit.model.virtual import virtual_world
from tests.unit.model.wires import Wire
from tests.unit.model.world import MINERS, World, copy_databases

EXAMPLES, STEPS = 24, 100
QUIET_SECONDS = 900.0
LONGEST_STEP_SECONDS = 27.0
SERVICES = ("facilitator", "validator", *MINERS)
pick = st.integers(0, 11)
sides = st.booleans()


class Horde(RuleBasedStateMachine):
    """One world, from its beginning until it is quiet again."""

    template: ClassVar[Path]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._time = virtual_world(seed=0)
        loop = self._time.__enter__()
        folder = Path(self._folder.name)
        copy_databases(self.template, folder)
        self.world = World(loop, folder)
        self.created: list[str] = []
        self.started = False

    @rule(
        seconds=st.sampled_from([0, 1, 4, 15]),
        status=st.sampled_from([0, 0, 0, 1]),
        attempts=st.integers(1, 3),
    )
    def create(self, seconds: int, status: int, attempts: int) -> None:
        wishes = {"attempts": attempts, "queue_time_limit": 60, "retry_backoff": 0.5}
        uuid = self.world.run(self.world.create(["work", str(seconds), str(status)], **wishes))
        if uuid is not None:
            self.created.append(uuid)

    @precondition(lambda self: self.created)
    @rule(number=pick)
    def cancel(self, number: int) -> None:
        self.world.run(self.world.cancel(self.created[number % len(self.created)]))

    @rule(seconds=st.sampled_from([0.004, 0.011, 0.023, 0.05, 0.2, 1, 3, 9, LONGEST_STEP_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(service=st.sampled_from(SERVICES))
    def kill(self, service: str) -> None:
        self.world.run(self.world.kill(service))

    @rule(service=st.sampled_from(SERVICES))
    def start(self, service: str) -> None:
        if not self.world.is_alive(service):
            self.world.run(self.world.start(service))

    @rule(service=st.sampled_from(SERVICES))
    def restart(self, service: str) -> None:
        self.world.run(self.world.kill(service))
        self.world.run(self.world.start(service))

    @rule(number=pick, wipe=sides)
    def kill_executor(self, number: int, wipe: bool) -> None:
        if executors := [process for machine in self.world.machines.values() for process in machine.executors]:
            killing = self.world.wipe_executor if wipe else self.world.kill_executor
            self.world.run(killing(executors[number % len(executors)]))

    @rule(miner=st.sampled_from(list(MINERS)), unfit=sides)
    def engine(self, miner: str, unfit: bool) -> None:
        self.world.machines[miner].unfit(unfit)

    @rule(number=pick, near_knows=sides, far_knows=sides)
    def cut(self, number: int, near_knows: bool, far_knows: bool) -> None:
        if wire := self._wire(number):
            self.world.run(self.world.cut(wire, near_knows, far_knows))

    @rule(number=pick, near=sides, stalled=sides)
    def stall(self, number: int, near: bool, stalled: bool) -> None:
        if wire := self._wire(number):
            (wire.near if near else wire.far).inbox.stall(stalled)

    @rule(number=pick, near=sides)
    def repeat(self, number: int, near: bool) -> None:
        if wire := self._wire(number):
            (wire.near if near else wire.far).inbox.repeat_next = True

    @rule(service=st.sampled_from(SERVICES), full=sides)
    def disk(self, service: str, full: bool) -> None:
        self.world.fill_disk(service, full)

    @rule(service=st.sampled_from(SERVICES), away=sides)
    def unplug(self, service: str, away: bool) -> None:
        self.world.network.unplug(self.world.address(service), away)

    @invariant()
    def promises_hold(self) -> None:
        if not self.started:
            self.started = True
            self.world.run(self.world.start_all())
            self.world.run(self.world.login())
        type(self).steps += 1
        check_always(self.world)

    def teardown(self) -> None:
        """Everything is mended; all jobs come to their end."""
        try:
            if self.started:
                self._come_to_rest()
        finally:
            self.world.run(self.world.close())
            self._time.__exit__(None, None, None)
            self._folder.cleanup()

    def _come_to_rest(self) -> None:
        self.world.run(self.world.heal())
        end = self.world.loop.time() + QUIET_SECONDS
        while (left := unfinished(self.world)) and self.world.loop.time() < end:
            self.world.pass_time(LONGEST_STEP_SECONDS / 9)
            check_always(self.world)
        assert not left, f"still not over after {QUIET_SECONDS:.0f} s: {left}"
        check_quiet(self.world, self.created)

    def _wire(self, number: int) -> Wire | None:
        wires = self.world.network.wires
        return wires[number % len(wires)] if wires else None


@pytest.fixture
def quiet() -> Iterator[None]:
    """Thousands of warnings about what the model does on purpose."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """Databases that are up to date."""
    with virtual_world(seed=0) as loop:
        world = World(loop, tmp_path)
        world.run(world.start_all())
        world.run(world.close())
    return tmp_path


@pytest.mark.usefixtures("quiet")
@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up")  # the killed close nothing
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nor do they end in order
@pytest.mark.timeout(300)
def test_every_job_comes_to_one_end(template: Path) -> None:
    Horde.template, Horde.steps = template, 0
    case = Horde.TestCase
    case.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()
    assert Horde.steps >= EXAMPLES * STEPS
