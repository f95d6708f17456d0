"""Whether there is a reason to retrain."""

from components.registry import Version

RETRAIN, STOP = "retrain", "stop"


def decide(condition: str, champion: Version | None, dataset: str, code: str) -> tuple[str, str]:
    """RETRAIN or STOP, and why, in a sentence; `dataset` and `code` are the digests of what would be trained now."""
    if condition == "always":
        return RETRAIN, "Retraining, because the condition is 'always'."
    if champion is None:
        return RETRAIN, "Retraining, because there is no champion yet."
    changed = [what for what, now in (("dataset", dataset), ("code", code)) if champion.facts.get(what) != now]
    if not changed:
        same = f"dataset and code are those of the champion, version {champion.number}"
        return STOP, f"Nothing to do: {same}. Parameters are not compared; the condition 'always' retrains."
    return RETRAIN, f"Retraining, because the {' and the '.join(changed)} changed since version {champion.number}."
