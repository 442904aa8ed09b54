"""Two processes on the CPU (gloo) do what one does: data parallel, and with weights split over them.

The file is also the script that torchrun starts, once for all tests: `test_parallel.py MODEL FOLDER`.
Weights are compared in float64, where the order of sums shows at 1e-15; bfloat16 is only held to its first step.
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metagdpo.errors import ConfigError
from metagdpo.models.load import load_model, load_tokenizer
from metagdpo.objectives.anchors import ContextFree, Ewc, KlToBase, L2Sp
from metagdpo.objectives.gdpo import Gdpo
from metagdpo.progress import SAID_ONCE, run_stage
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.records.sample import ContextFreeSample
from metagdpo.training import loop
from metagdpo.training.launch import VARIABLE, launch_command
from metagdpo.training.model import save_candidate
from metagdpo.training.parallel import Workers
from metagdpo.training.settings import EarlyStop, Flow, LoraParams, SequenceParams, TrainParams

ROOT = Path(__file__).parents[2]
PARAMS = TrainParams(lora=LoraParams(r=3, alpha=6), learning_rate=5e-3, groups_per_step=2, checkpoint_every=2)
CFS, KL = ContextFree(weight=0.1, per_step=3), KlToBase(weight=0.2, per_step=3)
ALL = Gdpo(pairs="all", link="logsigmoid")
MEASURED = {"epochs": 2, "held_out_share": 0.2, "measure_every": 1}
SMALL = 45
"""Tokens; less than the largest group has."""
# Five groups make steps of 2, 2 and 1; where one is held out, twice steps of 2 and 2.
JOBS = {
    "ddp-lora": {"anchors": (CFS, KL, Ewc(weight=0.5)), "token_budget": SMALL, "sample_weights": Flow()},
    "ddp-full": {"method": "full", "objective": ALL, "anchors": (KL, L2Sp(weight=0.01), Ewc(weight=0.5)),
                 "token_budget": SMALL, **MEASURED},
    "fsdp-lora": {"objective": ALL, "anchors": (CFS,), "token_budget": SMALL, "gradient_checkpointing": True},
    "fsdp-full": {"method": "full", "anchors": (KL,), "early_stop": EarlyStop(patience=3), **MEASURED},
    "fsdp-lora-bf16": {"groups_per_step": 5},
    "fsdp-full-bf16": {"groups_per_step": 5, "method": "full"},
}  # fmt: skip
EXACT = ["ddp-lora", "ddp-full", "fsdp-lora", "fsdp-full"]
SPLIT = ["fsdp-lora", "fsdp-full", "fsdp-lora-bf16", "fsdp-full-bf16"]
RESUMED = ["ddp-lora", "fsdp-lora"]
"""Also killed and rerun, and continued with another number of processes."""


def a_group(number, G):
    texts = [f"{('box', 'the answer is', 'no')[(i + number) % 3]} {number * i}" for i in range(G)]
    responses = tuple(
        ScoredResponse(index=i, teacher="t", text=texts[i], finish_reason="stop", correct=1.0, well_formed=True,
                       reward=float(i * 7 % 4), advantage=0.0)
        for i in range(G)
    )  # fmt: skip
    return ResponseGroup(question_id=f"q{number}", prompt=f"{number} + 5?", responses=responses, degenerate=False)


GROUPS = [a_group(number, G) for number, G in enumerate((4, 9, 2, 3, 6))]
SAMPLES = [
    ContextFreeSample(index=i, prefix="bos", prefix_ids=(1,), token_ids=tuple(range(10 + i, 20 + 5 * i)), text="",
                      ended=False, model="w", temperature=1.0, top_p=1.0, max_new_tokens=96, seed=0)
    for i in range(4)
]  # fmt: skip


def run(directory, folder, job):
    """Train and save; the same call in one process and in several."""
    torch.set_num_threads(1)
    dtype = "bfloat16" if job.endswith("bf16") else "float64"
    base = load_model(directory, dtype)
    if dtype == "float64":
        exact_norms(base)
    result = loop.train(
        base,
        load_tokenizer(directory),
        GROUPS,
        context_free=SAMPLES[:3],
        held_out=SAMPLES[3:],
        references=None,
        params=PARAMS.model_copy(update=JOBS[job]),
        sequences=SequenceParams(max_length=200),
        seed=7,
        work=folder,
        run_key="key",
    )
    save_candidate(result.model, folder / "candidate", reference="tiny", base_directory=directory, main=result.main)
    return result


def exact_norms(model):
    """The tiny Llama's norms compute in float32, whose rounding would hide the order of sums."""
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = functools.partial(_rms_norm, module)


