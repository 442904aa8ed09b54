"""dvc.yaml tells the truth: each stage lists the code it loads and the parameters it reads."""

import ast

import pytest
from closure import COMPARISON, PIPELINES, ROOT, closure, relative, script, stages
from ruamel.yaml import YAML

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def _script(stage):
    return ROOT / (STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py")


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_equal_the_import_closure(stage):
    """Changed code reruns exactly the stages that load it."""
    listed = sorted(d for d in STAGES[stage]["deps"] if d.endswith(".py"))
    expected = relative(closure(_script(stage)))
    assert expected == listed, "write the lists with `python tests/architecture/update_dvc_yaml.py`"


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_equal_the_sections_read(stage):
    """A changed parameter reruns exactly the stages that read its section."""
    read = {
        node.args[0].value
        for node in ast.walk(ast.parse(_script(stage).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "section"
    }
    assert sorted(read) == sorted(STAGES[stage].get("params", []))


@pytest.mark.parametrize("stage", STAGES)
def test_every_data_dependency_is_made_or_committed(stage):
    """No stage waits for a file that nothing writes."""
    outs = [out if isinstance(out, str) else next(iter(out)) for s in STAGES.values() for out in s.get("outs", [])]
    for dep in STAGES[stage]["deps"]:
        made = any(dep == out or dep.startswith(out + "/") for out in outs)
        assert made or (ROOT / dep).exists(), f"{stage} needs {dep}"


def test_stages_are_the_scripts():
    """Every pipeline script is a stage, and every stage is a script."""
    scripts = {p.stem for p in (ROOT / "pipelines").glob("*.py") if p.stem != "__init__"}
    known = [*STAGES.values(), *stages(COMPARISON).values(), *stages(PIPELINES[1]).values()]
    assert scripts == {script(stage).stem for stage in known}
