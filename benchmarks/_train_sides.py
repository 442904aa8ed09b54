"""One side of benchmarks/train.py on one setting, in a process of its own: what a step costs and what it computes.

    python benchmarks/_train_sides.py TASK.json RESULT.json

A step is forward and backward of one group: our engine on its responses, or TRL's own `training_step` on its adjacent
pairs. Left out on both sides: tokenising, reading data, the optimiser. Reference and policy differ by seeded noise, so
that losses and gradients have something to agree about.
"""

import contextlib
import gc
import itertools
import json
import math
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from metagdpo.models.load import load_model
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.objectives.scores import GroupScores
from metagdpo.records.reference import ReferenceIdentity
from metagdpo.schema import write_json
from metagdpo.training.accumulate import backward_through
from metagdpo.training.collate import TokenSequence
from metagdpo.training.logprobs import Scorer
from metagdpo.training.model import make_policy
from metagdpo.training.precision import Masters
from metagdpo.training.reference import reference_log_probs, reference_of
from metagdpo.training.settings import SequenceParams, TrainParams

T = TypeVar("T")

BETA = 0.1
OBJECTIVE = Gdpo(pairs="adjacent", link="logsigmoid", weight="none", beta=BETA)
"""DPO's loss on the adjacent pairs: minus the mean of log sigmoid(beta (L_i - L_j))."""
NOISE = 0.01
"""Standard deviation of what is added to every weight of the base to make the policy."""

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 300, "tie_word_embeddings": True},
    "smollm2-135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                     "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                 "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "llama-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                 "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
}  # fmt: skip
ROOFLINE_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0}
"""Dense bf16 peak by a part of the device's name, as its vendor states it."""
TRL_TILE = (4096, 32768)
"""Tokens and vocabulary entries of one tile of logits in TRL 1.16."""


Named = tuple[str, Any]
"""Name of a parameter, and a tensor whose gradient is that of the parameter."""


@dataclass(frozen=True)
class Setting:
    """What both sides share."""

    model: str
    """Directory, or name of a shape with random weights."""
    layers: int | None
    """Of a shape, to make it smaller."""
    method: str
    """`full` or `lora`."""
    dtype: str
    threads: int
    prompt: int
    """Tokens."""
    response: int
    """Tokens of the longest response."""
    group: int
    ragged: bool
    """Response lengths uniform in [response / 2, response] rather than all equal."""


@dataclass(frozen=True)
class Group:
    """One group of random tokens with distinct rewards."""

    sequences: tuple[TokenSequence, ...]
    """All with the same prompt."""
    rewards_G: Tensor  # noqa: N815  (shape suffix)
    reference_G: Tensor  # noqa: N815  (shape suffix)

    @property
    def useful_tokens(self) -> int:
        """The prompt once and every response once."""
        return len(self.sequences[0].prompt_ids) + sum(len(each.response_ids) for each in self.sequences)


# ---- our side: the only lines that know our engine -------------------------------------------------------------------


def our_policy(base: Any, method: Any) -> tuple[Scorer, list[Named]]:
    """The policy as training makes it, and what its optimiser would see: float32 masters of bfloat16 weights."""
    model = make_policy(base, TrainParams(method=method, learning_rate=1e-6), seed=0)
    perturb(model)
    return Scorer(model), sorted(Masters(model).named.items())


def our_step(scorer: Scorer, group: Group, path: str) -> tuple[float, str]:
    """Add the gradient of the group's loss to the policy; return the loss and the way the engine chose.

    Args:
        scorer: The policy.
        group: With references.
        path: `packed` one pass over everything; `streamed` one pass along the chain, room for the prompt and two
            responses; `two_pass` the same room, not told about the chain.
    """

    def loss(log_probs_G: Tensor) -> Tensor:
        return OBJECTIVE.loss(GroupScores(log_probs_G, reference_G, rewards_G, lengths_G)).value

    lengths_G = torch.tensor([len(sequence.response_ids) for sequence in group.sequences], device=device())
    rewards_G, reference_G = group.rewards_G.to(device()), group.reference_G.to(device())
    room = len(group.sequences[0].prompt_ids) + 2 * int(lengths_G.max())
    found = backward_through(
        scorer,
        group.sequences,
        loss,
        token_budget=2**40 if path == "packed" else room,
        shared_prompt=True,
        coupling_SS=None if path == "two_pass" else OBJECTIVE.coupling(rewards_G),
    )
    return float(loss(found.log_probs_S)), found.way