def _rms_norm(module, hidden):
    return module.weight * hidden * (hidden.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


def candidate(folder):
    (file,) = (folder / "candidate").glob("*.safetensors")
    return load_file(file)


def metrics(folder):
    return [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def cut_back(source, target):
    """A training as if it had been stopped after its second step."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("candidate", "step-00000003", "step-00000004"))
    assert [path.name for path in (target / "checkpoints").iterdir()] == ["step-00000002"]


@pytest.fixture(scope="module")
def folders(tiny_model_dir, tmp_path_factory):
    """Every job by one process and by two, FOLDER/one/JOB and FOLDER/two/JOB; the launch ends with an error."""
    folder = tmp_path_factory.mktemp("parallel")
    for job in RESUMED:
        run(tiny_model_dir, folder / "one" / job, job)
        cut_back(folder / "one" / job, folder / "two" / f"{job}-moved")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launched = subprocess.Popen(
        [*launcher, __file__, tiny_model_dir, folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for job in set(JOBS) - set(RESUMED):
        run(tiny_model_dir, folder / "one" / job, job)
    output = launched.communicate(timeout=600)[0]
    assert all((folder / f"two/{rank}.json").exists() for rank in range(2)), output[-6000:]
    (folder / "ended.json").write_text(json.dumps([launched.returncode, output]))
    for job in RESUMED:
        cut_back(folder / "two" / job, folder / "one" / f"{job}-moved")
        run(tiny_model_dir, folder / "one" / f"{job}-moved", job)
    return folder


def assert_same(folder, one, two, *, weights=1e-9, values=1e-8):
    """Weights relative to the norm of each tensor; values relative, or to 1e-6 nats where they are rounding noise."""
    ours, theirs = candidate(folder / one), candidate(folder / two)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert float((tensor - theirs[name]).norm()) <= weights * float(tensor.norm()), name
    for number, (a, b) in enumerate(zip(metrics(folder / one), metrics(folder / two), strict=True)):
        assert _comparable(b, number) == pytest.approx(_comparable(a, number), rel=values, abs=1e-6 * values), number


def _comparable(step, number):
    """Where a group is streamed or takes two passes differs; so does, at first, the order of log-ratios that are 0.

    So do tokens: a prompt whose texts different processes compute counts in each (tests/training/test_step_plan.py).
    """
    step.pop("tokens")
    parts = step.pop("streamed_groups") + step.pop("two_pass_groups")
    return {name: value for name, value in step.items() if number or name != "ordering_accuracy"} | {"parts": parts}


@pytest.mark.parametrize("job", EXACT)
def test_two_processes_end_where_one_does(folders, job):
    """Weights and every metric, over unequal shares, a step with one group for two, and groups in parts."""
    assert_same(folders, f"one/{job}", f"two/{job}")


@pytest.mark.parametrize("job", RESUMED)
def test_a_checkpoint_of_one_process_is_continued_by_two(folders, job):
    assert_same(folders, f"one/{job}", f"two/{job}-moved")


@pytest.mark.parametrize("job", RESUMED)
def test_a_checkpoint_of_two_processes_is_continued_by_one(folders, job):
    assert_same(folders, f"one/{job}", f"one/{job}-moved")


@pytest.mark.parametrize("job", RESUMED)
def test_both_killed_and_rerun_end_with_the_same_bits(folders, job):
    """SIGKILL of both in step 3 (the checkpoint is at 2), rerun: as if it had never happened."""
    assert [-signal.SIGKILL] * 2 == [report(folders, rank)[f"{job}-torn"]["ended"] for rank in range(2)]
    whole, torn = (candidate(folders / "two" / name) for name in (job, f"{job}-torn"))
    assert all(torch.equal(whole[name], torn[name]) for name in whole)
    assert metrics(folders / "two" / job) == metrics(folders / "two" / f"{job}-torn")


def report(folders, rank):
    return json.loads((folders / f"two/{rank}.json").read_text())


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_were_there(folders, job):
    found = [report(folders, rank)[job] for rank in range(2)]
    assert [(0, 2, "gloo"), (1, 2, "gloo")] == [(each["rank"], each["n"], each["backend"]) for each in found]
    assert len({each["pid"] for each in found}) == 2


@pytest.mark.parametrize("job", SPLIT)
def test_weights_are_split_by_rows(folders, job):
    """Each process holds half of the rows of every tensor, rounded up in the first, and half of the bytes."""
    first, second = (report(folders, rank)[job] for rank in range(2))
    for name, rows in first["rows"].items():
        assert first["own_rows"][name] == -(-rows // 2)
        assert first["own_rows"][name] + second["own_rows"][name] == rows
    assert first["own_bytes"] + second["own_bytes"] == first["bytes"]
    assert first["own_bytes"] == pytest.approx(first["bytes"] / 2, rel=0.05)


@pytest.mark.parametrize("job", ["ddp-lora", "ddp-full"])
def test_weights_are_whole_when_only_data_is_split(folders, job):
    for rank in range(2):
        found = report(folders, rank)[job]
        assert found["own_bytes"] == found["bytes"]


def test_groups_were_computed_in_parts(folders):
    """Both ways of large groups were taken: streamed where only data is split, two passes with split weights."""
    ways = {
        job: [
            sum(step[way] for step in metrics(folders / f"two/{job}")) for way in ("streamed_groups", "two_pass_groups")
        ]
        for job in EXACT
    }
    assert ways["ddp-lora"][0] > 0
    assert ways["ddp-full"][1] > 0
    assert ways["fsdp-lora"][1] > 0
    assert ways["fsdp-full"] == [0, 0]


def test_the_best_step_was_not_the_last(folders):
    """So that the weights of the early stop are other ones than those that the last pass saw."""
    assert report(folders, 0)["fsdp-full"]["steps"] < len(metrics(folders / "two/fsdp-full"))


@pytest.mark.parametrize("job", ["fsdp-lora-bf16", "fsdp-full-bf16"])
def test_bfloat16_starts_with_the_same_gradient(folders, job):
    """A base in bfloat16 with what learns in float32, or with float32 masters: 8 bits, so 2^-6 relative."""
    one, two = metrics(folders / f"one/{job}")[0], metrics(folders / f"two/{job}")[0]
    for name in ("objective", "grad_norm"):
        assert two[name] == pytest.approx(one[name], rel=2**-6)
    ours, theirs = candidate(folders / f"one/{job}"), candidate(folders / f"two/{job}")
    assert {name: (t.dtype, t.shape) for name, t in ours.items()} == {n: (t.dtype, t.shape) for n, t in theirs.items()}


def test_an_error_of_one_process_ends_all_with_its_message(folders):
    """The other one waits for a sum that never comes; it is ended, and nobody waits."""
    code, output = json.loads((folders / "ended.json").read_text())
    assert code != 0
    assert output.count("[train] ConfigError: only the second process sees this") == 1
    assert "waited in vain" not in output


def test_an_error_of_all_processes_is_said_by_the_first(monkeypatch, tmp_path):
    """The others leave it time to end them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    slept = []
    monkeypatch.setattr("metagdpo.progress.time.sleep", slept.append)
    with pytest.raises(SystemExit):
        run_stage("train", _refuse)
    assert slept == [SAID_ONCE]
    assert not (tmp_path / ".work").exists()  # the stage's lock is the first one's


def _refuse():
    raise ConfigError("only the second process sees this")


@pytest.mark.parametrize("anchor", [L2Sp(weight=1.0), Ewc(weight=1.0)], ids=lambda anchor: anchor.kind)
def test_anchors_on_weights_are_refused_with_split_weights(tiny_model_dir, anchor):
    workers = Workers()
    workers.sharded = True
    params = PARAMS.model_copy(update={"anchors": (CFS, anchor)})
    with pytest.raises(ConfigError, match=rf"{anchor.kind} is not available with FSDP\. Use DDP"):
        loop.Engine(load_model(tiny_model_dir, "float32"), params, workers)


def test_mixed_precision_of_what_learns_is_refused_with_split_weights(tiny_model_dir):
    scorer = loop.Scorer(load_model(tiny_model_dir, "float32"))
    scorer.policy.model.norm.to(torch.bfloat16)
    with pytest.raises(ConfigError, match="weights that learn are bfloat16 and float32, which FSDP cannot split"):
        Workers().shard(scorer)


def test_processes_that_are_about_to_do_different_things_all_refuse(folders):
    for rank in range(2):
        assert "do not see the same parameters, data and checkpoints" in report(folders, rank)["apart"]


def test_the_largest_unit_goes_to_who_has_least():
    workers = Workers()
    workers.n, shares = 2, []
    for workers.rank in range(2):
        shares.append(workers.share([3, 9, 4, 2]))
    assert shares == [[1], [0, 2, 3]]


@pytest.mark.parametrize("name", ["one-gpu", "eight-gpus", "eight-gpus-fsdp", "several-nodes"])
def test_a_ready_configuration_is_what_accelerate_reads(name):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(ROOT / f"accelerate/{name}.yaml"))
    nodes, gpus, split = {"one-gpu": (1, 1, False), "eight-gpus": (1, 8, False), "eight-gpus-fsdp": (1, 8, True),
                          "several-nodes": (2, 16, True)}[name]  # fmt: skip
    assert (nodes, gpus) == (found.num_machines, found.num_processes)
    assert split == (found.distributed_type.value == "FSDP")
    assert "no" == found.mixed_precision


@pytest.mark.parametrize("launched", [{}, {"RANK": "0"}, {"LOCAL_RANK": "0"}, {"WORLD_SIZE": "1"}])
def test_only_a_plain_start_is_launched_again(launched):
    file = str(ROOT / "accelerate/eight-gpus.yaml")
    found = launch_command("pipelines.train", {VARIABLE: file} | launched)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "-m", "pipelines.train"]
    assert found == (None if launched else command)
    assert launch_command("pipelines.train", launched) is None


