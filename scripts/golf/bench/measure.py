"""Measures a trainer's parts on this machine's device; command.py picks the parts and prints."""

import contextlib
import functools
import gc
import io
import itertools
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from golf.bench import floor
from golf.core import machine, runlog, track, trainers
from golf.core.errors import GolfError
from golf.core.paths import REPO
from golf.core.processes import kill_tree, start
from golf.core.text import last_line

SAMPLE_SECONDS = 0.1  # one sample takes at least this, so that a synchronisation does not show
TOKENIZER = REPO / "data" / "sample_1024_bpe.model"


def synchronize(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def samples(call, device, seconds: float, least: int = 3, most: int = 50) -> list[float]:
    """Seconds a call: at least `least` samples, more until `seconds` are over.

    A first call warms up. A sample is as many calls as take SAMPLE_SECONDS, with the device
    synchronised before and after all of them.
    """

    def sample(calls: int) -> float:
        synchronize(device)
        began = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize(device)
        return (time.perf_counter() - began) / calls

    sample(1)
    end, first = time.perf_counter() + seconds, sample(1)
    calls = max(1, min(1000, round(SAMPLE_SECONDS / first)))
    found = [first] if calls == 1 else []
    while len(found) < least or (time.perf_counter() < end and len(found) < most):
        found.append(sample(calls))
    return found


# ---- The device: its name and its peaks ----


class Device:
    """A device's peaks, each measured once in a process, when a floor first needs it."""

    def __init__(self, device: torch.device):
        self.device, self.bandwidth, self.rates = device, None, {}
        # longer sides change no rate, and take a CPU minutes
        self.limit = 65536 if device.type == "cuda" else 2048

    @property
    def facts(self) -> dict[str, str]:
        """Its name and the versions, so that like is compared with like."""
        found = dict(python=platform.python_version(), torch=torch.__version__)
        if self.device.type == "cuda":
            name, found["cuda"] = torch.cuda.get_device_name(self.device), torch.version.cuda
        else:
            kind, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
            name = f"{os.cpu_count()}-core {platform.machine()} CPU, {kind}, {threads} threads"
        return dict(device=name, **found)

    def peaks(self, operators, dtype) -> floor.Peaks:
        self.bandwidth = self.bandwidth or copy_bandwidth(self.device)
        wanted = floor.shapes(operators, self.limit) | {floor.SQUARE.clipped(self.limit)}
        rates = self.rates.setdefault(dtype, {})
        for shape in sorted(wanted - rates.keys(), key=str):
            rates[shape] = product_rate(shape, dtype, self.device)
        square = rates[floor.SQUARE.clipped(self.limit)]
        return floor.Peaks(self.bandwidth, square, rates, self.limit)

    def found_peaks(self, dtype) -> dict[str, float]:
        """Bytes and operations a second, for people; empty before a floor asked for any."""
        if not (rates := self.rates.get(dtype)):
            return {}
        square = rates[floor.SQUARE.clipped(self.limit)]
        found = dict(copy_bandwidth=self.bandwidth, square=square)
        return found | dict(lowest=min(rates.values()), highest=max(rates.values()))


@functools.cache
def device_of(device: torch.device) -> Device:
    return Device(device)


def here() -> Device:
    """The device that trainers choose where DEVICE says nothing; with a container's quota of threads."""
    if threads := machine.thread_settings().get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    return device_of(torch.device("cuda:0" if torch.cuda.is_available() else "cpu"))


def forget() -> None:
    """Frees what the last configuration held on the device and in the compiler."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def copy_bandwidth(device) -> float:
    """Bytes read and written a second by the fastest copy of a tensor larger than every cache."""
    size = 1 << 28
    if device.type == "cuda":
        size = min(1 << 30, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(samples(lambda: target.copy_(source), device, 0.5))


def product_rate(shape: floor.Product, dtype, device) -> float:
    """Operations a second of the fastest such product, in the layouts of a forward and a weight's
    gradient product. Operands may stay in a cache: a peak, not a mean."""
    best = 0.0
    for transposed in (False, True):  # a.mT @ b or a @ b.mT
        rows = (shape.k, shape.m) if transposed else (shape.m, shape.k)
        cols = (shape.k, shape.n) if transposed else (shape.n, shape.k)
        a, b = (torch.randn(shape.batch, *s, device=device).to(dtype) for s in (rows, cols))
        a, b = (a.mT, b) if transposed else (a, b.mT)
        out = torch.empty(shape.batch, shape.m, shape.n, dtype=dtype, device=device)
        call, count = repeated(lambda a=a, b=b, out=out: torch.bmm(a, b, out=out), device)
        best = max(best, count * shape.operations / min(samples(call, device, 0.1)))
    return best


def repeated(call, device, count: int = 20):
    """(call, how many calls it is): on CUDA `count` in one graph, so that launches do not show."""
    if device.type != "cuda":
        return call, 1
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # a capture wants a library's first call behind it
        call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    return graph.replay, count


# ---- A trainer, set up ----


def load_trainer(script: Path):
    """The script as a module of its own; it must have the parts of this repository's trainer."""
    module = trainers.load(script)
    parts = ("read_knobs", "Run", "warm_up", "train_step", "Scorer")
    if missing := [name for name in parts if not hasattr(module, name)]:
        raise GolfError(
            f"{script}: has no {missing[0]}, so its parts cannot be timed; time whole runs instead "
            "(docs/floors.md)"
        )
    return module


def usable_data(settings: dict[str, str], trainer, folder: Path) -> dict[str, str]:
    """DATA_PATH and TOKENIZER_PATH where they hold data, else a folder of random tokens."""
    k, script = trainer.read_knobs(settings), Path(trainer.__file__)
    paths = [trainers.find_path(path, script) for path in (k.data_path, k.tokenizer_path)]
    try:
        trainers.check_data(*paths)
    except GolfError:
        paths = folder / "random tokens", TOKENIZER
        paths[0].mkdir(exist_ok=True)
        write_shard(paths[0] / "fineweb_train_000000.bin", 1 << 24)
        write_shard(paths[0] / "fineweb_val_000000.bin", 1 << 16)
    return {"DATA_PATH": str(paths[0]), "TOKENIZER_PATH": str(paths[1])}


def random_tokens(count: int, vocab: int = 1024) -> np.ndarray:
    """Ids of the sample tokenizer's plain pieces: those below 4 are special, those below 260 bytes."""
    return np.random.default_rng(0).integers(260, vocab, count, dtype=np.uint16)


def write_shard(path: Path, count: int) -> None:
    path.write_bytes(trainers.shard_of(random_tokens(count)))


def own_settings(folder: Path) -> dict[str, str]:
    """Settings that a measured run never takes from its configuration."""
    own = dict(VAL_MAX_TOKENS=1024, VAL_LOSS_EVERY=0, WARMUP_STEPS=2, RESUME=0, TRAIN_LOG_EVERY=1)
    own |= dict(OUT_DIR=folder / "runs", RUN_ID=f"run{time.monotonic_ns()}")
    return {name: str(value) for name, value in own.items()}


class Lab:
    """One trainer and configuration, warmed up and ready to be timed.

    settings: names and values as an env file gives them. folder: for what a run writes. seconds:
    for one measurement; the breakdown of a step takes about twice that again.
    """

    def __init__(self, trainer, settings: dict[str, str], folder: Path, seconds: float):
        self.trainer, self.seconds = trainer, seconds
        self.k = trainer.read_knobs({**settings, **own_settings(folder)})
        self.console = io.StringIO()  # what the trainer says to people
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with contextlib.redirect_stdout(self.console):
            try:
                self.run = trainer.Run(self.k)
            finally:  # Ctrl-C ends a benchmark at once
                for number, handler in handlers.items():
                    signal.signal(number, handler)
            if hasattr(trainer.Log, "open"):  # older trainers' logs are open
                self.run.log.open(self.run.folder, False)
            trainer.warm_up(self.run)
        self.device, self.dtype = device_of(self.run.device), self.run.model.dtype

    @property
    def notes(self) -> list[str]:
        """The trainer's lines on what it fell back to and on its graph's self-test."""
        said, told = self.console.getvalue().splitlines(), ("graph:", "self_test:")
        return [line for line in said if "failed" in line or line.startswith(told)]

    def samples(self, call, seconds: float | None = None) -> list[float]:
        with contextlib.redirect_stdout(self.console):
            return samples(call, self.run.device, self.seconds if seconds is None else seconds)

    def floor(self, operators, *phases) -> float:
        peaks = self.device.peaks(operators, self.dtype)
        return floor.floor_seconds(operators, peaks, *phases)

    def batch(self, step: int):
        return self.run.data.batch(step * self.run.sequences, self.run.sequences)


def train(lab: Lab) -> dict:
    """Whole steps, then their parts one by one."""
    run, steps, cuda = lab.run, itertools.count(), lab.run.device.type == "cuda"
    tokens = lab.batch(0)

    def step():
        nonlocal tokens
        number = next(steps)
        loss = lab.trainer.train_step(run, tokens, number, 1.0)
        tokens = lab.batch(number + 1)  # while the device is at work, as in training
        float(loss)

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    found = lab.samples(step)
    memory = torch.cuda.max_memory_reserved() if cuda else None  # what must fit the card
    operators = floor.training(lab.k, lab.dtype.itemsize)
    floors = {phase: lab.floor(operators, phase) for phase in ("forward", "backward", "optimizer")}
    sizes = dict(tokens=lab.k.train_batch_tokens, micro_batch_tokens=run.micro * lab.k.train_seq_len)
    costs = dict(floor=sum(floors.values()), parts=parts(lab), part_floors=floors)
    return dict(samples=found, peak_reserved_bytes=memory, **sizes, **costs)


def parts(lab: Lab) -> dict[str, float]:
    """Median seconds of each part of a step alone. They need not add up to a step: no part overlaps with
    another or waits for one, and on CUDA each is launched kernel by kernel, while a step is one graph."""
    run, batch = lab.run, lab.batch(0)

    def loss(part):
        return run.model.loss(part, *([run.rope] if hasattr(run, "rope") else []))  # older trainers'

    def forward():
        for part in batch.split(run.micro):
            loss(part)

    def both():
        for part in batch.split(run.micro):
            loss(part).backward()
        for p in run.opt.params:
            p.grad = None

    def log():
        loss = float(torch.ones((), device=lab.run.device))
        run.log.fact("step", f"step:1/0 train_loss:{loss:.4f}", step=1, train_loss=loss)

    calls = dict(forward=forward, backward=both, optimizer=update_of(lab))
    calls |= dict(data=lambda: lab.batch(0), logging=log)
    found = {n: statistics.median(lab.samples(c, lab.seconds / 3)) for n, c in calls.items()}
    found["backward"] = max(0.0, found["backward"] - found["forward"])
    return found


def update_of(lab: Lab):
    """A call that makes one optimizer step, on gradients of its own."""
    run = lab.run
    gradients = [torch.randn_like(p) * 1e-3 for p in run.opt.params]

    def update():
        for p, gradient in zip(run.opt.params, gradients):
            p.grad = gradient
        run.opt.schedule(0, 0.0)
        run.opt.apply()

    return update


def optimizer(lab: Lab) -> dict:
    least = lab.floor(floor.training(lab.k, lab.dtype.itemsize), "optimizer")
    return dict(samples=lab.samples(update_of(lab)), floor=least)


def data(lab: Lab) -> dict:
    """Batches in a run's order, from the folder to what train_step takes; no floor is derived."""
    steps = itertools.count()
    found = lab.samples(lambda: lab.batch(next(steps)))
    return dict(samples=found, tokens=lab.k.train_batch_tokens, floor=None)


def score(lab: Lab) -> dict:
    """The sliding score of all targets, or of as many as leave time to score them four times."""
    k, run, seconds = lab.k, lab.run, 5 * lab.seconds
    scorer = lab.trainer.Scorer(run.model, k.eval_seq_len, k.eval_stride, k.val_batch_size)
    wanted, unit = track.load("track_30min_2mb_local")["targets"], scorer.windows * k.eval_stride

    def scoring(count):
        tokens = random_tokens(count + 1, k.vocab_size)

        def call():
            scorer.reset()
            for at in range(0, count, unit):
                targets = tokens[at + 1 : at + unit + 1].astype(np.int64)
                rows = scorer.log_probs(tokens[at : at + len(targets)])
                rows[np.arange(len(targets)), targets].cpu()

        return call

    rate = 4 * unit / min(lab.samples(scoring(4 * unit), 0))
    count = min(wanted, max(1, int(rate * seconds / 4 / unit)) * unit)
    least = lab.floor(floor.scoring(k, lab.dtype.itemsize)) * count / (floor.WINDOWS * k.eval_stride)
    found = lab.samples(scoring(count), seconds)
    return dict(samples=found, tokens=count, floor=least, wanted_tokens=wanted)


# ---- From nothing to the first training step ----


def startup(trainer, settings: dict[str, str], folder: Path, end: float):
    """Yields seconds from a process's start to the end of its first training step, each measured once:
    compiled with empty caches, again with warm ones, and with COMPILE=0. end: by time.monotonic()."""
    caches = {n: str(folder / n) for n in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    for name, way in dict(cold={}, warm={}, plain=dict(COMPILE="0")).items():
        given = {**settings, **caches, **way, **own_settings(folder)}
        script, limit = Path(trainer.__file__), end - time.monotonic()
        yield dict(name=name, samples=[first_step(script, given, limit)])


def first_step(script: Path, settings: dict[str, str], limit: float) -> float:
    """Seconds from the trainer's start to its first step; then ends it. GolfError if no step comes in `limit`
    seconds."""
    metrics = Path(settings["OUT_DIR"]) / settings["RUN_ID"] / "metrics.jsonl"
    began, found = time.time(), None
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would fill up and hold it
        env = trainers.child_env({**machine.thread_settings(), **settings})
        process = start([sys.executable, str(script)], env=env, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while found is None and process.poll() is None and time.time() < began + limit:
                time.sleep(0.05)
                events = runlog.events(metrics, steps=True) if metrics.is_file() else ()
                found = next((event for kind, event in events if kind == "step"), None)
            late = process.poll() is None
        finally:
            kill_tree(process.pid)
            process.wait()
        said.seek(0)
        error = last_line(said.read().decode(errors="replace"), "nothing")
    if found is None and late:
        raise GolfError(f"no first step in {max(0, limit):.0f} s; the time is up")
    if found is None:
        raise GolfError(f"no first step; the trainer said: {error[:200]}")
    return found["time"] - began