def our_references(base: Any, group: Group, journal: Path) -> Tensor:
    """Reference log-probabilities [G], as the stage `reference` computes and keeps them."""
    nothing = "sha256:" + "0" * 64
    identity = ReferenceIdentity(
        weights=nothing, tokenizer=nothing, chat_template=nothing, groups=nothing, context_free=nothing, dtype="float32"
    )
    found = reference_log_probs(base, group.sequences, SequenceParams(), journal=journal, identity=identity)
    return reference_of({each.key: each for each in found}, group.sequences)


# ---- what both sides share -------------------------------------------------------------------------------------------


def make_group(setting: Setting, vocabulary: int) -> Group:
    """Random tokens, references not known yet; the same setting gives the same group."""
    dice = random.Random(f"{setting.prompt} {setting.response} {setting.group} {setting.ragged}")
    shortest = (setting.response + 1) // 2 if setting.ragged else setting.response
    lengths = [dice.randint(shortest, setting.response) for _ in range(setting.group)]
    prompt_ids = tuple(dice.randrange(1, vocabulary) for _ in range(setting.prompt))
    sequences = tuple(
        TokenSequence(f"question/{i}", prompt_ids, tuple(dice.randrange(1, vocabulary) for _ in range(length)))
        for i, length in enumerate(lengths)
    )
    rewards_G = torch.tensor(dice.sample(range(setting.group), setting.group), dtype=torch.float64)
    return Group(sequences, rewards_G, torch.zeros_like(rewards_G))


def make_base(setting: Setting) -> Any:
    """The base in evaluation mode: read from a directory, or random weights of a named shape."""
    if setting.model not in SHAPES:
        return load_model(Path(setting.model), setting.dtype).to(device())
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = SHAPES[setting.model] | ({"num_hidden_layers": setting.layers} if setting.layers else {})
    config = LlamaConfig(**shape, max_position_embeddings=8192, pad_token_id=0)
    torch.manual_seed(0)
    with torch.device(device()):
        return LlamaForCausalLM._from_config(config, dtype=getattr(torch, setting.dtype)).eval()  # noqa: SLF001


def perturb(model: Any) -> None:
    """Add seeded noise to every learning weight, so that the policy is not its own reference; adapters become noise."""
    generator = torch.Generator(device()).manual_seed(1)
    with torch.no_grad():
        for name, weight in learning(model):
            adapter = "lora_" in name  # two of them are multiplied, so each is larger
            noise = torch.randn(weight.shape, generator=generator, device=weight.device)
            weight.mul_(0 if adapter else 1).add_((noise * NOISE * (10 if adapter else 1)).to(weight.dtype))


