"""A classifier as one ONNX file that needs nothing else: raw images in, probabilities and class names out."""

import json

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from components.models.artifact import Classifier, ModelConfig
from components.step import StepError


class Probabilities(nn.Module):
    """Images, uint8 [N, height, width, channels], to probabilities, float32 [N, classes]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.classifier(images), dim=1)


def to_onnx(classifier: Classifier, config: ModelConfig, model_name: str, *, cropped: bool) -> ModelProto:
    """The classifier as an ONNX model, in single precision; the same weights give the same bytes.

    Input: `images`, uint8 [batch, height, width, channels], as they are in a file; the preprocessing is in the graph.
    Outputs: `probabilities`, float32 [batch, classes], and `labels`, string [batch], the most probable class's name.
    The batch is of any size. `metadata_props` has the model's name, its classes as JSON, its dataset's digest, and
    whether images of another size are to be cut to their middle (`cropped`), as those were that it learnt from, or to
    be resized as a whole. Raises StepError where PyTorch cannot export the network.
    """
    model = _trace(Probabilities(classifier).eval(), config.shape)
    _name_labels(model, config.classes)
    _forget_the_machine(model.graph)
    facts = {"model_name": model_name, "classes": json.dumps(config.classes), "dataset": config.dataset}
    facts["cropped"] = json.dumps(cropped)
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model


def _trace(module: nn.Module, shape: tuple[int, int, int]) -> ModelProto:
    # dynamo=True: the other exporter takes 0.15 s in place of 2.3 s, but is deprecated, and its graph has twice the
    # nodes. Two example images, because a batch of one would be taken for a constant.
    # What takes its time is tracing, which "optimize" does not touch; without it ONNX Runtime is half as fast.
    try:
        program = torch.onnx.export(
            module,
            (torch.zeros(2, *shape, dtype=torch.uint8),),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise StepError(
            f"PyTorch {torch.__version__} cannot export this network to ONNX ({reason}); take another architecture: "
            "`retrain models` lists those that are tested"
        ) from None
    assert program is not None  # it is where no file is given
    return program.model_proto


def _name_labels(model: ModelProto, classes: tuple[str, ...]) -> None:
    """Appends `labels`: the class names, at the largest probability of each image."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(classes, dtype=object), "classes"))
    model.graph.node.extend(
        [
            helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
            helper.make_node("Gather", ["classes", "best"], ["labels"], axis=0),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.STRING, ["batch"]))


def _forget_the_machine(graph: GraphProto) -> None:
    # The exporter notes the Python stack behind every node: paths of this machine, and other bytes on the next one.
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
