"""The champion of the registry, measured on the test split of the candidate."""

from components import registry
from components.dataset.manifest import Manifest
from components.evaluate.fit import misfit
from components.evaluate.gate import Rival
from components.evaluate.prediction import predict
from components.loader.batches import batches
from components.models import artifact
from components.storage import Store


def find_rival(store: Store, name: str, manifest: Manifest) -> Rival | None:
    """The champion with its accuracy on the test split of the dataset; None where there is none.

    A champion that was judged on this very split keeps its figure; another is fetched and evaluated, if it fits.
    """
    champion = registry.champion(store, name)
    if champion is None:
        return None
    judged_on = champion.facts["test_digest"], tuple(champion.facts["classes"])
    if judged_on == (manifest.split_digests["test"], manifest.classes):
        return Rival(champion.number, champion.facts["accuracy"])
    classifier, config = artifact.load_version(store, champion)
    if obstacle := misfit(config, manifest):
        return Rival(champion.number, None, obstacle)
    images = manifest.images("test")
    answers = predict(classifier, batches(store, manifest, "test", config.shape), images, "evaluate the champion")
    right = sum(int((probabilities.argmax(axis=1) == labels).sum()) for _, labels, probabilities in answers)
    return Rival(champion.number, right / images)
