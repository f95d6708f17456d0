"""The run in a few lines of Markdown, for the Kubeflow UI."""

from collections.abc import Mapping
from typing import Any

from components.verdict import Verdict


def summarize(release: Mapping[str, Any], verdict: Verdict) -> str:
    """What was decided and why, the figures beside the champion's, and where everything is."""
    version, parity = release["version"], release["parity"]
    state = "champion" if release["champion"] else "accepted" if verdict.accepted else "rejected"
    return "\n".join(
        [
            f"# {version['name']} version {version['number']}: {state}",
            "",
            release["reason"],
            "",
            *(f"- {reason}" for reason in verdict.reasons),
            "",
            *_figures(verdict),
            "",
            f"ONNX Runtime answers like PyTorch: on {parity['images']:,} test images probabilities differ by at most "
            f"{parity['max_difference']:.1e}, and {parity['agreement']:.2%} of the labels agree.",
            "",
            f"- ONNX: `{release['onnx']}`",
            f"- report: `{release['report']}`",
            f"- dataset: `{verdict.dataset}`",
            "",
        ]
    )


def _figures(verdict: Verdict) -> list[str]:
    rows = {"accuracy": verdict.accuracy}
    if verdict.champion and verdict.champion["accuracy"] is not None:
        rows[f"accuracy of the champion, version {verdict.champion['version']}"] = verdict.champion["accuracy"]
    rows |= {
        "macro precision": verdict.macro_precision,
        "macro recall": verdict.macro_recall,
        "macro F1": verdict.macro_f1,
    }
    head = [f"| on {verdict.test_images:,} test images | |", "|---|---:|"]
    return head + [f"| {name} | {share:.2%} |" for name, share in rows.items()]