def test_a_missing_configuration_names_the_ready_ones(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"x.yaml is not a file.*accelerate/eight-gpus.yaml.*accelerate/one-gpu.yaml"):
        launch_command("pipelines.train", {VARIABLE: "x.yaml"})


def _main(directory, folder):
    """What each of the two processes does; reports to FOLDER/two/RANK.json."""
    import peft  # noqa: F401  (before the fork, once for all)
    import torch.distributed.fsdp
    import transformers.models.llama.modeling_llama  # noqa: F401

    found: dict = {}
    for job in RESUMED:
        _switch(job)
        torn = folder / "two" / f"{job}-torn"
        ended = [_in_child(directory, torn, job, meet=folder / f"{job}-{again}", die=not again) for again in range(2)]
        assert ended[1] == 0
        found[f"{job}-torn"] = {"ended": ended[0]}
    for name in [*JOBS, *(f"{job}-moved" for job in RESUMED)]:
        _switch(name)
        result = run(directory, folder / "two" / name, name.removesuffix("-moved"))
        found[name] = _facts(result)
    with pytest.raises(ConfigError) as apart:
        Workers().agree(os.environ["RANK"])
    found["apart"] = str(apart.value)
    (folder / f"two/{os.environ['RANK']}.json").write_text(json.dumps(found))
    run_stage("train", _refuse if torch.distributed.get_rank() else _wait_in_vain)


