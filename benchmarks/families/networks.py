"""The table: which networks there are, where their definitions come from, and how each is exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CLASSES = 20
SAMPLES = 2

Shape = tuple[int, ...]
Export = tuple[str, int]

ONCE: tuple[Export, ...] = (("torchscript", 17), ("dynamo", 18))
SCRIPTED: tuple[Export, ...] = (("torchscript", 17),)
ALL: tuple[Export, ...] = (
    ("torchscript", 13),
    ("torchscript", 17),
    ("torchscript", 18),
    ("torchscript", 20),
    ("dynamo", 18),
    ("dynamo", 20),
    ("dynamo", 23),
)
KERAS: tuple[Export, ...] = (("tf2onnx", 17),)
KERAS_ALL: tuple[Export, ...] = (("tf2onnx", 13), ("tf2onnx", 17), ("tf2onnx", 18))


@dataclass(frozen=True)
class Family:
    """One family: a network and how it is exported.

    Attributes
    ----------
    name : str
        Name in the table.
    package : str
        Where the definition comes from.
    build : callable
        Returns the network (torch.nn.Module, or keras.Model for package "keras").
    shape : tuple of int
        Of the input, with a batch of SAMPLES.
    exports : tuple of (exporter, opset)
        What is measured.
    """

    name: str
    package: str
    build: Callable[[], Any]
    shape: Shape
    exports: tuple[Export, ...]


def _torchvision(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        from torchvision import models

        return models.get_model(name, weights=None, num_classes=CLASSES, **options)

    return build


def _torchvision_class(name: str, *arguments: Any) -> Callable[[], Any]:
    def build() -> Any:
        from torchvision import models

        return getattr(models, name)(*arguments, num_classes=CLASSES)

    return build


def _timm(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)

    return build


def _transformers(kind: str, task: str, **options: Any) -> Callable[[], Any]:
    """Build from a configuration; a nested one is given as ("KindConfig", {...})."""

    def build() -> Any:
        import transformers

        nested = {k: getattr(transformers, v[0])(**v[1]) if isinstance(v, tuple) else v for k, v in options.items()}
        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **nested)
        return _logits(getattr(transformers, f"{kind}For{task}")(config))

    return build


def _logits(net: Any) -> Any:
    from torch import nn

    class Logits(nn.Module):
        """A network of transformers, with its logits as only output."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> Any:
            return self.net(x).logits

    return Logits()


def _own(name: str) -> Callable[[], Any]:
    def build() -> Any:
        from tests.witness import tokennets

        return tokennets.NETS[name][0](0)

    return build


def _keras(name: str, **options: Any) -> Callable[[], Any]:
    def build(shape: Shape) -> Any:
        import keras

        return getattr(keras.applications, name)(
            input_shape=shape[1:], weights=None, classes=CLASSES, classifier_activation=None, **options
        )

    return build


def _keras_grey_levels(name: str) -> Callable[[], Any]:
    """Build one that takes grey levels: they are made of the standardised pictures in front of it."""

    def build(shape: Shape) -> Any:
        import keras

        inputs = keras.Input(shape[1:])
        return getattr(keras.applications, name)(
            input_tensor=keras.layers.Rescaling(50.0, 120.0)(inputs),
            weights=None,
            classes=CLASSES,
            classifier_activation=None,
        )

    return build


_DETR = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": (
        "ResNetConfig",
        {
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128, 256],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage4"],
        },
    ),
    "d_model": 96,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 192,
    "decoder_ffn_dim": 192,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 10,
}
_YOLOS = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "image_size": [96, 96],
    "num_detection_tokens": 10,
}
_MOBILEVIT = {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320], "image_size": 96}
_96: Shape = (SAMPLES, 3, 96, 96)
_64: Shape = (SAMPLES, 3, 64, 64)
_224: Shape = (SAMPLES, 3, 224, 224)  # what global pooling to 6 x 6 or 7 x 7 needs to be exported
_LAST: Shape = (SAMPLES, 96, 96, 3)

