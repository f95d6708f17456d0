"""docs/reference.md: what every step and the pipeline take and give, from the interfaces. `make docs` writes it."""

from components import step
from pipelines.kfp_component import description
from pipelines.parameters import STEPS, parameters


def reference() -> str:
    """The whole page, as Markdown."""
    intro = "Made from the steps' interfaces by `make docs`; do not edit."
    pipeline = section(
        "The pipeline's parameters",
        "The flags of `retrain run` and the form of the Kubeflow UI. On this machine `store` is `retrain-store`, and "
        "`ingest_workers` as many as there are cores.",
        parameters(),
    )
    steps = [
        section(f"`{step.parser(interface).prog}`", interface.__doc__ or "", step.fields(interface))
        for interface in STEPS
    ]
    return "\n\n".join(["# Reference", intro, pipeline, *steps]) + "\n"


def section(title: str, text: str, fields: list[step.Field]) -> str:
    """A heading, a sentence and a table with a row for each field."""
    rows = ["| flag | type | default | what it is |", "|---|---|---|---|", *map(row, fields)]
    return "\n".join([f"## {title}", "", text, "", *rows])


def row(field: step.Field) -> str:
    """A field as a row of a table."""
    way = "" if field.artifact is None else " in" if isinstance(field.artifact, step.In) else " out"
    kind = f"{field.artifact.type}{way}" if field.artifact else field.type.__name__
    default = "required" if field.required else f"`{str(field.default).lower()}`"
    return f"| `{field.flag}` | {kind} | {default} | {description(field)} |"


if __name__ == "__main__":
    print(reference(), end="")
