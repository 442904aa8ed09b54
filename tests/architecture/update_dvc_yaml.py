"""Rewrite the code dependencies in dvc.yaml from the import closures; keeps everything else, comments included."""

from closure import PIPELINES, ROOT, code_dependencies
from ruamel.yaml import YAML


def main() -> None:
    """Replace every `.py` dependency by the closure of the stage's script, in both pipelines."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    for name in PIPELINES:
        document = yaml.load((ROOT / name).read_text(encoding="utf-8"))
        for stage in document["stages"].values():
            data = [dep for dep in stage["deps"] if not dep.endswith(".py")]
            stage["deps"] = [*data, *code_dependencies(stage)]
        with (ROOT / name).open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)


if __name__ == "__main__":
    main()