FAMILIES: tuple[Family, ...] = (
    Family("AlexNet", "torchvision", _torchvision("alexnet"), _224, ONCE),
    Family("VGG-11", "torchvision", _torchvision("vgg11"), _224, SCRIPTED),
    Family("VGG-11-BN", "torchvision", _torchvision("vgg11_bn"), _224, SCRIPTED),
    Family("ResNet-18", "torchvision", _torchvision("resnet18"), _96, ALL),
    Family("ResNet-50", "torchvision", _torchvision("resnet50"), _96, ONCE),
    Family("ResNeXt-50", "torchvision", _torchvision("resnext50_32x4d"), _96, ONCE),
    Family("RegNet-X", "torchvision", _torchvision("regnet_x_400mf"), _96, ONCE),
    Family("RegNet-Y", "torchvision", _torchvision("regnet_y_400mf"), _96, ONCE),
    Family("DenseNet-121", "torchvision", _torchvision("densenet121"), _96, ONCE),
    Family("GoogLeNet", "torchvision", _torchvision("googlenet", aux_logits=False, init_weights=False), _96, ONCE),
    Family(
        "Inception-v3",
        "torchvision",
        _torchvision("inception_v3", aux_logits=False, init_weights=False),
        (SAMPLES, 3, 107, 107),
        ONCE,
    ),
    Family("SqueezeNet", "torchvision", _torchvision("squeezenet1_1"), _96, ONCE),
    Family("ShuffleNet v2", "torchvision", _torchvision("shufflenet_v2_x1_0"), _96, ONCE),
    Family("MobileNet v1", "timm", _timm("mobilenetv1_100"), _96, ONCE),
    Family("MobileNet v2", "torchvision", _torchvision("mobilenet_v2"), _96, ONCE),
    Family("MobileNet v3", "torchvision", _torchvision("mobilenet_v3_small"), _96, ALL),
    Family("EfficientNet-B0", "torchvision", _torchvision("efficientnet_b0"), _96, ONCE),
    Family("EfficientNet v2-S", "torchvision", _torchvision("efficientnet_v2_s"), _64, SCRIPTED),
    Family("MNASNet", "torchvision", _torchvision("mnasnet1_0"), _96, ONCE),
    Family("ConvNeXt (atto)", "timm", _timm("convnext_atto"), _96, ONCE),
    Family("ConvNeXt-T", "torchvision", _torchvision("convnext_tiny"), _64, ONCE),
    Family("ViT-Ti/16", "timm", _timm("vit_tiny_patch16_224", img_size=96), _96, ALL),
    Family(
        "ViT (nn.MultiheadAttention)",
        "torchvision",
        _torchvision_class("VisionTransformer", 96, 16, 6, 3, 192, 384),
        _96,
        ONCE,
    ),
    Family("DeiT-Ti (distilled)", "timm", _timm("deit_tiny_distilled_patch16_224", img_size=96), _96, ONCE),
    Family(
        "Swin (timm)",
        "timm",
        _timm("swin_tiny_patch4_window7_224", img_size=112, embed_dim=48, depths=(2, 2, 2, 2)),
        (SAMPLES, 3, 112, 112),
        ALL,
    ),
    Family(
        "Swin (torchvision)",
        "torchvision",
        _torchvision_class("SwinTransformer", [4, 4], 48, [2, 2, 2], [3, 3, 6], [7, 7]),
        (SAMPLES, 3, 112, 112),
        ONCE,
    ),
    Family("MobileViT-XXS", "timm", _timm("mobilevit_xxs"), _96, ONCE),
    Family(
        "MobileViT (transformers)",
        "transformers",
        _transformers("MobileViT", "ImageClassification", **_MOBILEVIT),
        _96,
        ONCE,
    ),
    Family("SegFormer-B0", "transformers", _transformers("Segformer", "SemanticSegmentation"), _96, ONCE),
    Family("DETR", "transformers", _transformers("Detr", "ObjectDetection", **_DETR), _96, ONCE),
    Family("YOLOS", "transformers", _transformers("Yolos", "ObjectDetection", **_YOLOS), _96, ONCE),
    Family("U-Net", "own", _own("unet"), (SAMPLES, 3, 24, 32), ONCE),
    Family("YOLO-like head", "own", _own("yolo"), (SAMPLES, 3, 32, 48), ONCE),
    Family("VGG-16", "keras", _keras("VGG16"), (SAMPLES, 64, 64, 3), KERAS),
    Family("ResNet-50 v2", "keras", _keras("ResNet50V2"), _LAST, KERAS),
    Family("DenseNet-121", "keras", _keras("DenseNet121"), _LAST, KERAS),
    Family("Inception-v3", "keras", _keras("InceptionV3"), _LAST, KERAS),
    Family("Xception", "keras", _keras("Xception"), _LAST, KERAS),
    Family("MobileNet v1", "keras", _keras("MobileNet"), _LAST, KERAS),
    Family("MobileNet v2", "keras", _keras("MobileNetV2"), _LAST, KERAS),
    Family("MobileNet v3", "keras", _keras("MobileNetV3Small", include_preprocessing=False), _LAST, KERAS_ALL),
    Family("EfficientNet-B0", "keras", _keras_grey_levels("EfficientNetB0"), _LAST, KERAS),
    Family("EfficientNet v2-B0", "keras", _keras("EfficientNetV2B0", include_preprocessing=False), _LAST, KERAS),
    Family("ConvNeXt-T", "keras", _keras("ConvNeXtTiny", include_preprocessing=False), _LAST, KERAS),
)
