from components.evaluate.fit import misfit
from tests.components.evaluate import example


def test_a_model_fits_the_dataset_that_it_was_trained_on() -> None:
    assert misfit(example.config(), example.manifest()) == ""


def test_a_model_for_other_images_does_not_fit() -> None:
    obstacle = "it takes images of 28 x 28 x 1 and those of the dataset are 32 x 32 x 3"
    assert misfit(example.config(), example.manifest(shape=(32, 32, 3))) == obstacle


def test_the_classes_that_differ_are_named() -> None:
    config, manifest = example.config(classes=("ant", "cat", "dog")), example.manifest(classes=("cat", "dog", "zebra"))
    assert misfit(config, manifest) == "it does not know 'zebra' and it knows 'ant', which the dataset lacks"


def test_of_many_classes_that_differ_a_few_are_named() -> None:
    many = tuple(f"class {index}" for index in range(9))
    assert misfit(example.config(classes=many[:1]), example.manifest(classes=many)) == (
        "it does not know 'class 1', 'class 2', 'class 3', 'class 4', 'class 5' and 3 more"
    )


def test_the_same_classes_in_another_order_do_not_fit() -> None:
    config = example.config(classes=("dog", "cat", "zebra"))
    assert misfit(config, example.manifest()) == "it has the classes of the dataset in another order"
