import pytest

from components.step import UserError
from components.train.recipe import Recipe, read_recipe


def test_a_recipe_has_its_defaults_where_the_text_says_nothing() -> None:
    assert read_recipe("") == Recipe()
    assert read_recipe(" optimizer=sgd  mixup=0.2 accumulate=4 ") == Recipe(optimizer="sgd", mixup=0.2, accumulate=4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optimiser=sgd", "unknown part of a recipe 'optimiser'; did you mean 'optimizer'?"),
        ("mixup", "recipe must be pairs such as 'optimizer=sgd mixup=0.2', each name once, not 'mixup'"),
        ("mixup=1 mixup=2", "recipe must be pairs such as"),
        ("accumulate=1.5", "recipe: accumulate must be a whole number, not '1.5'"),
        ("clip=much", "recipe: clip must be a number, not 'much'"),
        ("accumulate=0", "recipe: accumulate must be at least 1, not 0"),
        ("label_smoothing=2", "recipe: label_smoothing must be from 0 to 1, not 2.0"),
        ("ema=1", "recipe: ema must be below 1, not 1.0"),
        ("clip=nan", "recipe: clip must be at least 0, not nan"),
        ("mixup=1e39", "recipe: mixup must be from 0 to 1000, not 1e+39"),
        ("cutmix=inf", "recipe: cutmix must be from 0 to 1000, not inf"),
        (
            "warmup=5",
            "recipe: warmup must be 0 with schedule=one_cycle, which has a rise of its own (cosine, step and constant "
            "take it), not 5.0",
        ),
        ("parallel=fsdp optimizer=lamb", "recipe: optimizer must be adamw or sgd with parallel=fsdp, not 'lamb'"),
        ("layer_decay=0", "recipe: layer_decay must be above 0, not 0.0"),
        ("schedule=cosin", "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("optimizer=adamm", "unknown optimizer 'adamm'; did you mean 'adam'?"),
        ("optimizer=adahessian", "unknown optimizer 'adahessian'; "),
    ],
)
def test_what_no_recipe_says_is_refused_with_the_way_out(text: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        read_recipe(text)
    assert str(refused.value).startswith(told)
