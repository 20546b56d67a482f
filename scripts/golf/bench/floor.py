"""The least time that the default architecture can take, by its operations and memory traffic.

A step, or a pass of scoring, is a list of operators. Each takes at least

    max(operations / matmul peak at its shape, bytes / copy bandwidth)

and the floor is their sum. What is assumed:

- An operator reads each operand from device memory once and writes each result once. Between two
  operators a tensor lies in memory; tensors that the backward pass needs are kept there.
- All other arithmetic (norms, RoPE, gains, mixing, ReLU squared, residual sums, the cap of the
  logits) is fused into the operator beside it: it costs no time, only the tensors it adds.
- Attention and the output head never write scores or logits; the head's gradient is computed where
  the logits are, without a second forward product. A scorer writes its log-probabilities, because
  the interface asks for them.
- Causal attention does half the square, its backward pass recomputes the scores: five products
  for the forward pass's two.
- One pass a step, whatever the micro-batch; weights are cast to the working type once a step.
- Attention runs at the peak of a large square product, which no attention kernel reaches.

Operations are those of matrix products, two a multiply-add. `k` is the trainer's Knobs, or
anything with its names; nothing here imports torch.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

FLOAT32 = 4  # bytes: weights, gradients and optimizer state, whatever the working type
PHASES = ("forward", "backward", "optimizer", "score")
WINDOWS = 128  # of a pass of scoring


@dataclass(frozen=True)
class Product:
    """`batch` products [m, k] @ [k, n] in the working type: the shape class of an operator."""

    m: int
    n: int
    k: int
    batch: int = 1

    @property
    def operations(self) -> int:
        return 2 * self.batch * self.m * self.n * self.k

    def clipped(self, limit: int) -> "Product":
        """The product with no side over `limit`: beyond it the rate is the same and measuring is slow."""
        return Product(*(min(side, limit) for side in (self.m, self.n, self.k)), self.batch)


SQUARE = Product(8192, 8192, 8192)


@dataclass(frozen=True)
class Operator:
    """`shape`: the shape class whose peak rate it runs at; None for an operator without products."""

    phase: str
    name: str
    operations: int
    bytes: int
    shape: Product | None = None


@dataclass(frozen=True)
class Peaks:
    """A device's bytes and operations a second; `rates` holds them by clipped shape."""

    bandwidth: float
    square: float
    rates: dict[Product, float] = field(default_factory=dict)
    limit: int = 1 << 62  # of a shape's sides in `rates`

    def rate(self, shape: Product) -> float:
        return self.rates.get(shape.clipped(self.limit), self.square)

    def seconds(self, operator: Operator) -> float:
        products = operator.operations / self.rate(operator.shape) if operator.shape else 0.0
        return max(products, operator.bytes / self.bandwidth)


# Published: bfloat16 with float32 accumulation, dense; GDDR6X.
RTX_4090 = Peaks(bandwidth=1.0e12, square=165e12)


def floor_seconds(operators: Counter[Operator], peaks: Peaks, *phases: str) -> float:
    """The least seconds of these phases; of all phases if none is named."""
    chosen = phases or PHASES
    return sum(n * peaks.seconds(op) for op, n in operators.items() if op.phase in chosen)


def shapes(operators: Counter[Operator], limit: int) -> set[Product]:
    """The shape classes that a device's Peaks must hold."""
    return {op.shape.clipped(limit) for op in operators if op.shape}


# ---- The model ----


def widths(k) -> tuple[int, int, int]:
    """Model width, width of keys and values together, MLP width."""
    dim = k.model_dim
    return dim, 2 * dim * k.num_kv_heads // k.num_heads, int(k.mlp_mult * dim)