def _facts(result):
    tensors = dict(result.model.named_parameters())
    own = {name: tensor.to_local() if hasattr(tensor, "to_local") else tensor for name, tensor in tensors.items()}
    return {
        "rank": torch.distributed.get_rank(),
        "n": torch.distributed.get_world_size(),
        "backend": torch.distributed.get_backend(),
        "pid": os.getpid(),
        "steps": result.steps,
        "rows": {name: len(tensor) for name, tensor in tensors.items()},
        "own_rows": {name: len(tensor) for name, tensor in own.items()},
        "bytes": sum(tensor.numel() * tensor.itemsize for tensor in tensors.values()),
        "own_bytes": sum(tensor.numel() * tensor.itemsize for tensor in own.values()),
    }


def _switch(job):
    os.environ["ACCELERATE_USE_FSDP"] = str(job.startswith("fsdp"))


def _in_child(directory, folder, job, *, meet, die):
    """Train in a process of its own, which meets the other rank's through a file; returns how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meet}", rank=int(os.environ["RANK"]), world_size=2
    )
    step = loop.Engine.step
    if die:
        loop.Engine.step = lambda *words: os.kill(os.getpid(), signal.SIGKILL) if words[3] == 2 else step(*words)
    run(directory, folder, job)
    os._exit(0)


def _wait_in_vain():
    Workers().wait()
    print("waited in vain")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