def learning(model: Any) -> list[Named]:
    """Parameters with a gradient, in the order of their names."""
    return sorted((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def gradient_sample(weights: list[Named], tensors: int = 6, entries: int = 8) -> list[float]:
    """Gradient entries, evenly spread over tensors that are evenly spread over the model."""
    chosen = weights[:: max(1, len(weights) // tensors)]
    parts = [weight.grad.flatten()[:: max(1, weight.numel() // entries)][:entries] for _, weight in chosen]
    return [float(value) for value in torch.cat([part.double() for part in parts]).tolist()]


def forget_gradients(weights: list[Named]) -> None:
    """As an optimiser does after its step."""
    for _, weight in weights:
        weight.grad = None


def step_flops(base: Any, setting: Setting, group: Group) -> float:
    """Floating-point operations that one step needs: the prompt once, recomputed nothing.

    A multiplication with a [n, m] weight is 2 n m for each token, and as much again for the gradient of its input and
    for that of the weight if it learns. Attention is two products forward and four backward, over pairs of a query and
    a key that it sees. The head counts on predicting positions only; the last token of a response is never an input.
    """
    config = base.config
    prompt, scored = setting.prompt, [len(each.response_ids) for each in group.sequences]
    inputs = [n - 1 for n in scored]
    head = base.get_output_embeddings()
    layers = [part for part in base.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    linear = 2.0 * sum(layer.weight.numel() for layer in layers) * (prompt + sum(inputs))
    output = 2.0 * head.weight.numel() * sum(scored)
    seen = prompt * (prompt + 1) / 2 + sum(n * prompt + n * (n + 1) / 2 for n in inputs)
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    attention = 2.0 * 2 * width * config.num_hidden_layers * seen
    if setting.method == "full":
        return float(3 * (linear + output + attention))
    rank = TrainParams(learning_rate=1e-6).lora.r
    adapters = 2.0 * sum(rank * sum(layer.weight.shape) for layer in layers) * (prompt + sum(inputs))
    return float(2 * (linear + output) + 3 * (attention + adapters))


def device() -> str:
    """Where everything runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def held_gb() -> float:
    """Memory held now: of the GPU, or of the process; 10^9 bytes."""
    gc.collect()
    if device() == "cuda":
        return float(torch.cuda.memory_allocated()) / 1e9
    return _status_gb("VmRSS")


def peak_gb() -> float:
    """Most memory held since `reset_peak`; 10^9 bytes."""
    if device() == "cuda":
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return _status_gb("VmHWM")


def available_gb() -> float:
    """Memory that this process may come to hold in all, 10^9 bytes: of the GPU where there is one."""
    if device() == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
    memory = Path("/proc/meminfo")
    if not memory.exists():
        return 8.0
    line = next(line for line in memory.read_text(encoding="ascii").splitlines() if line.startswith("MemAvailable"))
    return held_gb() + int(line.split()[1]) * 1024 / 1e9


def reset_peak() -> None:
    """Start the search for the peak anew, so that loading and warming up do not count."""
    gc.collect()
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # a sandbox may forbid it; the peak is then that of the whole process
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def timed(step: Callable[[], T]) -> tuple[T, float, float]:
    """Result, wall seconds and CPU seconds of all threads."""
    if device() == "cuda":
        torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    result = step()
    if device() == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - wall, time.process_time() - processor


def clock(wall: float, processor: float) -> float:
    """The seconds that sides are compared by: of all threads on a CPU, which others may use too, wall on a GPU."""
    return processor if device() == "cpu" else wall


def _status_gb(field: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: the peak of the whole process stands for both
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e9


def matmul_rates(model: Any, setting: Setting, group: Group) -> dict[str, Any]:
    """Measured rate of multiplications alone, FLOP/s: those of this model in the mix of a step, and a large square one.

    For each weight the forward product, the gradient of its input and, where it learns, that of the weight. Rows: the
    tokens of a step, at most 1024; for the head a chunk of 256. Median of several.
    """
    tokens, scored = group.useful_tokens, group.useful_tokens - setting.prompt
    head = model.get_output_embeddings()
    kinds: dict[tuple[int, int, int], float] = {}  # rows, outputs, inputs: how many rows a step multiplies
    for part in model.modules():
        if isinstance(part, torch.nn.Linear):
            size = (min(256, scored) if part is head else min(1024, tokens), *part.weight.shape)
            kinds[size] = kinds.get(size, 0.0) + (scored if part is head else tokens)
    seconds = flops = 0.0
    for (rows, out, into), total in kinds.items():
        x, y, w = (
            torch.randn(size, device=device(), dtype=model.dtype) for size in ((rows, into), (rows, out), (out, into))
        )
        products = [lambda x=x, w=w: x @ w.T, lambda y=y, w=w: y @ w, lambda x=x, y=y: y.T @ x]
        for product in products if setting.method == "full" else products[:2]:
            seconds += total / rows * _median_seconds(product)
            flops += 2.0 * total * out * into
    side = 8192 if device() == "cuda" else 2048
    square = torch.randn(side, side, device=device(), dtype=model.dtype)
    name = torch.cuda.get_device_name() if device() == "cuda" else "CPU"
    return {
        "own_shapes": flops / seconds,
        "square": 2.0 * side**3 / _median_seconds(lambda: square @ square),
        "device": name,
        "roofline": next((1e12 * value for part, value in ROOFLINE_TFLOPS.items() if part in name), None),
    }


def _median_seconds(product: Callable[[], Any], times: int = 3) -> float:
    product()
    repeats = 1 if device() == "cpu" else 10

    def several() -> float:
        for _ in range(repeats):
            product()
        return 0.0

    return statistics.median(clock(*timed(several)[1:]) for _ in range(times)) / repeats


# ---- the sides -------------------------------------------------------------------------------------------------------


def measure_ours(side: str, setting: Setting, task: dict[str, Any]) -> dict[str, Any]:
    """Our engine on one path."""
    base = make_base(setting)
    group = make_group(setting, base.config.vocab_size)
    loaded, flops = held_gb(), step_flops(base, setting, group)
    journal = Path(task["cache"]) / f"ours-{setting.prompt}-{setting.response}-{setting.group}"
    reference_G, once, _ = timed(lambda: our_references(base, group, journal))
    group = replace(group, reference_G=reference_G)
    scorer, weights = our_policy(base, setting.method)
    pair = Group(group.sequences[:2], group.rewards_G[:2], reference_G[:2])
    our_step(scorer, pair, side)  # warm-up
    forget_gradients(weights)
    reset_peak()
    (loss, way), wall, processor = timed(lambda: our_step(scorer, group, side))
    return {
        "loss": loss, "wall_s": wall, "cpu_s": processor, "seconds": clock(wall, processor),
        "peak_gb": peak_gb(), "loaded_gb": loaded, "flops": flops,
        "way": way, "once_s": once, "useful_tokens": group.useful_tokens, "gradient": gradient_sample(weights),
        "matmul": matmul_rates(scorer.policy, setting, group),
    }  # fmt: skip


def measure_trl(side: str, setting: Setting, task: dict[str, Any]) -> dict[str, Any]:
    """TRL's DPOTrainer: `trl` with a reference model in every step, `trl_cached` with precomputed references.

    Appended: `_checkpointing`, with gradient checkpointing; `_single`, one pair a batch; `_autocast`, float32 weights
    under bfloat16 autocast (TRL's own default) rather than weights in the setting's dtype; `_compact`, the vocabulary
    projection on response positions only, as TRL does on a GPU, where off it every position of prompts and padding is
    projected too.
    """
    import trl.trainer.dpo_trainer  # (loaded before memory is looked at)

    if "compact" in side:  # of the head's caller alone: the kernel goes on to ask for itself
        trl.trainer.utils._use_triton = lambda _device: True  # noqa: SLF001
    if "autocast" in side:
        setting = replace(setting, dtype="float32")
    base = make_base(setting)
    group = make_group(setting, base.config.vocab_size)
    loaded, flops = held_gb(), step_flops(base, setting, group)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(base, setting, group, side, output=Path(folder), cache=Path(task["cache"]))
    model, rows = trainer.model, list(trainer.train_dataset)
    perturb(model)
    if "checkpointing" in side:  # this and the next as `train` does
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs)
    wrapped = trainer.accelerator.prepare_model(model)
    held = held_gb()
    reset_peak()
    _trl_step(trainer, wrapped, [rows[:1]])  # warm-up, and what one pair needs
    limit = 0.0 if "single" in side else task["memory_limit_gb"] or 0.8 * available_gb()
    n_batches = _batches(model, rows, peak_gb() - held, held, limit)
    batches = [rows[len(rows) * k // n_batches : len(rows) * (k + 1) // n_batches] for k in range(n_batches)]
    weights = learning(model)
    forget_gradients(weights)
    reset_peak()
    loss, wall, processor = timed(lambda: _trl_step(trainer, wrapped, batches))
    result = {
        "loss": loss, "wall_s": wall, "cpu_s": processor, "seconds": clock(wall, processor),
        "peak_gb": peak_gb(), "loaded_gb": loaded, "flops": flops,
        "useful_tokens": group.useful_tokens, "pairs_per_batch": [len(batch) for batch in batches],
        "once_s": trainer.precompute_s, "matmul": matmul_rates(model, setting, group),
    }  # fmt: skip
    if len({len(batch) for batch in batches}) == 1:  # else TRL weighs the pairs of a smaller batch more
        result["gradient"] = gradient_sample(weights)
    if task["metrics_share"]:
        result["metrics_s"] = _metrics_seconds(model, trainer.data_collator(batches[0])) * n_batches
    return result


def adjacent_pairs(group: Group) -> list[dict[str, list[int]]]:
    """Neighbours in the order of the rewards, as TRL's collator takes them."""
    order = group.rewards_G.argsort(descending=True).tolist()
    found = [group.sequences[i] for i in order]
    return [
        {
            "prompt_ids": list(better.prompt_ids),
            "chosen_ids": list(better.response_ids),
            "rejected_ids": list(worse.response_ids),
        }
        for better, worse in itertools.pairwise(found)
    ]


def _trainer(base: Any, setting: Setting, group: Group, side: str, *, output: Path, cache: Path) -> Any:
    """The real trainer; only its tokenising is passed over, and its precomputation is timed."""
    from datasets import Dataset, load_from_disk
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):  # type: ignore[misc]  # trl is untyped here
        precompute_s = 0.0

        def _prepare_dataset(self, dataset: Any, *_others: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            found, self.precompute_s, _ = timed(lambda: DPOTrainer._precompute_ref_logps(self, *arguments))  # noqa: SLF001
            return found

    pairs = adjacent_pairs(group)
    data = cache / f"trl-{setting.prompt}-{setting.response}-{setting.group}"
    if not data.exists():  # on disk, where TRL finds the references that an earlier repeat computed
        Dataset.from_list(pairs).save_to_disk(str(data))
    vocabulary = models.WordLevel({"<pad>": 0}, unk_token="<pad>")  # noqa: S106  (a token of text)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), pad_token="<pad>", eos_token="<pad>")  # noqa: S106
    lora = TrainParams(learning_rate=1e-6).lora
    adapter = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM")
    cached = "cached" in side
    return OnTokens(
        model=base,
        ref_model=None if cached or setting.method == "lora" else make_base(setting),
        args=DPOConfig(
            output_dir=str(output),
            beta=BETA,
            loss_type=["sigmoid"],
            bf16="autocast" in side,
            gradient_checkpointing="checkpointing" in side,
            precompute_ref_log_probs=cached,
            per_device_train_batch_size=len(pairs),
            max_length=None,
            use_cpu=device() == "cpu",
            dataloader_pin_memory=False,
            report_to="none",
        ),
        train_dataset=load_from_disk(str(data)),
        processing_class=tokenizer,
        peft_config=adapter if setting.method == "lora" else None,
    )


def _trl_step(trainer: Any, wrapped: Any, batches: list[list[dict[str, Any]]]) -> float:
    """TRL's `training_step` on every batch of one optimiser step; the mean loss over the pairs."""
    trainer.current_gradient_accumulation_steps = len(batches)
    losses = [trainer.training_step(wrapped, trainer.data_collator(batch)) * len(batches) for batch in batches]
    return sum(float(loss) * len(batch) for loss, batch in zip(losses, batches, strict=True)) / sum(map(len, batches))


def _batches(model: Any, rows: list[Any], one_pair: float, held: float, limit: float) -> int:
    """The smallest number of batches whose expected peak stays below the limit, from what one pair needed.

    A few more are taken where that makes all equal: TRL gives every batch the same weight.

    Args:
        model: It has gradients by now.
        rows: All pairs.
        one_pair: Peak of a step with one pair, above what was held; 10^9 bytes.
        held: Before that step.
        limit: 10^9 bytes.
    """
    gradients = float(sum(weight.numel() * weight.element_size() for _, weight in learning(model))) / 1e9
    tokens = 2 * max(len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows)

    def head(pairs: int) -> float:  # tiles of logits and the copies that TRL makes of one off the GPU
        copies = 1 if device() == "cuda" else 5
        vocabulary = min(TRL_TILE[1], model.config.vocab_size)
        return copies * min(TRL_TILE[0], pairs * tokens) * float(vocabulary) * 4 / 1e9

    def peak(n_batches: int) -> float:
        pairs = math.ceil(len(rows) / n_batches)
        return held + gradients + head(pairs) + pairs * max(0.0, one_pair - gradients - head(1))

    fewest = next((n for n in range(1, len(rows)) if peak(n) <= limit), len(rows))
    return next((n for n in range(fewest, min(2 * fewest, len(rows)) + 1) if len(rows) % n == 0), fewest)


def _metrics_seconds(model: Any, batch: dict[str, Tensor]) -> float:
    """What the metrics in TRL's head cost: one forward of it with the metrics that DPO asks for, less one without."""
    from trl.kernels import ChunkedLogProbFunction

    head = model.get_output_embeddings()
    mask = batch["completion_mask"][:, 1:].bool()
    n = int(mask.sum()) if device() == "cuda" else mask.numel()
    hidden_ND = torch.randn(n, head.weight.shape[1], dtype=head.weight.dtype, device=head.weight.device)
    target_N = torch.zeros(n, dtype=torch.long, device=head.weight.device)
    asked = {"with": ("log_probs", "entropy", "mean_logits", "is_top1"), "without": ("log_probs",)}
    seconds = {}
    with torch.no_grad():
        for name, outputs in asked.items():
            arguments = (hidden_ND, head.weight, None, target_N, 1.0, TRL_TILE[1], None, 1.0, outputs)
            _, seconds[name], _ = timed(lambda: ChunkedLogProbFunction.apply(*arguments))  # noqa: B023  (called at once)
    return seconds["with"] - seconds["without"]


def main() -> None:
    """Measure what the task file says and write the result file."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    setting = Setting(**task["setting"])
    torch.set_num_threads(setting.threads)
    measure = measure_trl if task["side"].startswith("trl") else measure_ours
    result = measure(task["side"], setting, task)
    write_json(Path(sys.argv[2]), result | {"load_average": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