def matrices(k) -> Counter[tuple[int, int]]:
    """How many matrices of [rows, cols] Muon trains."""
    dim, kv, hidden = widths(k)
    layer = [(dim, dim), (kv // 2, dim), (kv // 2, dim), (dim, dim), (hidden, dim), (dim, hidden)]
    return Counter(layer * k.num_layers)


def pairs(length: int, span: int) -> int:
    """The number of (query, key) pairs for `length` inputs, if a query sees at most `span` keys."""
    return sum(min(at + 1, span) for at in range(length))


# ---- The operators of a step and of scoring ----


def training(k, size: int) -> Counter[Operator]:
    """A step of TRAIN_BATCH_TOKENS on one device; `size`: bytes of the working type."""
    length = k.train_seq_len
    batch = k.train_batch_tokens // length
    passes = *forward(k, size, batch, length, length), *backward(k, size, batch)
    return Counter([*passes, *optimizer(k, size)])


def scoring(k, size: int, windows: int = WINDOWS) -> Counter[Operator]:
    """A pass over `windows` full sliding windows, which scores EVAL_STRIDE targets of each."""
    return Counter(forward(k, size, windows, k.eval_seq_len, k.eval_stride, phase="score"))


def linear(phase, name, shape: Product, elements: int, size: int) -> Operator:
    """A product that moves `elements` activations beside its weights [n, k]."""
    moved = (elements + shape.n * shape.k) * size
    return Operator(phase, name, shape.operations, moved, shape)


def forward(k, size: int, batch: int, length: int, scored: int, phase="forward"):
    """Yields the operators of `batch` sequences, with logits for the last `scored` inputs of each."""
    (dim, kv, hidden), vocab, train = widths(k), k.vocab_size, phase == "forward"
    t, encoder = batch * length, k.num_layers // 2
    yield Operator(phase, "embedding", 0, 2 * t + (t + vocab) * dim * size)
    for layer in range(k.num_layers):
        skip = encoder <= layer < 2 * encoder
        # reads the stream, x0 and a skip; writes the mixed stream, queries, keys and values
        moved = t * ((4 + skip) * dim + kv)
        name = "q, k, v, skip" if skip else "q, k, v"
        yield linear(phase, name, Product(t, dim + kv, dim), moved, size)
        moved = t * (2 * dim + kv) * size + t * k.num_heads * FLOAT32 * train  # log-sums
        seen = batch * pairs(length, k.train_seq_len)
        yield Operator(phase, "attention", 4 * dim * seen, moved, SQUARE)
        yield linear(phase, "attention out", Product(t, dim, dim), 3 * t * dim, size)
        yield linear(phase, "MLP in", Product(t, hidden, dim), t * (dim + hidden), size)
        yield linear(phase, "MLP out", Product(t, dim, hidden), t * (2 * dim + hidden), size)
    rows = batch * scored
    head = linear(phase, "head", Product(rows, vocab, dim), rows * dim, size)
    written = rows * FLOAT32 * (2 if train else vocab)  # loss and log-sum, or the log-probabilities
    yield replace(head, bytes=head.bytes + written)


def backward(k, size: int, batch: int):
    """Yields the operators: of each product, the gradients of its input and of its weights."""
    (dim, kv, hidden), vocab, encoder = widths(k), k.vocab_size, k.num_layers // 2
    length = k.train_seq_len
    t, log_sum = batch * length, FLOAT32 // size

    def gradients(name, n, inner, for_input, for_weights):
        """Of [t, inner] @ [inner, n]; for_*: what each moves, in elements a token."""
        yield linear("backward", f"{name}: input", Product(t, inner, n), t * for_input, size)
        shape, moved = Product(n, inner, t), t * for_weights * size + n * inner * FLOAT32
        yield Operator("backward", f"{name}: weights", shape.operations, moved, shape)

    yield from gradients("head", vocab, dim, 2 * dim + log_sum, dim + log_sum)
    for layer in range(k.num_layers):
        yield from gradients("MLP out", dim, hidden, dim + 2 * hidden, dim + hidden)
        yield from gradients("MLP in", hidden, dim, hidden + 3 * dim, hidden + dim)
        yield from gradients("attention out", dim, dim, 2 * dim, 2 * dim)
        # queries, keys, values and their gradients; the output and its gradient
        moved = t * ((4 * dim + 2 * kv) * size + k.num_heads * FLOAT32)
        seen = batch * pairs(length, length)
        yield Operator("backward", "attention", 10 * dim * seen, moved, SQUARE)
        # Stream, x0 and both gradients so far; both written. A decoder block also reads its skip
        # and writes the skip's gradient, which an encoder block reads.
        skip = 2 if encoder <= layer < 2 * encoder else int(layer < encoder)
        moved = dim + kv + (6 + skip) * dim
        yield from gradients("q, k, v", dim + kv, dim, moved, dim + kv + dim)
    moved = 2 * t + t * dim * size + vocab * dim * FLOAT32 * (2 if k.tie_embeddings else 1)
    yield Operator("backward", "embedding", 0, moved)


def optimizer(k, size: int):
    """Yields the operators of clipping, Adam and Muon (wide matrices, stacked by shape)."""
    stacked = Counter()
    for (rows, cols), n in matrices(k).items():
        stacked[min(rows, cols), max(rows, cols)] += n
    # Adam: the embedding, the output head, gains and mixing vectors
    adam = (1 if k.tie_embeddings else 2) * k.vocab_size * k.model_dim
    adam += k.num_layers * (4 * k.model_dim + k.num_heads) + k.num_layers // 2 * k.model_dim
    total = adam + sum(n * rows * cols for (rows, cols), n in stacked.items())
    if k.grad_clip_norm:
        yield Operator("optimizer", "clipping", 0, total * FLOAT32)
    # reads parameter, gradient, two moments; writes all but the gradient, and the cast
    yield Operator("optimizer", "Adam", 0, adam * (7 * FLOAT32 + size))
    for (rows, cols), n in stacked.items():
        full, gram, name = n * rows * cols, n * rows * rows, f"[{n}, {rows}, {cols}]"
        moved = full * (3 * FLOAT32 + size)  # gradient, momentum there and back; the update
        yield Operator("optimizer", f"momentum {name}", 0, moved)
        steps = (
            ("x x'", Product(rows, rows, cols, n), full + gram),
            ("a a", Product(rows, rows, rows, n), 2 * gram),
            ("b x", Product(rows, cols, rows, n), gram + 2 * full),
        )
        for _ in range(k.muon_backend_steps):
            for product, shape, moved in steps:
                label = f"Newton-Schulz {product} {name}"
                yield Operator("optimizer", label, shape.operations, moved * size, shape)
        # the update, the parameter there and back, its cast
        moved = full * (2 * FLOAT32 + 2 * size)
        yield Operator("optimizer", f"update {name}", 0, moved)


# ---- Tables ----


def phase_rows(k, size: int, peaks: Peaks) -> list[tuple[str, float, float, float]]:
    """Per phase operations, bytes and floor seconds a token, a target for scoring."""
    found, every = [], training(k, size) + scoring(k, size)
    for phase in PHASES:
        chosen = {op: n for op, n in every.items() if op.phase == phase}
        tokens = WINDOWS * k.eval_stride if phase == "score" else k.train_batch_tokens
        operations = sum(n * op.operations for op, n in chosen.items())
        moved = sum(n * op.bytes for op, n in chosen.items())
        row = operations, moved, floor_seconds(chosen, peaks)
        found.append((phase, *(value / tokens for value in row)))
    return found
