"""Rewrite the code dependencies in dvc.yaml from the import closures; keeps everything else, comments included."""

from closure import ROOT, closure, relative
from ruamel.yaml import YAML


def main() -> None:
    """Replace every `.py` dependency by the closure of the stage's script."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = ROOT / "dvc.yaml"
    document = yaml.load(path.read_text(encoding="utf-8"))
    for stage in document["stages"].values():
        script = ROOT / (stage["cmd"].split()[2].replace(".", "/") + ".py")
        data = [dep for dep in stage["deps"] if not dep.endswith(".py")]
        stage["deps"] = [*data, *relative(closure(script))]
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(document, stream)


if __name__ == "__main__":
    main()
