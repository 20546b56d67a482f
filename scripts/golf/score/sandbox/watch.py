"""Enforces a sandbox's limits, whether or not a request is pending."""

import subprocess
import threading
import time

from golf.score.feeder import Fault
from golf.score.sandbox import usage
from golf.score.sandbox.bwrap import Limits

TICK_SECONDS = 0.05
LONGEST_TICK_SECONDS = 0.25  # however slow a look is: a submission can make it so
MEMORY_RESERVE = 0.03  # of the machine's memory: less left ends the sandbox, whoever took the rest


class LimitWatch(threading.Thread):
    """A thread that measures every TICK_SECONDS, or less often if measuring is slow. Over a limit it sets
    `fault`, then kills the process and all below it."""

    def __init__(self, process: subprocess.Popen, limits: Limits):
        super().__init__(name="sandbox watch", daemon=True)
        self.process, self.limits = process, limits
        self.during = "starting"  # set by who asks: for the message
        self.fault: Fault | None = None
        self.peak_memory_bytes = 0
        self.pids: list[int] = []  # below the process, as of the last look
        self.over = threading.Event()
        self.before = usage.machine_memory()
        self.start()

    def run(self) -> None:
        tick = TICK_SECONDS
        while not self.over.wait(tick):
            began = time.thread_time()  # of its own: processes that keep the machine busy make it no rarer
            try:
                broken = self.look()
            except Exception as error:  # no limit would hold any more
                broken = "scorer", f"what it uses cannot be measured: {type(error).__name__}"
            if broken:
                self.fault = Fault(*broken)
                usage.end(self.process)
                return
            tick = min(max(TICK_SECONDS, 40 * (time.thread_time() - began)), LONGEST_TICK_SECONDS)

    def look(self) -> tuple[str, str] | None:
        """The rule that is broken, with a sentence about it; None if none is.

        Memory: what is resident, and by how much the machine's shared memory and the kernel's have grown,
        since files in memory need belong to no process, and no process shows what the kernel holds for it.
        """
        used, self.pids = usage.usage(self.process.pid)
        machine, most, during = usage.machine_memory(), self.limits, self.during
        shared = max(machine.grown_since(self.before), used.shared_bytes)
        memory = used.memory_bytes + shared + used.socket_bytes
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        if used.tasks > most.tasks:
            return "tasks", f"over {most.tasks} processes and threads while {during}"
        if memory > most.memory_bytes:
            return "memory", f"over {most.memory_bytes:,} bytes of memory while {during}"
        if machine.left < MEMORY_RESERVE:
            return "memory", f"the machine's memory ran out while {during}"
        return None

    def stop(self) -> None:
        self.over.set()
        self.join()
